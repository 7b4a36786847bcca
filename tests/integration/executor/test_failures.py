"""What goes wrong is tried again within its budgets, handled by an edge, or quarantined; over the whole executor."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from tests.builders import a_graph
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState, RunState
from valkyr.graph.model import FailurePolicy, Graph, Retry, Settings

QUICK = {"retry": {"backoff_base_ms": 10, "backoff_max_ms": 40}}


def failing(arrows: str = "a", *, node: str = "a", **config: object) -> Graph:
    return a_graph(arrows, modules={node: ("FailModule", config)})


async def test_i10_a_failure_that_passes_is_tried_again_and_succeeds(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(failing("a -> b", times=2))
        assert execution.state is ExecutionState.SUCCESS
        run = (await stack.runs(execution.id))["a"]
        assert run.state is RunState.SUCCESS
        assert [attempt.outcome for attempt in run.attempts] == ["TRANSIENT", "TRANSIENT", "SUCCESS"]
        assert run.failures == 2
        assert run.error == ""
        assert run.outputs == {"attempt": 3}


async def test_i10_the_budget_of_business_failures_ends_in_one_quarantine(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(failing("a -> b", message="never mind"))
        assert execution.state is ExecutionState.FAILED
        assert execution.error_type == "TRANSIENT"
        assert "never mind" in execution.error_message
        run = (await stack.runs(execution.id))["a"]
        assert run.state is RunState.QUARANTINED
        assert len(run.attempts) == 3
        assert (run.quarantine_number, [q.failure_type for q in run.quarantines]) == (1, ["MAX_RETRIES"])
        assert await stack.states(execution.id) == {"a": "QUARANTINED", "b": "PENDING"}


@pytest.mark.parametrize(
    ("config", "attempts", "letter"),
    [
        pytest.param({"type": "PERMANENT"}, 1, "PERMANENT_ERROR", id="permanent"),
        pytest.param({"type": "TIMEOUT"}, 3, "TIMEOUT", id="timeout"),
        pytest.param({"type": "RATE_LIMITED", "retry_after": "PT0.02S"}, 3, "MAX_RETRIES", id="rate limited"),
    ],
)
async def test_i10_how_it_failed_decides_how_often_it_is_tried_and_what_the_letter_says(
    make_stack: OpenStack, config: dict[str, object], attempts: int, letter: str
) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(failing(**config))
        run = (await stack.runs(execution.id))["a"]
        assert len(run.attempts) == attempts
        assert [quarantine.failure_type for quarantine in run.quarantines] == [letter]


@pytest.mark.parametrize(
    ("node", "settings", "attempts"),
    [
        pytest.param({}, Settings(), 3, id="the executor's"),
        pytest.param({}, Settings(default_retry=Retry(max_attempts=2)), 2, id="the graph's"),
        pytest.param(
            {"retry": Retry(max_attempts=4)}, Settings(default_retry=Retry(max_attempts=2)), 4, id="the node's"
        ),
    ],
)
async def test_the_nearest_budget_counts(
    make_stack: OpenStack, node: dict[str, object], settings: Settings, attempts: int
) -> None:
    graph = a_graph("a", modules={"a": ("FailModule", {})}, nodes={"a": node}, settings=settings)
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        assert len((await stack.runs(execution.id))["a"].attempts) == attempts


async def test_i14_a_retry_waits_for_its_back_off_by_the_database_s_clock(make_stack: OpenStack) -> None:
    async with make_stack(runner={"retry": {"backoff_base_ms": 3_600_000, "backoff_max_ms": 86_400_000}}) as stack:
        execution_id = await stack.start(failing(times=1))
        await stack.until(
            "SELECT failures = 1 AND state = 'READY' FROM executor.run WHERE execution_id = $1", UUID(execution_id)
        )
        wait = await stack.sql.fetchval(
            """SELECT extract(epoch FROM r.retry_after - a.finished_at)::float8
               FROM executor.run r JOIN executor.run_attempt a ON a.run_id = r.id WHERE r.execution_id = $1""",
            UUID(execution_id),
        )
        assert 0 < wait <= 3_600
        assert (await stack.row(execution_id, "a"))["error"] == "DrillFailure: this is a drill"


async def test_i14_the_target_s_own_wish_counts_if_it_is_longer(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution_id = await stack.start(failing(type="RATE_LIMITED", retry_after="PT5M", times=1))
        await stack.until(
            "SELECT failures = 1 AND state = 'READY' FROM executor.run WHERE execution_id = $1", UUID(execution_id)
        )
        left = await stack.sql.fetchval(
            "SELECT extract(epoch FROM retry_after - now())::float8 FROM executor.run WHERE execution_id = $1",
            UUID(execution_id),
        )
        assert 200 < left <= 300


async def test_a_failure_edge_handles_it_without_a_letter(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b, a -> c",
        modules={"a": ("FailModule", {"type": "PERMANENT"})},
        edges={"a->c": {"kind": "FAILURE", "condition": "error.type == 'PERMANENT'"}},
    )
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.SUCCESS
        assert await stack.states(execution.id) == {"a": "FAILED", "b": "SKIPPED", "c": "SUCCESS"}
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run_quarantine") == 0


async def test_an_always_edge_runs_what_stands_behind_it_and_handles_nothing(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b, a -> c", modules={"a": ("FailModule", {"type": "PERMANENT"})}, edges={"a->c": {"kind": "ALWAYS"}}
    )
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.FAILED
        assert await stack.states(execution.id) == {"a": "QUARANTINED", "b": "PENDING", "c": "SUCCESS"}
        assert (await stack.runs(execution.id))["c"].state is RunState.SUCCESS


async def test_independent_branches_finish_before_the_execution_has_failed(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b, c -> d -> e", modules={"a": ("FailModule", {"type": "PERMANENT"})})
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.FAILED
        states = await stack.states(execution.id)
        assert states == {"a": "QUARANTINED", "b": "PENDING", "c": "SUCCESS", "d": "SUCCESS", "e": "SUCCESS"}


async def test_fail_fast_ends_the_execution_at_its_first_quarantine(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b, a -> c, d -> e",
        modules={"a": ("FailModule", {"type": "PERMANENT"}), "d": ("DelayModule", {"duration": "PT1H"})},
        edges={"a->c": {"kind": "ALWAYS"}},
        settings=Settings(failure_policy=FailurePolicy.FAIL_FAST),
    )
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.FAILED
        assert execution.error_type == "PERMANENT"
        states = await stack.states(execution.id)
        assert states == {**dict.fromkeys("bcde", "CANCELLED"), "a": "QUARANTINED"}
        row = await stack.sql.fetchrow("SELECT * FROM executor.workflow_execution WHERE id = $1", UUID(execution.id))
        assert (row["open_runs"], row["bad_runs"], row["ending"]) == (0, 1, "FAIL_FAST")


async def test_i14_a_lost_runner_and_a_failure_are_counted_apart(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution_id = await stack.start(failing(times=1))
        execution = await stack.wait(execution_id)
        assert execution.state is ExecutionState.SUCCESS
        row = await stack.row(execution_id, "a")
        assert (row["failures"], row["lost_leases"]) == (1, 0)


async def test_a_retry_keeps_inputs_hashes_and_key(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", modules={"b": ("FailModule", {"times": 2})})
    async with make_stack(runner={"retry": {"backoff_base_ms": 300, "backoff_max_ms": 300}}) as stack:
        execution_id = await stack.start(graph, payload={"n": 1})
        keys = set()
        for failures in (0, 1, 2):
            await stack.until(
                "SELECT failures >= $2 AND idempotency_key IS NOT NULL FROM executor.run "
                "WHERE execution_id = $1 AND node_id = 'b'",
                UUID(execution_id),
                failures,
            )
            row = await stack.row(execution_id, "b")
            keys.add((row["idempotency_key"], row["inputs_hash"], row["config_hash"]))
        assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS
        row = await stack.row(execution_id, "b")
        keys.add((row["idempotency_key"], row["inputs_hash"], row["config_hash"]))
        assert len(keys) == 1


async def test_a_timeout_of_an_attempt_is_tried_again(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a",
        modules={"a": "HeldModule"},
        nodes={"a": {"timeout": timedelta(milliseconds=100), "retry": Retry(max_attempts=2)}},
    )
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        run = (await stack.runs(execution.id))["a"]
        assert [attempt.outcome for attempt in run.attempts] == ["TIMEOUT", "TIMEOUT"]
        assert run.quarantines[0].failure_type == "TIMEOUT"
