"""What a run is handed, and that it is the same in every attempt."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.executor.inputs import INPUTS_LIMIT, needed_results
from services.executor.model import Prepared
from tests.builders import a_graph
from tests.unit.executor.executions import EXECUTION, UNSETTLED, WORKFLOW, failed, plan_of, prepared, succeeded
from valkyr.flow.states import RunState
from valkyr.graph.model import Graph


def inputs_of(run: Prepared) -> Any:
    return orjson.loads(run.inputs)


def config_of(run: Prepared) -> Any:
    assert run.problem == ""
    return orjson.loads(run.config)


def transforming(arrows: str, config: dict[str, Any], node_id: str = "z") -> Graph:
    return a_graph(arrows, modules={node_id: ("TransformModule", config)})


def test_inputs_are_the_trigger_and_the_outputs_of_taken_predecessors() -> None:
    run = prepared(
        a_graph("a -> z, b -> z"),
        "z",
        trigger={"order": 7},
        results={"a": succeeded({"x": 1}), "b": succeeded(None)},
    )
    assert inputs_of(run) == {
        "trigger": {"order": 7},
        "nodes": {"a": {"outputs": {"x": 1}}, "b": {"outputs": None}},
    }


def test_a_root_gets_the_trigger_alone() -> None:
    assert inputs_of(prepared(a_graph("a"), "a", trigger=[1, 2])) == {"trigger": [1, 2], "nodes": {}}


def test_predecessors_whose_edge_was_not_taken_are_not_in_the_inputs() -> None:
    run = prepared(a_graph("a -> z, b -> z"), "z", taken=("b->z",), results={"b": succeeded(2)})
    assert inputs_of(run)["nodes"] == {"b": {"outputs": 2}}


def test_a_predecessor_with_two_edges_is_in_the_inputs_once() -> None:
    run = prepared(a_graph("a -> z, a -> z"), "z", results={"a": succeeded(2)})
    assert run.inputs.count(b'"a"') == 1


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.QUARANTINED])
def test_a_predecessor_that_failed_shows_its_error(state: RunState) -> None:
    run = prepared(a_graph("a -> z"), "z", results={"a": failed("no money", state=state)})
    error = {"type": "TRANSIENT", "message": "no money"}
    assert inputs_of(run)["nodes"] == {"a": {"outputs": None, "error": error}}


@pytest.mark.parametrize("node_id", ['he said "x"', "новый узел", "a\\b", "0", "trigger", "nodes"])
def test_node_ids_of_any_script_stand_in_the_inputs_as_they_are(node_id: str) -> None:
    graph = a_graph("a -> z")
    nodes = tuple(node if node.node_id == "z" else type(node)(node_id) for node in graph.nodes)
    edges = tuple(type(edge)(edge.edge_id, node_id, "z") for edge in graph.edges)
    run = prepared(Graph(nodes, edges), "z", results={node_id: succeeded(1)})
    assert inputs_of(run) == {"trigger": None, "nodes": {node_id: {"outputs": 1}}}


def test_hashes_and_key_are_the_same_in_every_attempt() -> None:
    graph = transforming("a -> b -> z", {"output": "${nodes['a'].outputs.x + trigger.y}"})
    known = {"a": succeeded({"x": 1}), "b": succeeded({})}
    first, third = (prepared(graph, "z", trigger={"y": 2}, results=known, attempt=n) for n in (1, 3))
    assert (first.epoch, third.attempt) == (1, 3)
    for name in ("inputs", "config", "inputs_hash", "config_hash", "idempotency_key"):
        assert getattr(first, name) == getattr(third, name)


def test_hashes_and_key_do_not_change_when_an_ancestor_ends_after_the_run_was_ready() -> None:
    graph = transforming("a -> b -> z", {"output": "${nodes['a'].outputs}"})
    at_first = prepared(graph, "z", results={"a": UNSETTLED, "b": succeeded({})}, ready_revision=5)
    later = prepared(graph, "z", results={"a": succeeded(1, revision=6), "b": succeeded({})}, ready_revision=5)
    assert config_of(at_first) == config_of(later) == {"output": None}
    assert at_first.idempotency_key == later.idempotency_key


@pytest.mark.parametrize(("revision", "seen"), [(1, 42), (5, 42), (6, None)])
def test_a_config_sees_ancestors_up_to_the_revision_that_readied_the_run(revision: int, seen: int | None) -> None:
    graph = transforming("a -> b -> z", {"output": "${nodes['a'].outputs}"})
    run = prepared(graph, "z", results={"a": succeeded(42, revision), "b": succeeded({})}, ready_revision=5)
    assert config_of(run) == {"output": seen}


@pytest.mark.parametrize(("revision", "seen"), [(5, "no money"), (6, None)])
def test_errors_too_are_seen_up_to_that_revision(revision: int, seen: str | None) -> None:
    graph = transforming("a -> b -> z", {"output": "${nodes['a'].error}"})
    run = prepared(graph, "z", results={"a": failed("no money", revision), "b": succeeded({})}, ready_revision=5)
    assert config_of(run)["output"] == (seen and {"type": "TRANSIENT", "message": seen})


def test_an_ancestor_without_a_row_is_null() -> None:
    graph = transforming("a -> b -> z", {"output": "${nodes['a'].outputs}"})
    assert config_of(prepared(graph, "z", results={"b": succeeded({})})) == {"output": None}


def test_a_config_sees_trigger_and_execution() -> None:
    config = {"output": {"who": "${trigger.name}", "which": "${execution.id}", "what": "${execution}"}}
    output = config_of(prepared(transforming("z", config), "z", trigger={"name": "Eve"}))["output"]
    assert (output["who"], output["which"]) == ("Eve", str(EXECUTION))
    assert output["what"] == {"id": str(EXECUTION), "workflowId": str(WORKFLOW), "version": 3}


def test_other_inputs_or_another_config_or_node_or_class_make_another_key() -> None:
    known = {"a": succeeded(1)}
    keys = [
        prepared(a_graph("a -> z"), "z", results=known).idempotency_key,
        prepared(a_graph("a -> z"), "z", results={"a": succeeded(2)}).idempotency_key,
        prepared(a_graph("a -> z"), "z", results=known, trigger=1).idempotency_key,
        prepared(a_graph("a -> z", modules={"z": ("NoopModule", {"b": 1})}), "z", results=known).idempotency_key,
        prepared(a_graph("a -> z", modules={"z": "LogModule"}), "z", results=known).idempotency_key,
        prepared(a_graph("a -> y"), "y", results=known).idempotency_key,
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("expression", "says"),
    [("nodes['a'].outputs.total", "total"), ("1 / 0", "zero"), ("trigger.name", "no object")],
)
def test_a_config_that_cannot_be_resolved_is_a_problem_naming_node_and_expression(expression: str, says: str) -> None:
    graph = transforming("a -> z", {"output": "${" + expression + "}"})
    run = prepared(graph, "z", results={"a": succeeded({})})
    assert "the config of node 'z' could not be resolved" in run.problem
    assert expression in run.problem
    assert says in run.problem


def test_inputs_at_the_limit_are_handed_out() -> None:
    room = INPUTS_LIMIT - len('{"trigger":null,"nodes":{"a":{"outputs":""}}}')
    run = prepared(a_graph("a -> z"), "z", results={"a": succeeded("x" * room)})
    assert (len(run.inputs), run.problem) == (INPUTS_LIMIT, "")
    over = prepared(a_graph("a -> z"), "z", results={"a": succeeded("x" * (room + 1))})
    assert over.problem.startswith("INPUTS_TOO_LARGE")


@pytest.mark.parametrize(
    ("sizes", "trigger", "named"),
    [
        ({"a": 3, "b": 2}, 1, "node 'a'"),
        ({"a": 1, "b": 4}, 1, "node 'b'"),
        ({"a": 1, "b": 1}, 4, "the trigger's payload"),
        ({"trigger": 4, "b": 1}, 2, "node 'trigger'"),
    ],
)
def test_inputs_that_are_too_large_name_the_largest_part(sizes: dict[str, int], trigger: int, named: str) -> None:
    mebi = 1024 * 1024
    arrows = ", ".join(f"{name} -> z" for name in sizes)
    results = {name: succeeded("x" * (size * mebi)) for name, size in sizes.items()}
    problem = prepared(a_graph(arrows), "z", results=results, trigger="x" * (trigger * mebi)).problem
    assert problem.startswith("INPUTS_TOO_LARGE")
    assert named in problem
    assert str(INPUTS_LIMIT) in problem


def test_needed_are_sources_of_taken_edges_and_what_the_config_refers_to() -> None:
    plan = plan_of(transforming("a -> b -> z, c -> z", {"output": "${nodes['a'].outputs}"}))
    z = plan.nodes[plan.index_of["z"]]
    needed = needed_results(plan, z, [edge for edge in z.incoming if plan.edges[edge].edge_id == "b->z"])
    assert {plan.nodes[index].node_id for index in needed} == {"a", "b"}
