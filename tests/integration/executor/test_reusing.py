"""Looks for equal runs, step by step: what is found late or twice, or by who then dies, changes nothing that it should
not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.executor.reusing import PORTION, Decided, Reusing
from services.executor.store import reusing as store
from services.executor.store.leases import select_to_lease
from services.executor.store.reusing import Released
from tests.builders import a_graph
from tests.executor_lab import BROKEN, DONE, Lab, Sabotage, end_loop
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from tests.unit.flow.batches import a_request
from valkyr.errors import Unavailable
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Resolution, Resolve, Reused, RunDeadline
from valkyr.flow.ids import run_id
from valkyr.flow.intake import Answer
from valkyr.flow.results import FailureType
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.model import Dedupe, DedupeScope, Graph

HOUR = timedelta(hours=1)


def a_deduping_graph(arrows: str = "a -> b", **more: Any) -> Graph:
    return a_graph(arrows, modules={"a": ("DedupedModule", {})}, **more)


class Looking(Lab):
    """Looks for equals when the test says so."""

    def __init__(self, stack: Stack, **more: Any) -> None:
        super().__init__(stack, **more)
        self.reusing = Reusing(self.session, self.progress, stack.app.parts.signals)

    async def start(self, workflow_id: str) -> str:
        return (await self.stack.client.executions.start(workflow_id)).id

    async def look(self, *executions: str) -> Decided:
        keys = [(UUID(one), run_id(UUID(one), 0)) for one in executions]
        known = await self.stack.app.parts.cache.get_many({key[0] for key in keys})
        return await self.reusing.decide(keys, known)

    async def look_alone(self, execution_id: str) -> Reused:
        """What would be applied."""
        apply, events = self.progress.apply, []

        async def note(given: Any) -> list[Answer]:
            events.extend(given)
            return [Fence.LEASE_LOST for _ in given]

        self.progress.apply = note  # type: ignore[method-assign]
        try:
            await self.look(execution_id)
        finally:
            self.progress.apply = apply  # type: ignore[method-assign]
        [event] = events
        return event

    async def succeed(self, execution_id: str) -> None:
        """Its run is looked for, not found, leased, and ends well."""
        await self.look(execution_id)
        await self.lease(execution_id, "a")
        assert await self.report(execution_id, "a", DONE) == "ACCEPTED"


@pytest.fixture
async def idle(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing, and whose loop does not look for equals."""
    async with make_stack(runner={"concurrency": 0, "poll_interval": HOUR}) as stack:
        await end_loop("control")
        yield stack


@pytest.fixture
async def lab(idle: Stack) -> Looking:
    return Looking(idle)


@pytest.fixture
async def workflow_id(idle: Stack) -> str:
    return await idle.save(a_deduping_graph("a"))


async def test_what_has_no_equal_may_be_leased_and_is_itself_to_be_found(lab: Looking, workflow_id: str) -> None:
    execution_id = await lab.start(workflow_id)
    assert await lab.look(execution_id) == Decided(moved=True)
    row = await lab.stack.row(execution_id, "a")
    assert (row["state"], row["is_control"], row["dedupes"], row["epoch"]) == ("READY", False, True, 0)
    assert None not in (row["idempotency_key"], row["inputs_hash"], row["config_hash"])


async def test_a_start_wakes_who_looks_and_a_look_without_a_find_wakes_who_leases(
    lab: Looking, idle: Stack, workflow_id: str
) -> None:
    signals, leases = idle.app.parts.signals, lab.handoff.ready
    signals.control_ready.clear()
    execution_id = await lab.start(workflow_id)
    assert signals.control_ready.is_set()
    leases.wake.clear()
    leases.urgent = None
    await lab.look(execution_id)
    assert leases.wake.is_set()
    assert leases.urgent == 0


async def test_a_hit_is_written_with_where_it_comes_from_and_nothing_of_an_attempt(
    lab: Looking, workflow_id: str
) -> None:
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    await lab.look(second)
    row, found = await lab.stack.row(second, "a"), await lab.stack.row(first, "a")
    assert (row["state"], row["outputs"], row["idempotency_key"]) == ("SUCCESS", "{}", found["idempotency_key"])
    assert (row["reused_execution_id"], row["reused_run_id"]) == (found["execution_id"], found["id"])
    assert (row["attempt"], row["epoch"], row["leased_by"], row["cost_tokens"], row["dedupes"]) == (
        *(0, 0, None, None),
        False,
    )
    assert (await lab.stack.wait(second)).state == "SUCCESS"


async def test_i07_two_replicas_that_look_at_once_apply_it_once(lab: Looking, idle: Stack) -> None:
    workflow_id = await idle.save(a_deduping_graph("a -> j, b -> j"))
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    other = Looking(idle, holder="other")
    events = [await one.look_alone(second) for one in (lab, other)]
    answers = await asyncio.gather(lab.progress.apply(events[:1]), other.progress.apply(events[1:]))
    assert sorted(str(answer) for [answer] in answers) == ["ACCEPTED", "LEASE_LOST"]
    assert (await idle.row(second, "j"))["unmet"] == 1


async def test_i06_what_was_found_before_another_replica_let_the_run_be_leased_changes_nothing(
    lab: Looking, workflow_id: str
) -> None:
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    event = await lab.look_alone(second)
    await lab.stack.sql.execute("UPDATE executor.run SET finished_at = now() - interval '2 days'")
    await lab.look(second)
    before = await lab.everything()
    assert await lab.progress.apply([event]) == [Fence.LEASE_LOST], "READY, but decided"
    assert await lab.everything() == before
    await lab.lease(second, "a")
    before = await lab.everything()
    assert await lab.progress.apply([event]) == [Fence.LEASE_LOST], "leased"
    assert await lab.everything() == before


async def test_what_was_found_before_a_requeue_gave_it_other_inputs_changes_nothing(
    lab: Looking, workflow_id: str
) -> None:
    """The run is READY and undecided in both lives."""
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    event = await lab.look_alone(second)
    key = (event.execution_id, event.run_id)
    await lab.stack.sql.execute("UPDATE executor.run SET deadline = now() WHERE execution_id = $1", key[0])
    assert await lab.progress.apply([RunDeadline(*key)]) == [Fence.ACCEPTED]
    requeue = Resolve(*key, 1, Resolution.REQUEUED, a_request("again"), inputs='{"trigger":1,"nodes":{}}')
    assert await lab.progress.apply([requeue]) == [Fence.ACCEPTED]
    assert (await lab.stack.row(second, "a"))["is_control"] is True
    assert await lab.progress.apply([event]) == [Fence.LEASE_LOST]
    released = Released(key, event.quarantine_number, event.idempotency_key, "", "", dedupes=True)
    async with lab.session.transaction() as tx:
        assert await store.release_undecided(tx, [released]) == {}
        assert len(await store.release_undecided(tx, [replace(released, quarantine_number=1)])) == 1


async def test_a_run_that_is_paused_while_it_is_ready_is_looked_for_when_it_goes_on(
    lab: Looking, idle: Stack, workflow_id: str
) -> None:
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    event = await lab.look_alone(second)
    await idle.client.executions.pause(second)
    before = await lab.everything()
    assert await lab.look(second) == Decided()
    assert await lab.progress.apply([event]) == [Fence.LEASE_LOST]
    assert await lab.everything() == before
    await idle.client.executions.resume(second)
    assert idle.app.parts.signals.control_ready.is_set()
    assert await lab.look(second) == Decided(moved=True)
    assert (await idle.row(second, "a"))["reused_execution_id"] == UUID(first)


async def test_a_look_whose_executor_dies_before_it_applies_it_loses_nothing(lab: Looking, workflow_id: str) -> None:
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    before = await lab.everything()
    await lab.look_alone(second)
    assert await lab.everything() == before
    await lab.timers().decide_first()
    assert (await lab.stack.wait(second)).state == "SUCCESS"


async def test_i08_a_connection_lost_at_any_statement_leaves_nothing_and_the_next_look_finds_it_again(
    idle: Stack, database_killer: asyncpg.Connection
) -> None:
    whole = Looking(idle)
    workflow_id = await idle.save(a_deduping_graph("a -> b"))
    first, second = await whole.start(workflow_id), await whole.start(workflow_id)
    await whole.succeed(first)
    before = await whole.everything()
    at = 0
    while True:
        at += 1
        sabotage = Sabotage(idle.app.parts.session, database_killer, at)
        try:
            await Looking(idle, session=sabotage).look(second)
        except Unavailable:
            assert sabotage.hit
            assert await whole.everything() == before, f"statement {at} left something"
        else:
            break
    assert at > 3
    assert await idle.states(second) == {"a": "SUCCESS", "b": "READY"}
    assert (await idle.row(second, "a"))["reused_execution_id"] == UUID(first)


async def test_what_cannot_be_applied_now_is_found_again(lab: Looking, workflow_id: str) -> None:
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    apply = lab.progress.apply

    async def away(_events: Any) -> list[Answer]:
        raise Unavailable("the database is away")

    lab.progress.apply = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await lab.timers().decide_first()
    lab.progress.apply = apply  # type: ignore[method-assign]
    assert await lab.timers().decide_first() is None
    assert (await lab.stack.row(second, "a"))["state"] == "SUCCESS"


async def test_a_run_that_another_transaction_holds_is_left_and_looked_at_again(lab: Looking, workflow_id: str) -> None:
    held, free = await lab.start(workflow_id), await lab.start(workflow_id)
    async with lab.session.transaction() as other:
        await other.execute("SELECT 1 FROM executor.run WHERE execution_id = $1 FOR UPDATE", UUID(held))
        assert await lab.look(held, free) == Decided(moved=True, held=True)
        assert await lab.timers().decide_first() is not None
    assert [(await lab.stack.row(one, "a"))["is_control"] for one in (held, free)] == [True, False]
    assert await lab.timers().decide_first() is None
    assert (await lab.stack.row(held, "a"))["is_control"] is False


async def test_a_run_is_leased_by_nobody_before_it_was_looked_for(lab: Looking, workflow_id: str) -> None:
    lab.pool.free = 100
    execution_id = await lab.start(workflow_id)
    async with lab.session.transaction() as tx:
        assert await select_to_lease(tx, lab.handoff.serving, limit=10) == []
    await lab.look(execution_id)
    async with lab.session.transaction() as tx:
        assert len(await select_to_lease(tx, lab.handoff.serving, limit=10)) == 1


async def test_the_hand_off_takes_no_run_that_is_to_be_looked_for(lab: Looking, idle: Stack) -> None:
    lab.pool.free = 100
    execution_id = await idle.start(a_deduping_graph("x -> a, x -> b"))
    await lab.lease(execution_id, "x")
    idle.app.parts.signals.control_ready.clear()
    await lab.report(execution_id, "x", DONE)
    assert [run.node_id for run in lab.pool.given] == ["b"]
    assert idle.app.parts.signals.control_ready.is_set()


async def test_a_retry_stays_decided_and_a_requeue_does_not(lab: Looking, workflow_id: str) -> None:
    execution_id = await lab.start(workflow_id)
    await lab.look(execution_id)
    await lab.lease(execution_id, "a")
    await lab.report(execution_id, "a", replace(BROKEN, type=FailureType.TRANSIENT))
    row = await lab.stack.row(execution_id, "a")
    assert (row["state"], row["is_control"]) == ("READY", False)
    await lab.lease(execution_id, "a")
    await lab.report(execution_id, "a", BROKEN)
    requeue = Resolve(UUID(execution_id), run_id(UUID(execution_id), 0), 1, Resolution.REQUEUED, a_request("again"))
    await lab.progress.apply([requeue])
    row = await lab.stack.row(execution_id, "a")
    assert (row["state"], row["is_control"], row["dedupes"]) == ("READY", True, False)


async def test_where_a_module_has_its_equals_reused_no_longer_its_runs_are_let_go(lab: Looking, idle: Stack) -> None:
    graph = a_graph("a", modules={"a": ("BriefModule", {})})
    channel = CatalogueModule("BriefModule", dedupe=Dedupe(DedupeScope.GLOBAL))
    await idle.client.modules.register([channel])
    workflow_id = await idle.save(graph)
    first, second = await lab.start(workflow_id), await lab.start(workflow_id)
    await lab.succeed(first)
    await idle.client.modules.register([replace(channel, dedupe=None)])
    await idle.app.parts.defaults.look()
    assert await lab.look(second) == Decided(moved=True)
    row = await idle.row(second, "a")
    assert (row["state"], row["is_control"], row["dedupes"], row["reused_run_id"]) == ("READY", False, False, None)


async def test_a_run_that_was_handed_off_since_its_module_dedupes_no_longer_can_be_tried_again(
    lab: Looking, idle: Stack
) -> None:
    spec = CatalogueModule("BriefModule", dedupe=Dedupe(DedupeScope.GLOBAL))
    await idle.client.modules.register([spec])
    execution_id = await idle.start(a_graph("x -> a", modules={"a": ("BriefModule", {})}))
    await idle.client.modules.register([replace(spec, dedupe=None)])
    await idle.app.parts.defaults.look()
    lab.pool.free = 1
    await lab.lease(execution_id, "x")
    await lab.report(execution_id, "x", DONE)
    assert [run.node_id for run in lab.pool.given] == ["a"]
    await lab.report(execution_id, "a", replace(BROKEN, type=FailureType.TRANSIENT))
    row = await idle.row(execution_id, "a")
    assert (row["state"], row["is_control"]) == ("READY", False)


async def test_more_than_a_portion_is_decided_in_one_look(lab: Looking, idle: Stack) -> None:
    nodes = [f"n{number}" for number in range(PORTION + 5)]
    execution_id = await idle.start(
        a_graph(", ".join(nodes), modules={node: ("DedupedModule", {"order": node}) for node in nodes})
    )
    await lab.timers().decide_first()
    assert await idle.sql.fetchval(
        "SELECT bool_and(NOT is_control) FROM executor.run WHERE execution_id = $1", UUID(execution_id)
    )
    assert await idle.sql.fetchval("SELECT count(DISTINCT idempotency_key) FROM executor.run") == len(nodes)
