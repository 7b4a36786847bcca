"""What a step of the dispatcher asks for, and that it passes over nothing. A pool of this test's own takes the runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.executor import dispatcher
from services.executor.breakers.turns import ProbeTurn
from services.executor.dispatcher import Dispatcher
from services.executor.leasing import Leasing
from tests.builders import a_graph
from tests.counted_session import CountedSession
from tests.executor_lab import Lab
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack

PATIENCE = 30.0
"""For what must not go on for ever."""


class Leaser:
    """A dispatcher that nobody wakes, with room for `room` runs in every look."""

    def __init__(self, stack: Stack, *, room: int, max_bytes: int | None = None) -> None:
        lab = Lab(stack, room=room, max_bytes=max_bytes)
        parts = stack.app.parts
        self.pool = lab.pool
        self._session = CountedSession(lab.session)
        self._ready = lab.handoff.ready
        self._dispatcher = Dispatcher(
            self._session,  # type: ignore[arg-type]
            parts.cache,
            lab.handoff,
            Leasing(lab.handoff, lab.progress, lab.lease_policy),
            mirror=parts.breakers.mirror,
            turn=ProbeTurn(),
        )

    async def step(self) -> tuple[list[str], int]:
        """The nodes leased in one step that was woken, in order; and the statements that it took."""
        self._ready.backlog = True
        before = self._session.statements
        await self._dispatcher.step()
        given, self.pool.given = self.pool.given, []
        return [run.node_id for run in given], self._session.statements - before


def take_one_batch(leaser: Leaser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool has room again with the next step."""
    room = leaser.pool.free
    monkeypatch.setattr(leaser.pool, "room", lambda: 0 if leaser.pool.given else room)


@pytest.fixture
async def idle(make_stack: OpenStack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing, and no look at the whole queue for its own sake; a step takes its time."""
    monkeypatch.setattr(dispatcher, "RESCAN", 3_600.0)
    monkeypatch.setattr(dispatcher, "TURN", 3_600.0)
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


async def test_what_is_ready_is_leased_by_two_statements_and_a_third_asks_for_the_next_retry(idle: Stack) -> None:
    leaser = Leaser(idle, room=10)
    await idle.start(a_graph("a, b, c"))
    nodes, statements = await leaser.step()
    assert (sorted(nodes), statements) == (["a", "b", "c"], 3)


async def test_a_look_from_the_watermarks_is_followed_by_a_question_and_by_another_look_only_for_a_yes(
    idle: Stack,
) -> None:
    leaser = Leaser(idle, room=10)
    await idle.start(a_graph("a"))
    await leaser.step()
    await idle.start(a_graph("b"))
    assert await leaser.step() == (["b"], 4)


async def test_a_run_that_stands_before_the_watermark_is_found_in_the_same_step(idle: Stack) -> None:
    leaser = Leaser(idle, room=10)
    await idle.start(a_graph("a"))
    await leaser.step()
    await idle.start(a_graph("late"))
    await idle.sql.execute("UPDATE executor.run SET ready_at = now() - interval '1 h' WHERE node_id = 'late'")
    nodes, _ = await leaser.step()
    assert nodes == ["late"]


async def test_a_queue_is_leased_in_order_batch_by_batch_and_nothing_of_it_twice(idle: Stack) -> None:
    leaser = Leaser(idle, room=2)
    names = [f"n{number}" for number in range(5)]
    await idle.start(a_graph(", ".join(names), nodes={name: {"priority": -place} for place, name in enumerate(names)}))
    nodes, _ = await leaser.step()
    assert nodes == names


async def test_executions_that_memory_lacks_cost_one_statement_and_nothing_is_locked_twice(idle: Stack) -> None:
    leaser = Leaser(idle, room=10)
    await idle.start(a_graph("a, b"))
    await idle.start(a_graph("c"))
    idle.app.parts.cache._facts.clear()
    nodes, statements = await leaser.step()
    assert (sorted(nodes), statements) == (["a", "b", "c"], 4)


async def test_the_own_pool_reads_the_payloads_of_all_that_it_has_room_for_at_once(
    idle: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PORTION", 2)
    leaser = Leaser(idle, room=10)
    for number in range(6):
        await idle.start(a_graph(f"n{number}"))
    idle.app.parts.cache._facts.clear()
    nodes, statements = await leaser.step()
    assert (len(nodes), statements) == (6, 4)


async def test_of_a_look_that_finds_many_no_more_payloads_are_read_than_go_through_the_door_and_a_portion(
    idle: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PORTION", 2)
    monkeypatch.setattr(dispatcher, "OVERLAP", timedelta())
    leaser = Leaser(idle, room=8, max_bytes=3_500)
    take_one_batch(leaser, monkeypatch)
    for number in range(8):
        await idle.start(a_graph(f"n{number}"), payload={"text": "x" * 1_000})
    facts = idle.app.parts.cache._facts
    facts.clear()
    assert (await leaser.step())[0] == ["n0", "n1", "n2"]
    assert len(facts) == 4
    assert (await leaser.step())[0] == ["n3", "n4", "n5"], "what was left is passed over by no watermark"


async def test_one_run_goes_through_the_door_however_large_it_is(idle: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    leaser = Leaser(idle, room=8, max_bytes=100)
    take_one_batch(leaser, monkeypatch)
    for name in ("a", "b"):
        await idle.start(a_graph(name), payload={"text": "x" * 1_000})
    async with asyncio.timeout(PATIENCE):
        assert (await leaser.step())[0] == ["a"]
        assert (await leaser.step())[0] == ["b"]


async def test_what_is_ready_of_versions_without_plans_does_not_hold_up_what_was_found_before(
    idle: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PORTION", 2)
    monkeypatch.setattr(dispatcher, "OVERLAP", timedelta())
    leaser = Leaser(idle, room=4, max_bytes=100_000)
    take_one_batch(leaser, monkeypatch)
    plans = idle.app.parts.plans
    for name in ("a", "b"):
        await idle.start(a_graph(name))
    kept = dict(plans._planned)
    for name in ("c", "d"):
        await idle.start(a_graph(name))
    for key in plans._planned.keys() - kept.keys():
        del plans._planned[key]
    async with asyncio.timeout(PATIENCE):
        assert (await leaser.step())[0] == ["a", "b"]
        assert (await leaser.step())[0] == ["c", "d"]


async def test_locks_are_let_go_of_while_a_plan_is_made_and_a_batch_needs_no_more_than_it_can_hold(idle: Stack) -> None:
    leaser = Leaser(idle, room=10)
    for name in ("a", "b", "c"):
        await idle.start(a_graph(name))
    plans = idle.app.parts.plans
    plans._planned.clear()
    plans._nodes, plans._limit = 0, 1
    async with asyncio.timeout(PATIENCE):
        nodes, statements = await leaser.step()
    assert (sorted(nodes), statements) == (["a", "b", "c"], 4)
    assert len(plans._planned) == 1


async def test_a_graph_that_no_plan_can_be_made_of_is_tried_once_and_holds_up_no_other(idle: Stack) -> None:
    leaser = Leaser(idle, room=10)
    await idle.start(a_graph("a -> b", edges={"a->b": {"condition": "1 == 1"}}))
    await idle.sql.execute("UPDATE executor.pinned_graph SET document = replace(document, '1 == 1', '1 ==')")
    idle.app.parts.plans._planned.clear()
    assert await leaser.step() == ([], 3), "asked again when its plan could not be made; the next retry"
    await idle.start(a_graph("c"))
    assert await leaser.step() == (["c"], 5), "a look, a lease, what is ready, a look at the whole, the next retry"


async def test_graphs_that_no_plan_can_be_made_of_take_no_room_from_those_behind_them(idle: Stack) -> None:
    leaser = Leaser(idle, room=1)
    for name in ("a", "b"):
        await idle.start(a_graph(f"{name} -> x", edges={f"{name}->x": {"condition": "1 == 1"}}))
    await idle.sql.execute("UPDATE executor.pinned_graph SET document = replace(document, '1 == 1', '1 ==')")
    idle.app.parts.plans._planned.clear()
    for name in ("c", "d"):
        await idle.start(a_graph(name))
    async with asyncio.timeout(PATIENCE):
        assert (await leaser.step())[0] == ["c", "d"]
        assert (await leaser.step())[0] == []
