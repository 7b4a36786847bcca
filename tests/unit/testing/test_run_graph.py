"""A whole graph in memory: decided as an executor decides it, with time that skips."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from services.executor.settings import LeaseSettings, RetrySettings
from services.local.home import PROJECT
from tests.builders import a_graph
from valkyr.errors import InvalidGraph, TooManyRequeues
from valkyr.graph.model import Graph, Retry
from valkyr.module import Context, ModuleSpec, PermanentError, RetryLater, spec_of
from valkyr.testing import LOST, Discard, ExecutionState, Fix, Requeue, Returns, RunState, Takes, run_graph
from valkyr.testing.play import LEASE_RUNS_OUT, MAX_REQUEUES
from valkyr.testing.whole_graph import EXECUTOR_RETRY

S, R = ExecutionState, RunState
BROKEN = PermanentError("it broke")


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def a_document(config: Mapping[str, Any] | None = None, **node: Any) -> dict[str, Any]:
    """first -> second, both of class Work."""
    return {
        "nodes": [{"nodeId": "first", **node}, {"nodeId": "second"}],
        "edges": [{"edgeId": "e", "source": "first", "target": "second"}],
        "modules": [
            {"nodeId": "first", "className": "Work", "config": config or {}},
            {"nodeId": "second", "className": "Work", "config": {"got": '${nodes["first"].outputs}'}},
        ],
    }


def test_files_are_run_as_they_are() -> None:
    ran = run_graph(PROJECT / "examples" / "hello.yaml", payload={"name": "Ada"})
    assert (ran.state, ran.outputs["greet"], ran.took) == (S.SUCCESS, "Hello, Ada!", seconds(1))


def test_modules_see_inputs_config_and_what_the_attempt_before_said() -> None:
    seen: list[Any] = []

    async def work(context: Context, /) -> Any:
        seen.append((context.node_id, context.attempt, context.progress, context.trigger))
        context.heartbeat(f"{context.node_id} {context.attempt}")
        if context.attempt < 2:
            raise RuntimeError("once more")
        context.cost_tokens = 4
        return context.outputs_of("first") if context.node_id == "second" else {"n": 1}

    ran = run_graph(a_document(), modules=[spec_of("Work", work)], payload="p")
    assert ran.outputs == {"first": {"n": 1}, "second": {"n": 1}}
    assert seen == [
        ("first", 1, None, "p"),
        ("first", 2, "first 1", "p"),
        ("second", 1, None, "p"),
        ("second", 2, "second 1", "p"),
    ]
    assert (ran.nodes["first"].progress, ran.nodes["first"].cost_tokens) == ("first 2", 4)


def test_the_idempotency_key_is_the_same_in_every_attempt() -> None:
    keys: list[str] = []

    def work(context: Context) -> None:
        keys.append(context.idempotency_key)
        raise RuntimeError("always")

    run_graph(a_document(), modules=[spec_of("Work", work)])
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_back_off_is_waited_but_costs_no_time() -> None:
    ran = run_graph(
        a_document(),
        outcomes={"first": [OSError("x"), RetryLater(after=seconds(90)), Returns(1)], "second": Returns(2)},
    )
    assert (ran.state, ran.took) == (S.SUCCESS, seconds(91))
    assert [moment.at for moment in ran.timeline if (moment.node_id, moment.state) == ("first", R.LEASED)] == [
        seconds(0),
        seconds(1),
        seconds(91),
    ]


def test_a_lost_runner_costs_its_lease_and_no_attempt_of_the_budget() -> None:
    ran = run_graph(a_document(), outcomes={"first": [LOST, LOST, LOST, Returns(1)], "second": Returns(2)})
    assert (ran.state, ran.nodes["first"].attempts) == (S.SUCCESS, 4)
    assert ran.took == seconds(3 * 120 + 1 + 2 + 4)


def test_retries_of_node_and_test_are_counted_as_the_executor_counts_them() -> None:
    always = {"first": OSError("x")}
    assert run_graph(a_document(), outcomes=always | {"second": BROKEN}).nodes["first"].attempts == 3
    assert _attempts(a_document(), Retry(max_attempts=7)) == 7
    assert _attempts(a_document(retry={"maxAttempts": 2}), Retry(max_attempts=7)) == 2


def _attempts(document: Any, retry: Retry) -> int:
    return run_graph(document, outcomes={"first": OSError("x"), "second": BROKEN}, retry=retry).nodes["first"].attempts


def test_what_an_executor_does_by_default_is_what_a_test_does() -> None:
    said = RetrySettings()
    assert (said.max_attempts, said.max_lost_leases) == (EXECUTOR_RETRY.max_attempts, EXECUTOR_RETRY.max_lost_leases)
    assert timedelta(milliseconds=said.backoff_base_ms) == EXECUTOR_RETRY.backoff_base
    assert timedelta(milliseconds=said.backoff_max_ms) == EXECUTOR_RETRY.backoff_max
    assert (said.max_requeues, LeaseSettings().duration) == (MAX_REQUEUES, LEASE_RUNS_OUT)


def test_a_failure_for_good_waits_for_people() -> None:
    ran = run_graph(a_document(), outcomes={"first": BROKEN, "second": Returns(2)})
    assert (ran.state, ran.nodes["first"].state, ran.nodes["second"].state) == (S.FAILED, R.QUARANTINED, R.PENDING)
    assert (ran.nodes["first"].failure_type, ran.nodes["first"].error) == ("PERMANENT", "it broke")


@pytest.mark.parametrize(
    ("ways", "state", "outputs"),
    [
        ([Requeue()], S.SUCCESS, {"first": 1, "second": 2}),
        ([Fix({"by": "hand"})], S.SUCCESS, {"first": {"by": "hand"}, "second": 2}),
        ([Discard()], S.FAILED, {}),
    ],
    ids=["requeue", "fix", "discard"],
)
def test_quarantines_are_resolved_as_people_would(ways: Any, state: ExecutionState, outputs: Any) -> None:
    ran = run_graph(
        a_document(), outcomes={"first": [BROKEN, Returns(1)], "second": Returns(2)}, resolutions={"first": ways}
    )
    assert (ran.state, ran.outputs) == (state, outputs)


def test_a_requeue_may_bring_inputs_of_its_own() -> None:
    def work(context: Context) -> Any:
        if context.trigger == "bad":
            raise PermanentError("cannot read that")
        return context.trigger

    ran = run_graph(
        a_document(),
        modules=[spec_of("Work", work)],
        payload="bad",
        resolutions={"first": Requeue({"trigger": "good", "nodes": {}}), "second": Fix(0)},
    )
    assert ran.outputs["first"] == "good"


def test_requeues_without_end_are_refused_as_the_executor_refuses_them() -> None:
    with pytest.raises(TooManyRequeues):
        run_graph(a_document(), outcomes={"first": BROKEN, "second": BROKEN}, resolutions={"first": Requeue()})


@pytest.mark.parametrize(
    ("how", "state"), [({"cancel_at": seconds(5)}, S.CANCELLED), ({"deadline": seconds(5)}, S.FAILED)], ids=str
)
def test_an_execution_can_be_ended_while_it_works(how: Any, state: ExecutionState) -> None:
    ran = run_graph(a_document(), outcomes={"first": Takes(seconds(60), Returns(1)), "second": Returns(2)}, **how)
    assert (ran.state, ran.took) == (state, seconds(5))
    assert {run.state for run in ran.nodes.values()} == {R.CANCELLED}


def test_what_ends_at_the_deadline_was_in_time() -> None:
    outcomes = {"first": Takes(seconds(5), Returns(1)), "second": Returns(2)}
    assert run_graph(a_document(), outcomes=outcomes, deadline=seconds(5)).state is S.SUCCESS


def test_budgets_begin_anew_with_a_requeue() -> None:
    often = [OSError("x")] * 5
    ran = run_graph(
        a_document(), outcomes={"first": [*often, Returns(1)], "second": Returns(2)}, resolutions={"first": [Requeue()]}
    )
    assert (ran.state, ran.nodes["first"].attempts) == (S.SUCCESS, 6)


def test_what_was_said_of_other_inputs_is_forgotten_with_them() -> None:
    seen: list[Any] = []

    def work(context: Context) -> None:
        seen.append(context.progress)
        context.heartbeat(context.attempt)
        raise PermanentError("no")

    run_graph(
        a_document(),
        modules=[spec_of("Work", work)],
        resolutions={"first": [Requeue(), Requeue({"trigger": 1, "nodes": {}})]},
    )
    assert seen == [None, 1, None]


@pytest.mark.parametrize(
    ("node", "attempts", "took"),
    [({"timeout": "PT10S"}, 3, 10 + 1 + 10 + 2 + 10), ({"deadline": "PT15S"}, 1, 15)],
    ids=["timeout of each attempt", "deadline of them all"],
)
def test_a_node_that_takes_too_long_fails(node: Any, attempts: int, took: float) -> None:
    ran = run_graph(a_document(**node), outcomes={"first": Takes(seconds(60), Returns(1)), "second": Returns(2)})
    first = ran.nodes["first"]
    assert (first.state, first.failure_type, first.attempts) == (R.QUARANTINED, "TIMEOUT", attempts)
    assert ran.took == seconds(took)


@pytest.mark.parametrize(("concurrency", "took"), [(1, 30), (2, 20), (3, 10)])
def test_attempts_take_their_turn_where_there_are_not_enough_slots(concurrency: int, took: float) -> None:
    graph = a_graph("a, b, c")
    ran = run_graph(graph, outcomes=dict.fromkeys("abc", Takes(seconds(10), Returns(0))), concurrency=concurrency)
    assert ran.took == seconds(took)


def test_a_config_that_cannot_be_resolved_fails_its_run() -> None:
    ran = run_graph(
        a_document(config={"x": "${trigger.missing}"}), outcomes={"first": Returns(1), "second": Returns(2)}
    )
    assert ran.nodes["first"].state is R.QUARANTINED
    assert "could not be resolved" in ran.nodes["first"].error


def test_a_graph_that_could_not_be_saved_is_not_run() -> None:
    there_and_back = a_document()
    there_and_back["edges"].append({"edgeId": "back", "source": "second", "target": "first"})
    with pytest.raises(InvalidGraph, match="first") as refused:
        run_graph(there_and_back, modules=[])
    assert refused.value.findings
    with pytest.raises(LookupError, match="thrid"):
        run_graph(a_document(), outcomes={"thrid": Returns(1)}, unknown_as_noop=True)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"outcomes": {"first": ValueError}}, r"outcomes\['first'\]: <class 'ValueError'> is no end of an attempt"),
        ({"outcomes": {"first": [LOST, {"x": 1}]}}, r"outcomes\['first'\]: {'x': 1} is no end"),
        ({"outcomes": {"first": Takes(timedelta(1), 5)}}, r"outcomes\['first'\]: Takes"),  # type: ignore[arg-type]
        ({"resolutions": {"first": "requeue"}}, r"resolutions\['first'\]: 'requeue' is none of"),
    ],
    ids=["a class", "in a list", "in Takes", "a resolution"],
)
def test_what_is_no_script_is_refused_and_no_module_runs_in_its_place(said: dict[str, Any], what: str) -> None:
    with pytest.raises(TypeError, match=what):
        run_graph(a_document(), unknown_as_noop=True, **said)


@pytest.mark.parametrize("said", [{"concurrency": 0}, {"jitter": 1.5}], ids=str)
def test_numbers_that_cannot_be_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="concurrency is 1 or more, jitter from 0 to 1"):
        run_graph(a_document(), unknown_as_noop=True, **said)


def test_a_class_that_nobody_has_fails_its_run() -> None:
    ran = run_graph(a_document(), modules=[])
    assert ran.nodes["first"].error.startswith("this runner has no module called 'Work'")


def test_unknown_classes_do_nothing_where_that_is_wanted() -> None:
    assert run_graph(a_document(), modules=[], unknown_as_noop=True).outputs == {"first": {}, "second": {}}


def test_a_graph_without_nodes_has_ended() -> None:
    assert run_graph({}).state is S.SUCCESS


def two_equal_nodes() -> Graph:
    """Both see what `start` has come to and no more, the second an hour later."""
    return a_graph(
        "start -> first, start -> second -> after, slow -> second",
        modules={"first": "Work", "second": "Work", "slow": ("DelayModule", {"duration": "PT1H"})},
        edges={"slow->second": {"kind": "FAILURE"}},
    )


def deduping(calls: list[str], **said: Any) -> ModuleSpec:
    async def work(context: Context) -> Any:
        calls.append(context.node_id)
        return {"by": context.node_id}

    return spec_of("Work", work, **said)


@pytest.mark.parametrize(
    ("said", "run"),
    [
        ({}, ["first", "second"]),
        ({"dedupe": "workflow"}, ["first"]),
        ({"dedupe": "global", "dedupe_ttl": timedelta(minutes=61)}, ["first"]),
        ({"dedupe": "global", "dedupe_ttl": timedelta(minutes=60)}, ["first", "second"]),
    ],
    ids=["a module that says nothing", "a day", "a little longer than it takes", "not that long"],
)
def test_the_success_of_an_equal_node_is_reused_as_the_module_says(said: dict[str, Any], run: list[str]) -> None:
    calls: list[str] = []
    ran = run_graph(two_equal_nodes(), modules=[deduping(calls, **said)])
    assert (calls, ran.state) == (run, S.SUCCESS)
    second, is_reused = ran.nodes["second"], len(run) == 1
    assert (second.reused_from, second.attempts) == (("first", 0) if is_reused else ("", 1))
    assert second.outputs == {"by": run[-1]}
    assert ran.nodes["after"].state is R.SUCCESS


def test_equal_nodes_that_are_ready_at_once_both_run() -> None:
    calls: list[str] = []
    run_graph(a_graph("a, b", modules={"a": "Work", "b": "Work"}), modules=[deduping(calls, dedupe="workflow")])
    assert calls == ["a", "b"]


def test_what_failed_is_not_reused_and_what_was_fixed_is() -> None:
    calls: list[str] = []
    again = Requeue(inputs={"trigger": 1, "nodes": {}})
    ran = run_graph(
        two_equal_nodes(),
        modules=[deduping(calls, dedupe="workflow")],
        outcomes={"first": BROKEN, "second": BROKEN},
        resolutions={"first": [again, Fix("by hand")], "second": again},
    )
    assert [ran.nodes[node].attempts for node in ("first", "second")] == [2, 1]
    assert (ran.nodes["second"].reused_from, ran.nodes["second"].outputs) == ("first", "by hand")


def test_a_requeue_with_a_new_key_is_run() -> None:
    calls: list[str] = []
    ran = run_graph(
        two_equal_nodes(),
        modules=[deduping(calls, dedupe="workflow")],
        outcomes={"first": [BROKEN]},
        resolutions={"first": Requeue(new_key=True)},
    )
    assert (calls, ran.nodes["first"].reused_from) == (["second", "first"], "")


def test_nothing_is_known_of_another_call() -> None:
    calls: list[str] = []
    for _ in range(2):
        run_graph(a_graph("a", modules={"a": "Work"}), modules=[deduping(calls, dedupe="global")])
    assert calls == ["a", "a"]
