"""Looks for equals of READY runs, as `services/executor/reusing.py` does: what was found is applied a little later,
when the rows may be others; what was not found may be leased."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.simulator.moves import taken_edges_of
from tests.simulator.rows import RunRow
from tests.simulator.sight import inputs_of
from valkyr.flow.events import Reused
from valkyr.flow.leasing import AGAIN
from valkyr.flow.states import RunState

if TYPE_CHECKING:
    from tests.simulator.executor import Executor
    from tests.simulator.world import World


class Reusing:
    """Of one executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._world = executor.world

    def look(self, rows: Sequence[RunRow]) -> None:
        """At runs that are READY, and that nothing was decided about."""
        for row in rows:
            if row.quarantine_number and self._world.dice.random() < 0.2:
                self._stray(row, row.quarantine_number - 1)
            key = key_of(self._world, row)
            found = find_equal(self._world, row, key)
            if found is None:
                self._go(self._release, row, key, row.quarantine_number)
            else:
                event = Reused(*row.key, row.quarantine_number, found.key, found.outputs or "null", str(key), "", "")
                self._go(self._executor.apply, [event])

    def _stray(self, row: RunRow, number: int) -> None:
        """Somebody has found an equal before the run was requeued, or before somebody else let it be leased, and comes
        with it now."""
        self._world.counts["equals found too early"] += 1
        self._executor.apply([Reused(*row.key, number, row.key, '{"outdated":true}', "", "", "")])

    def _go(self, step: Callable[..., None], *what: Any) -> None:
        """Some time after the look, and sometimes once more."""
        world = self._world
        late = world.chance(world.weather.lingers)
        if late:
            world.counts["decisions of an old look for equals"] += 1
            self._executor.later(world.dice.random() * 5.0, step, *what)
        if not late or world.dice.random() < 0.2:
            step(*what)

    def _release(self, row: RunRow, key: object, number: int) -> None:
        """One statement, which passes over what others hold."""
        world = self._world
        if row.locked_by is not None or world.chance(world.weather.rolls_back):
            self._executor.look_within(AGAIN.total_seconds())
            return
        world.store.now = world.clock.now
        if world.store.release_undecided(row, str(key), number):
            world.counts["runs without an equal"] += 1
            world.invariants.released(row)
            self._executor.wake_all()
            if world.dice.random() < 0.1:
                self._stray(row, number)


def key_of(world: World, row: RunRow) -> object:
    """What tells a run from others of its class: its inputs, and a number of its own after a requeue with a new key."""
    inputs = inputs_of(world.store.executions[row.key[0]], row, taken_edges_of(row))
    return (row.key, row.replay.key_number, inputs) if row.replay.key_number else inputs


def find_equal(world: World, row: RunRow, key: object) -> RunRow | None:
    """FIND_REUSABLE."""
    dedupe = row.node.dedupe
    if dedupe is None:
        return None
    since = world.clock.now - dedupe.ttl.total_seconds()
    found = [
        one
        for one in world.store.runs.values()
        if one.state is RunState.SUCCESS and one.dedupes and one.idempotency_key == str(key) and one.finished_at > since
    ]
    return max(found, key=lambda one: one.finished_at, default=None)
