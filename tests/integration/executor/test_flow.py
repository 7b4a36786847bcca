"""Graphs carried through on real rows: edges, joins, skips, failures, control nodes, long and wide ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from services.executor.timers import Timers
from tests.builders import a_chain, a_fan, a_graph
from tests.executor_modules import GATES
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from valkyr.client import Execution, ExecutionState, RunState
from valkyr.graph.model import Graph, Join

BROKEN = ("BrokenModule", {"message": "out of paper"})


async def states_after(stack: Stack, graph: Graph, **options: object) -> tuple[Execution, dict[str, str]]:
    execution = await stack.run(graph, **options)
    return execution, await stack.states(execution.id)


async def test_a_graph_without_nodes_succeeds_at_once(stack: Stack) -> None:
    execution = await stack.client.executions.start(await stack.save(a_graph("")))

    assert execution.state is ExecutionState.SUCCESS
    assert execution.finished_at is not None
    assert (await stack.client.executions.get(execution.id)).run_counts == {}


async def test_a_diamond_runs_every_node_once_after_its_predecessors(stack: Stack) -> None:
    graph = a_graph("a -> b -> d, a -> c -> d", modules=dict.fromkeys("abcd", "BriefModule"))

    execution = await stack.run(graph)

    assert execution.state is ExecutionState.SUCCESS
    assert execution.outputs == {"d": {"node": "d"}}
    assert execution.run_counts == {"SUCCESS": 4}
    assert GATES.started == Counter("abcd")
    assert GATES.order[0] == "a"
    assert GATES.order[-1] == "d"


async def test_parallel_edges_between_the_same_nodes_count_each(stack: Stack) -> None:
    execution, states = await states_after(stack, a_graph("a -> b, a -> b, a -> b"))
    assert execution.state is ExecutionState.SUCCESS
    assert states == {"a": "SUCCESS", "b": "SUCCESS"}


async def test_nodes_without_edges_run_beside_the_others(stack: Stack) -> None:
    _, states = await states_after(stack, a_graph("a -> b, lonely, too"))
    assert set(states.values()) == {"SUCCESS"}


async def test_conditions_choose_the_way_and_the_rest_is_skipped(stack: Stack) -> None:
    graph = a_graph(
        "a -> yes -> after_yes, a -> no -> after_no, after_yes -> end, after_no -> end",
        modules={"a": ("TransformModule", {"output": {"n": "${trigger.n}"}})},
        edges={"a->yes": {"condition": "outputs.n > 5"}, "a->no": {"condition": "!(outputs.n > 5)"}},
    )

    execution, states = await states_after(stack, graph, payload={"n": 7})

    assert execution.state is ExecutionState.SUCCESS
    assert states == {
        "a": "SUCCESS",
        "yes": "SUCCESS",
        "after_yes": "SUCCESS",
        "no": "SKIPPED",
        "after_no": "SKIPPED",
        "end": "SUCCESS",
    }


async def test_a_join_all_is_skipped_when_no_edge_is_taken(stack: Stack) -> None:
    graph = a_graph("a -> c, b -> c -> d", edges={"a->c": {"condition": "false"}, "b->c": {"condition": "false"}})
    execution, states = await states_after(stack, graph)
    assert execution.state is ExecutionState.SUCCESS
    assert states == {"a": "SUCCESS", "b": "SUCCESS", "c": "SKIPPED", "d": "SKIPPED"}
    assert execution.outputs == {}


async def test_a_join_any_runs_at_the_first_taken_edge_and_only_once(stack: Stack) -> None:
    graph = a_graph(
        "quick -> any -> end, slow -> any",
        modules={"slow": "HeldModule", "any": "BriefModule"},
        nodes={"any": {"join": Join.ANY}},
    )
    execution_id = await stack.start(graph)
    await stack.until(
        "SELECT state = 'SUCCESS' FROM executor.run WHERE node_id = 'end'", what="the join opens without the slow one"
    )
    assert (await stack.states(execution_id))["slow"] == "LEASED"

    GATES.open.set()
    execution = await stack.wait(execution_id)

    assert execution.state is ExecutionState.SUCCESS
    assert GATES.started["any"] == 1
    row = await stack.row(execution_id, "any")
    assert (row["taken"], row["attempt"]) == (1, 1)


async def test_a_join_any_is_skipped_when_every_edge_was_decided_against_it(stack: Stack) -> None:
    graph = a_graph(
        "a -> any, b -> any",
        nodes={"any": {"join": Join.ANY}},
        edges={"a->any": {"condition": "false"}, "b->any": {"condition": "false"}},
    )
    _, states = await states_after(stack, graph)
    assert states["any"] == "SKIPPED"


async def test_a_failure_edge_handles_a_failure_and_sees_the_error(stack: Stack) -> None:
    graph = a_graph(
        "a -> ok, a -> rescue -> end",
        modules={
            "a": BROKEN,
            "rescue": ("TransformModule", {"output": {"why": '${nodes["a"].error.message}'}}),
        },
        edges={"a->rescue": {"kind": "FAILURE", "condition": 'error.type == "PERMANENT"'}},
    )

    execution = await stack.run(graph)
    runs = await stack.runs(execution.id)

    assert execution.state is ExecutionState.SUCCESS
    assert {node: run.state.value for node, run in runs.items()} == {
        "a": "FAILED",
        "ok": "SKIPPED",
        "rescue": "SUCCESS",
        "end": "SUCCESS",
    }
    assert runs["rescue"].outputs == {"why": "out of paper"}
    assert await stack.sql.fetchval("SELECT count(*) FROM executor.outbox") == 0


async def test_a_failure_that_no_edge_handles_is_quarantined_and_always_edges_go_on(stack: Stack) -> None:
    graph = a_graph(
        "a -> next -> later, a -> cleanup, a -> rescue",
        modules={"a": BROKEN},
        edges={
            "a->cleanup": {"kind": "ALWAYS"},
            "a->rescue": {"kind": "FAILURE", "condition": 'error.type == "TIMEOUT"'},
        },
    )

    execution, states = await states_after(stack, graph)

    assert execution.state is ExecutionState.FAILED
    assert execution.error_type == "PERMANENT"
    assert execution.error_message == "node 'a': out of paper"
    assert states == {
        "a": "QUARANTINED",
        "next": "PENDING",
        "later": "PENDING",
        "cleanup": "SUCCESS",
        "rescue": "PENDING",
    }


async def test_independent_branches_finish_before_the_execution_fails(stack: Stack) -> None:
    graph = a_graph(
        "bad -> after_bad, slow -> after_slow",
        modules={"bad": BROKEN, "slow": "HeldModule", "after_slow": "BriefModule"},
    )
    execution_id = await stack.start(graph)
    await stack.until("SELECT state = 'QUARANTINED' FROM executor.run WHERE node_id = 'bad'")
    assert not (await stack.client.executions.get(execution_id)).settled

    GATES.open.set()
    execution = await stack.wait(execution_id)

    assert execution.state is ExecutionState.FAILED
    assert (await stack.states(execution_id))["after_slow"] == "SUCCESS"


async def test_a_condition_that_cannot_be_evaluated_quarantines_its_target(stack: Stack) -> None:
    graph = a_graph("a -> b -> c", edges={"a->b": {"edge_id": "to-b", "condition": "outputs.missing > 1"}})

    execution, states = await states_after(stack, graph)

    assert execution.state is ExecutionState.FAILED
    assert states == {"a": "SUCCESS", "b": "QUARANTINED", "c": "PENDING"}
    assert "edge 'to-b'" in execution.error_message
    assert "missing" in execution.error_message
    assert await stack.sql.fetchval("SELECT count(*) FROM executor.outbox") == 1


async def test_a_failure_condition_that_cannot_be_evaluated_counts_as_held(stack: Stack) -> None:
    graph = a_graph(
        "a -> b", modules={"a": BROKEN}, edges={"a->b": {"kind": "FAILURE", "condition": "error.nonsense > 1"}}
    )
    execution, states = await states_after(stack, graph)
    assert execution.state is ExecutionState.SUCCESS
    assert states == {"a": "FAILED", "b": "SUCCESS"}


async def test_inputs_and_configs_hold_what_came_before(stack: Stack) -> None:
    graph = a_graph(
        "a -> c, b -> c, a -> d -> c",
        modules={
            "a": ("TransformModule", {"output": {"list": [1, "two", None], "n": 2.5}}),
            "b": ("TransformModule", {"output": "${trigger}"}),
            "c": ("InputsModule", {"message": 'of ${execution.id}: ${nodes["a"].outputs.n} ${nodes["b"].outputs.who}'}),
        },
        edges={"d->c": {"condition": "false"}},
    )

    execution = await stack.run(graph, payload={"who": "Zoë"})
    outputs = execution.outputs["c"]

    assert outputs["message"] == f"of {execution.id}: 2.5 Zoë"
    assert outputs["inputs"] == {
        "trigger": {"who": "Zoë"},
        "nodes": {
            "a": {"outputs": {"list": [1, "two", None], "n": 2.5}},
            "b": {"outputs": {"who": "Zoë"}},
        },
    }
    row = await stack.row(execution.id, "c")
    assert outputs["key"] == row["idempotency_key"]
    assert all(len(row[name]) == 64 for name in ("idempotency_key", "inputs_hash", "config_hash"))


async def test_an_expression_keeps_the_type_of_its_value(stack: Stack) -> None:
    graph = a_graph(
        "a", modules={"a": ("TransformModule", {"output": {"whole": "${trigger.n}", "text": "n=${trigger.n}"}})}
    )
    execution = await stack.run(graph, payload={"n": 3})
    assert execution.outputs["a"] == {"whole": 3, "text": "n=3"}


@pytest.mark.parametrize("place", ["root", "later"])
async def test_a_config_that_cannot_be_resolved_is_quarantined_naming_node_and_expression(
    stack: Stack, place: str
) -> None:
    arrows = "bad" if place == "root" else "first -> bad"
    graph = a_graph(arrows, modules={"bad": ("TransformModule", {"output": "${trigger.order.id}"})})

    execution = await stack.run(graph, payload={"other": 1})
    run = (await stack.runs(execution.id))["bad"]

    assert execution.state is ExecutionState.FAILED
    assert execution.error_type == "PERMANENT"
    assert "node 'bad'" in execution.error_message
    assert "trigger.order.id" in execution.error_message
    assert run.state is RunState.QUARANTINED
    assert run.quarantine_number == 1
    assert [attempt.outcome for attempt in run.attempts] == ["PERMANENT"]


async def test_a_config_that_cannot_be_resolved_fails_also_when_leased_by_the_dispatcher(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 1}) as stack:
        graph = a_graph(
            "held, bad", modules={"held": "HeldModule", "bad": ("TransformModule", {"output": "${trigger.x}"})}
        )
        await stack.at_rest()
        execution_id = await stack.start(graph)
        assert (await stack.states(execution_id))["bad"] == "READY"

        GATES.open.set()
        execution = await stack.wait(execution_id)

        assert execution.state is ExecutionState.FAILED
        assert "node 'bad'" in execution.error_message


async def test_outputs_over_the_limit_are_quarantined_saying_so(stack: Stack) -> None:
    graph = a_graph("a -> b", modules={"a": ("SizeModule", {"size": 2 * 1024 * 1024})})
    execution, states = await states_after(stack, graph)
    assert execution.state is ExecutionState.FAILED
    assert "1048576" in execution.error_message
    assert states == {"a": "QUARANTINED", "b": "PENDING"}


async def test_inputs_over_the_limit_are_quarantined_naming_the_largest(stack: Stack) -> None:
    arrows = ", ".join(f"part{index} -> all" for index in range(5))
    modules = {f"part{index}": ("SizeModule", {"size": 1_000_000 + index}) for index in range(5)}
    execution = await stack.run(a_graph(arrows, modules=modules))
    assert execution.state is ExecutionState.FAILED
    assert "INPUTS_TOO_LARGE" in execution.error_message
    assert "'part4'" in execution.error_message


@pytest.mark.parametrize("tokens", [1.25, 0, 123_456_789_012.5, True], ids=str)
async def test_whatever_a_run_cost_it_is_stored_and_never_stops_the_pool(stack: Stack, tokens: object) -> None:
    execution = await stack.run(a_graph("a", modules={"a": ("CostModule", {"tokens": tokens})}))
    assert execution.state is ExecutionState.SUCCESS
    assert (await stack.runs(execution.id))["a"].cost_tokens == pytest.approx(float(tokens))  # type: ignore[arg-type]
    assert (await stack.run(a_graph("a"))).state is ExecutionState.SUCCESS


async def test_a_class_that_nobody_knows_leaves_its_runs_ready_and_blocks_no_other(stack: Stack) -> None:
    stuck = await stack.start(a_graph("a", modules={"a": "NobodyKnowsModule"}), priority=100)
    settled = await stack.run(a_graph("a -> b"))
    assert settled.state is ExecutionState.SUCCESS
    assert await stack.states(stuck) == {"a": "READY"}
    assert not (await stack.client.executions.get(stuck)).settled


async def test_unknown_classes_run_as_noop_where_that_is_set(make_stack: OpenStack) -> None:
    async with make_stack(runner={"unknown_as_noop": True}) as stack:
        execution = await stack.run(a_graph("a -> b", modules={"a": "NobodyKnowsModule", "b": "NorThisOne"}))
        assert execution.state is ExecutionState.SUCCESS
        assert execution.outputs == {"b": {}}


async def test_nodes_without_a_module_are_passed_through_without_a_lease(stack: Stack) -> None:
    graph = a_graph("a -> b -> c -> d", modules={"a": None, "b": None, "d": None})
    execution = await stack.run(graph)
    runs = await stack.runs(execution.id)
    assert execution.state is ExecutionState.SUCCESS
    assert execution.outputs == {"d": {}}
    assert {node: run.attempt for node, run in runs.items()} == {"a": 0, "b": 0, "c": 1, "d": 0}


async def test_more_control_nodes_than_fit_one_transaction_are_all_decided(stack: Stack) -> None:
    graph = a_fan(2_500)
    modules = {node.node_id: None for node in graph.nodes}
    execution = await stack.run(a_graph("\n".join(f"start -> m{i} -> end" for i in range(2_500)), modules=modules))
    assert execution.state is ExecutionState.SUCCESS
    assert execution.run_counts == {"SUCCESS": 2_502}


async def test_a_chain_of_control_nodes_longer_than_a_transaction_takes_is_decided(stack: Stack) -> None:
    graph = a_graph(" -> ".join(f"n{i}" for i in range(1_500)), modules={f"n{i}": None for i in range(1_500)})
    execution = await stack.run(graph)
    assert execution.run_counts == {"SUCCESS": 1_500}


async def test_a_skip_travels_through_a_thousand_nodes(stack: Stack) -> None:
    chain = a_chain(1_000)
    graph = a_graph(
        "root -> n0, " + " -> ".join(node.node_id for node in chain.nodes), edges={"root->n0": {"condition": "false"}}
    )
    execution = await stack.run(graph)
    assert execution.state is ExecutionState.SUCCESS
    assert execution.run_counts == {"SUCCESS": 1, "SKIPPED": 1_000}


async def test_a_thousand_nodes_fan_out_and_in(stack: Stack) -> None:
    execution = await stack.run(a_fan(1_000))
    assert execution.state is ExecutionState.SUCCESS
    assert execution.run_counts == {"SUCCESS": 1_002}
    assert await stack.sql.fetchval("SELECT max(attempt) FROM executor.run") == 1


async def test_a_chain_of_three_hundred_runs_in_order(stack: Stack) -> None:
    chain = a_chain(300)
    graph = a_graph(
        " -> ".join(node.node_id for node in chain.nodes), modules={node.node_id: "BriefModule" for node in chain.nodes}
    )
    execution = await stack.run(graph)
    assert execution.state is ExecutionState.SUCCESS
    assert GATES.order == [f"n{index}" for index in range(300)]


async def test_a_delay_waits_as_long_as_it_says_and_holds_no_slot(
    make_stack: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at, wake_due = asyncio.Event(), Timers.wake_due

    async def wake_once_looked_at(timers: Timers) -> timedelta | None:
        await looked_at.wait()
        return await wake_due(timers)

    monkeypatch.setattr(Timers, "wake_due", wake_once_looked_at)
    async with make_stack(runner={"concurrency": 1}) as stack:
        graph = a_graph(
            "wait -> end",
            modules={"wait": ("DelayModule", {"duration": "PT1.${trigger.tenths}S"}), "end": "BriefModule"},
        )
        execution_id = await stack.start(graph, payload={"tenths": 5})
        waiting = (await stack.runs(execution_id))["wait"]
        assert waiting.state is RunState.WAITING
        assert (await stack.run(a_graph("a"))).state is ExecutionState.SUCCESS
        looked_at.set()

        execution = await stack.wait(execution_id)
        runs = await stack.runs(execution_id)

        assert execution.state is ExecutionState.SUCCESS
        assert runs["wait"].attempt == 0
        due = waiting.started_at + timedelta(seconds=1.5)  # type: ignore[operator]
        assert waiting.retry_after == due
        assert runs["wait"].finished_at >= due  # type: ignore[operator]


async def test_a_delay_that_makes_no_sense_is_quarantined(stack: Stack) -> None:
    graph = a_graph("wait", modules={"wait": ("DelayModule", {"duration": "${trigger}"})})
    execution = await stack.run(graph, payload="soon")
    assert execution.state is ExecutionState.FAILED
    assert "node 'wait'" in execution.error_message
    assert "soon" in execution.error_message


@pytest.mark.parametrize("text", ["PT0S", "P3000000D"], ids=["none", "8000 years"])
async def test_a_delay_may_be_nothing_or_more_than_a_life(stack: Stack, text: str) -> None:
    graph = a_graph("wait", modules={"wait": ("DelayModule", {"duration": "${trigger}"})})
    execution_id = await stack.start(graph, payload=text)
    if text == "PT0S":
        assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS
    else:
        await stack.until("SELECT state IN ('WAITING', 'QUARANTINED') FROM executor.run")
        assert (await stack.run(a_graph("a"))).state is ExecutionState.SUCCESS
