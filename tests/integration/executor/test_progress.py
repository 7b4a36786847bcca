"""One transaction of progress: fenced, applied once, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import orjson
import pytest

from tests.builders import a_fan, a_graph
from tests.counted_session import CountedSession
from tests.executor_lab import BROKEN, DONE, Lab, Sabotage
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.errors import Unavailable
from valkyr.flow.attempts import Fence
from valkyr.flow.events import (
    ControlReady,
    EndExecution,
    LeaseEnded,
    Request,
    Resolution,
    Resolve,
    RunDeadline,
    TimerDue,
)
from valkyr.flow.ids import run_id
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Success
from valkyr.flow.states import Ending
from valkyr.graph.model import FailurePolicy, Graph, Settings


@pytest.fixture
async def idle(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


async def started(lab: Lab, graph: Graph, *leased: str) -> str:
    """An execution with these of its roots leased elsewhere."""
    execution_id = await lab.stack.start(graph)
    await lab.lease(execution_id, *leased)
    return execution_id


@pytest.mark.parametrize("runs", [1, 20], ids=["one", "twenty"])
@pytest.mark.parametrize("room", [0, 100], ids=["successors wait", "successors are handed on"])
async def test_a_batch_of_successes_takes_two_statements_however_many_runs_there_are(
    idle: Stack, runs: int, room: int
) -> None:
    counted = CountedSession(idle.app.parts.session)
    lab = Lab(idle, room=room, session=counted)
    started_here = [await started(lab, a_graph("a -> b"), "a") for _ in range(runs)]
    events = [await lab.event(execution_id, "a", DONE) for execution_id in started_here]
    assert await lab.progress.apply(events) == [Fence.ACCEPTED] * runs
    assert counted.statements == 2, "all that is locked, all that is written"
    assert len(lab.pool.given) == min(runs, room)


@pytest.mark.parametrize("late", [DONE, BROKEN, Release()], ids=["success", "failure", "release"])
async def test_i06_a_late_report_changes_nothing_and_is_told_so(idle: Stack, late: object) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a -> b"), "a")
    await lab.report(execution_id, "a", Lost())
    await lab.lease(execution_id, "a", runner="second")
    before = await lab.everything()

    for epoch in (0, 1, 2, 4):
        assert await lab.report(execution_id, "a", late, epoch=epoch) == "LEASE_LOST"  # type: ignore[arg-type]

    assert await lab.everything() == before
    assert (await idle.row(execution_id, "a"))["epoch"] == 3
    assert await lab.report(execution_id, "a", DONE) == "ACCEPTED"


async def test_i06_a_report_for_a_run_that_was_never_leased_or_does_not_exist_is_refused(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a -> b"), "a")
    before = await lab.everything()
    unknown = LeaseEnded(UUID(execution_id), run_id(UUID(execution_id), 77), 1, DONE)
    nowhere = LeaseEnded(UUID(int=7 << 60), run_id(UUID(int=7 << 60), 0), 1, DONE)

    foreign = LeaseEnded(UUID(execution_id), run_id(UUID(int=7 << 60), 0), 1, DONE)
    item = LeaseEnded(UUID(execution_id), run_id(UUID(execution_id), 0, 3), 1, DONE)

    assert await lab.report(execution_id, "b", DONE, epoch=1) == "LEASE_LOST"
    answers = await lab.progress.apply([unknown, nowhere, foreign, item])
    assert [str(answer) for answer in answers] == ["LEASE_LOST"] * 4
    assert await lab.everything() == before


async def test_i06_a_repeated_report_is_told_so_and_applied_once(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a -> c, b -> c"), "a", "b")
    event = await lab.event(execution_id, "a", DONE)

    first = await lab.progress.apply([event, event])
    before = await lab.everything()
    second = await lab.progress.apply([event])
    third = await lab.report(execution_id, "a", BROKEN, epoch=1)

    assert [*map(str, first), *map(str, second), third] == ["ACCEPTED", *["ALREADY_REPORTED"] * 3]
    assert await lab.everything() == before
    assert (await idle.row(execution_id, "c"))["unmet"] == 1


async def test_i06_reports_of_one_run_that_race_are_accepted_once(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a -> b"), "a")
    event = await lab.event(execution_id, "a", DONE)

    answers = [str(answer) for [answer] in await asyncio.gather(*(lab.progress.apply([event]) for _ in range(20)))]

    assert sorted(answers) == ["ACCEPTED", *["ALREADY_REPORTED"] * 19]
    assert (await idle.client.executions.get(execution_id)).revision == 2


async def test_i06_a_runner_that_wakes_after_its_lease_was_given_on_is_refused_end_to_end(
    make_stack: OpenStack,
) -> None:
    slow = {"heartbeat_interval": "PT15S", "duration": "PT60S"}
    async with make_stack(runner={"lease": slow, "retry": {"backoff_base_ms": 0}}) as stack:
        execution_id = await stack.start(a_graph("a -> b", modules={"a": "HeldModule"}))
        await until_true(lambda: GATES.started["a"] == 1, "the module runs")
        await stack.sql.execute("UPDATE executor.run SET lease_until = now() - interval '1 s' WHERE state = 'LEASED'")
        await Lab(stack).reaper().step()
        await until_true(lambda: GATES.started["a"] == 2, "somebody else runs it")

        GATES.open.set()
        execution = await stack.wait(execution_id)
        run = (await stack.runs(execution_id))["a"]

        assert execution.state is ExecutionState.SUCCESS
        assert run.outputs == {"node": "a", "attempt": 2}
        assert [attempt.outcome for attempt in run.attempts] == ["RUNNER_LOST", "SUCCESS"]
        assert (await stack.row(execution_id, "a"))["epoch"] == 3


async def test_i07_the_key_keeps_one_row_per_execution_node_and_map_index(idle: Stack) -> None:
    execution_id = await idle.start(a_graph("a -> b"))
    row = dict(await idle.row(execution_id, "a"))

    with pytest.raises(asyncpg.UniqueViolationError):
        await idle.sql.execute(
            "INSERT INTO executor.run SELECT (r).* FROM (SELECT r FROM executor.run r) AS one LIMIT 1"
        )

    assert row["id"] == run_id(UUID(execution_id), 0, row["map_index"])
    ids = {run_id(UUID(execution_id), node, item) for node in range(50) for item in range(-1, 50)}
    assert len(ids) == 50 * 51


async def test_i07_an_execution_inserted_twice_is_refused_whole(idle: Stack) -> None:
    execution_id = await idle.start(a_graph("a -> b"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await idle.sql.execute(
            """WITH again AS (INSERT INTO executor.run SELECT * FROM executor.run WHERE execution_id = $1 RETURNING 1)
               SELECT * FROM again""",
            UUID(execution_id),
        )
    assert await idle.sql.fetchval("SELECT count(*) FROM executor.run") == 2


@pytest.mark.parametrize("result", [DONE, BROKEN, Lost()], ids=["success", "quarantine", "lost lease"])
async def test_i08_a_connection_lost_at_any_statement_leaves_nothing_behind(
    idle: Stack, database_killer: asyncpg.Connection, result: object
) -> None:
    graph = a_graph(
        "a -> ok -> end, a -> cleanup, a -> skipped -> gone",
        edges={"a->cleanup": {"kind": "ALWAYS"}, "a->skipped": {"condition": "outputs == 1"}},
    )
    execution_id = await started(Lab(idle), graph, "a")
    before = await Lab(idle).everything()
    at = 0
    while True:
        at += 1
        sabotage = Sabotage(idle.app.parts.session, database_killer, at)
        lab = Lab(idle, room=10, session=sabotage)
        event = await lab.event(execution_id, "a", result)  # type: ignore[arg-type]
        if not await interrupted(lab, event):
            break
        assert sabotage.hit
        assert lab.pool.given == []
        assert await lab.everything() == before, f"statement {at} left something"

    assert at > 3
    assert await lab.everything() != before
    assert await Lab(idle).report(execution_id, "a", DONE, epoch=1) in ("ALREADY_REPORTED", "LEASE_LOST")


async def interrupted(lab: Lab, event: LeaseEnded) -> bool:
    try:
        assert [str(answer) for answer in await lab.progress.apply([event])] == ["ACCEPTED"]
    except Unavailable:
        return True
    return False


async def test_i08_the_answer_to_a_commit_is_lost_and_the_report_is_repeated(
    idle: Stack, database_killer: asyncpg.Connection
) -> None:
    """The commit went through, the runner does not know: what it repeats is ALREADY_REPORTED, and nothing doubles."""
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a -> b"), "a")
    event = await lab.event(execution_id, "a", DONE)
    await lab.progress.apply([event])
    before = await lab.everything()
    assert [str(answer) for answer in await lab.progress.apply([event])] == ["ALREADY_REPORTED"]
    assert await lab.everything() == before


async def test_i08_the_outbox_row_of_a_quarantine_is_written_with_it(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a -> b, c -> d"), "a", "c")

    await lab.progress.apply([await lab.event(execution_id, "a", BROKEN), await lab.event(execution_id, "c", DONE)])

    rows = await idle.sql.fetch(
        """SELECT r.node_id, o.kind, o.quarantine_number, r.xmin = o.xmin AND e.xmin = o.xmin AS together
           FROM executor.run r JOIN executor.workflow_execution e ON e.id = r.execution_id
           LEFT JOIN executor.outbox o ON o.execution_id = r.execution_id AND o.run_id = r.id
           WHERE r.state = 'QUARANTINED' OR o.id IS NOT NULL"""
    )
    assert [tuple(row) for row in rows] == [("a", "QUARANTINED", 1, True)]


async def test_i08_counters_are_those_of_the_rows_after_every_transaction(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_fan(10), "start")
    await lab.report(execution_id, "start", DONE)
    nodes = [f"m{index}" for index in range(10)]
    await lab.lease(execution_id, *nodes)
    for index, node in enumerate(nodes):
        await lab.report(execution_id, node, BROKEN if index == 3 else DONE)
        wrong = await idle.sql.fetchval(
            """SELECT count(*) FROM executor.workflow_execution e WHERE
               e.open_runs <> (SELECT count(*) FROM executor.run r WHERE r.execution_id = e.id
                               AND r.state IN ('READY', 'LEASED', 'WAITING', 'PARKED'))
               OR e.bad_runs <> (SELECT count(*) FROM executor.run r WHERE r.execution_id = e.id
                                 AND r.state = 'QUARANTINED')"""
        )
        assert wrong == 0
    assert (await idle.client.executions.get(execution_id)).state is ExecutionState.FAILED


async def test_i08_predecessors_of_a_join_that_end_at_once_open_it_once(idle: Stack) -> None:
    lab = Lab(idle)
    arrows = ", ".join(f"p{index} -> join" for index in range(30))
    execution_id = await started(lab, a_graph(arrows), *(f"p{index}" for index in range(30)))
    events = [await lab.event(execution_id, f"p{index}", DONE) for index in range(30)]

    await asyncio.gather(*(lab.progress.apply([event]) for event in events))

    row = await idle.row(execution_id, "join")
    assert (row["state"], row["unmet"], row["taken"]) == ("READY", 0, 30)
    execution = await idle.sql.fetchrow("SELECT open_runs, bad_runs, revision FROM executor.workflow_execution")
    assert tuple(execution) == (1, 0, 31)


@pytest.mark.parametrize("ending", [DONE, BROKEN], ids=["SUCCESS", "FAILED"])
async def test_i05_nothing_leaves_a_settled_execution_or_a_final_run(idle: Stack, ending: object) -> None:
    lab = Lab(idle, room=5)
    graph = a_graph("a -> b, a -> c", edges={"a->b": {"kind": "FAILURE", "condition": "error.type == 'TIMEOUT'"}})
    execution_id = await started(lab, graph, "a")
    await lab.report(execution_id, "a", ending)  # type: ignore[arg-type]
    if ending is DONE:
        await lab.report(execution_id, "c", DONE)
    assert (await idle.client.executions.get(execution_id)).settled
    before = await lab.everything()

    for node in ("a", "b", "c"):
        for epoch in range(4):
            for result in (DONE, BROKEN, Lost(), Omitted(), Release()):
                if (await idle.row(execution_id, node))["state"] != "PENDING":
                    assert await lab.report(execution_id, node, result, epoch=epoch) != "ACCEPTED"
        run = run_id(UUID(execution_id), (await idle.row(execution_id, node))["node_index"])
        await lab.progress.apply([TimerDue(UUID(execution_id), run), ControlReady(UUID(execution_id), run)])

    assert await lab.everything() == before


async def test_the_hand_off_leases_what_became_ready_in_the_same_transaction(idle: Stack) -> None:
    lab = Lab(idle, room=2)
    execution_id = await started(lab, a_fan(5), "start")

    await lab.report(execution_id, "start", DONE)

    rows = await idle.sql.fetch(
        "SELECT state, count(*), max(epoch) FROM executor.run WHERE node_id ~ 'm' GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("LEASED", 2, 1), ("READY", 3, 0)]
    assert {run.node_id for run in lab.pool.given} == {"m0", "m1"}
    assert all(run.ref.epoch == 1 and run.attempt == 1 for run in lab.pool.given)


async def test_what_is_handed_off_behind_a_quarantine_of_the_same_transaction_sees_its_error(idle: Stack) -> None:
    """As every later attempt will, so that hash and key are the same."""
    lab = Lab(idle, room=5)
    edges = {"a->b": {"condition": "outputs.nothing > 1"}, "b->d": {"kind": "ALWAYS"}}
    execution_id = await started(lab, a_graph("a -> b -> d", edges=edges), "a")

    await lab.report(execution_id, "a", DONE)

    assert await idle.states(execution_id) == {"a": "SUCCESS", "b": "QUARANTINED", "d": "LEASED"}
    (handed,) = lab.pool.given
    seen = orjson.loads(handed.inputs)["nodes"]["b"]
    assert (seen["outputs"], seen["error"]["type"]) == (None, "PERMANENT")
    assert seen["error"]["message"] == (await idle.row(execution_id, "b"))["error"]


async def test_i10_an_outcome_that_cannot_be_carried_on_is_quarantined_and_others_are_not_held_up(idle: Stack) -> None:
    """A fault that nobody foresaw: outputs that are no JSON, where a condition wants to read them."""
    lab = Lab(idle)
    graph = a_graph("a -> b", edges={"a->b": {"condition": "outputs.n > 1"}})
    stuck, fine = await started(lab, graph, "a"), await started(lab, a_graph("a -> b"), "a")
    events = [await lab.event(stuck, "a", Success(b"not json")), await lab.event(fine, "a", DONE)]
    assert [str(answer) for answer in await lab.progress.apply(events)] == ["ACCEPTED", "ACCEPTED"]
    assert await idle.states(stuck) == {"a": "QUARANTINED", "b": "PENDING"}
    assert await idle.states(fine) == {"a": "SUCCESS", "b": "READY"}
    ended = await idle.client.executions.get(stuck)
    assert (ended.state, ended.error_type) == (ExecutionState.FAILED, "PERMANENT")
    assert "correlation id" in ended.error_message
    assert "JSON" not in ended.error_message
    letters = await idle.sql.fetch("SELECT kind FROM executor.outbox WHERE execution_id = $1", UUID(stuck))
    assert [row["kind"] for row in letters] == ["QUARANTINED"]


async def test_an_end_of_the_execution_comes_before_all_else_of_its_batch(idle: Stack) -> None:
    lab = Lab(idle, room=5)
    execution_id = await started(lab, a_graph("a -> b, c -> d, e -> f"), "a", "c")
    events = [await lab.event(execution_id, "a", DONE), await lab.event(execution_id, "c", BROKEN)]
    answers = await lab.progress.apply([*events, EndExecution(UUID(execution_id), Ending.CANCEL)])
    assert [str(answer) for answer in answers] == ["ACCEPTED"] * 3
    cancelled = dict.fromkeys("bcdef", "CANCELLED")
    assert await idle.states(execution_id) == {**cancelled, "a": "SUCCESS"}
    assert (await idle.client.executions.get(execution_id)).state is ExecutionState.CANCELLED
    assert lab.pool.given == []


@pytest.mark.parametrize("policy", FailurePolicy)
async def test_fail_fast_leaves_no_run_that_could_go_and_finish_branches_does(
    idle: Stack, policy: FailurePolicy
) -> None:
    lab = Lab(idle)
    modules = {"w": ("DelayModule", {"duration": "PT1H"})}
    graph = a_graph("a -> b, c -> d, e, w", modules=modules, settings=Settings(failure_policy=policy))
    execution_id = await started(lab, graph, "a", "c")
    await lab.report(execution_id, "a", BROKEN)
    states = await idle.states(execution_id)
    fast = policy is FailurePolicy.FAIL_FAST
    assert (states["a"], states["c"], states["b"]) == ("QUARANTINED", "LEASED", "CANCELLED" if fast else "PENDING")
    assert {states["e"], states["w"]} == ({"CANCELLED"} if fast else {"READY", "WAITING"})
    await lab.report(execution_id, "c", DONE)
    row = await idle.sql.fetchrow("SELECT state, open_runs, bad_runs, ending FROM executor.workflow_execution")
    assert tuple(row) == (("FAILED", 0, 1, "FAIL_FAST") if fast else ("RUNNING", 3, 1, None))


@pytest.mark.parametrize("reports", [True, False], ids=["it reported", "it said nothing"])
async def test_i12_a_run_whose_runner_was_told_to_stop_is_not_started_again_while_that_may_be_at_it(
    idle: Stack, reports: bool
) -> None:
    lab = Lab(idle, room=5)
    execution_id = await started(lab, a_graph("a -> b"), "a")
    key = (UUID(execution_id), run_id(UUID(execution_id), 0))
    promised = (await idle.row(execution_id, "a"))["lease_until"]
    await idle.sql.execute("UPDATE executor.run SET deadline = now() - interval '1 min' WHERE node_id = 'a'")
    await lab.progress.apply([RunDeadline(*key)])
    assert (await idle.row(execution_id, "a"))["lease_until"] < promised
    await lab.report(execution_id, "a", BROKEN if reports else Lost())

    request = Request("tester", "", None, b"")
    [answer] = await lab.progress.apply([Resolve(*key, 1, Resolution.REQUEUED, request)])

    row = await idle.row(execution_id, "a")
    assert str(answer) == "ACCEPTED"
    # Not handed off: what its attempts have told of their progress is read where it is leased.
    assert row["state"] == "READY"
    assert row["retry_after"] == (None if reports else promised)
    assert lab.pool.given == []


async def test_i10_messages_with_characters_that_postgresql_refuses_are_stored_escaped(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await started(lab, a_graph("a"), "a")
    failure = Failure(FailureType.PERMANENT, "nul \0, half a pair \ud83d", stack_trace="at \0")
    assert await lab.report(execution_id, "a", failure) == "ACCEPTED"
    assert await idle.states(execution_id) == {"a": "QUARANTINED"}
    assert (await idle.row(execution_id, "a"))["error"] == "nul \\0, half a pair \\ud83d"
