"""What a run is handed, and that it is the same in every attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from tests.builders import a_graph
from tests.unit.executor.executions import (
    EXECUTION,
    MODULES,
    UNSETTLED,
    WORKFLOW,
    a_fact,
    failed,
    plan_of,
    prepared,
    succeeded,
)
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import NO_REPLAY, Replay
from valkyr.flow.sights import QuarantinedAs, StoredResult, as_of
from valkyr.flow.states import RunState
from valkyr.graph.model import Dedupe, DedupeScope, Graph
from valkyr.planning.inputs import INPUTS_LIMIT, needed_results, prepare


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
    ("changed", "same"),
    [
        ({"node_id": "y"}, {"workflow": True, "global": True}),
        ({"execution": True}, {"workflow": True, "global": True}),
        ({"workflow": True}, {"workflow": False, "global": True}),
        ({"namespace": True}, {"workflow": False, "global": False}),
        ({"trigger": 2}, {"workflow": False, "global": False}),
        ({"config": {"b": 1}}, {"workflow": False, "global": False}),
        ({"class_name": "LogModule"}, {"workflow": False, "global": False}),
        ({"replay": Replay(key_number=1)}, {"workflow": False, "global": False}),
    ],
    ids=["node", "execution", "workflow", "namespace", "payload", "config", "class", "new key"],
)
def test_the_key_of_a_module_that_dedupes_is_that_of_its_equals(changed: dict[str, Any], same: dict[str, bool]) -> None:
    for scope in DedupeScope:
        assert (key_of(scope) == key_of(scope, **changed)) is same[scope.lower()], scope
    assert len({key_of(None), *map(key_of, DedupeScope)}) == 3


def key_of(scope: DedupeScope | None, **changed: Any) -> str:
    """Of the one node of its graph."""
    name, class_name = changed.get("node_id", "z"), changed.get("class_name", "NoopModule")
    plan = plan_of(a_graph(name, modules={name: (class_name, changed.get("config", {}))}))
    facts = replace(
        a_fact(changed.get("trigger", 1)),
        id=UUID(int=1) if "execution" in changed else EXECUTION,
        workflow_id=UUID(int=2) if "workflow" in changed else WORKFLOW,
        namespace="elsewhere" if "namespace" in changed else "default",
    )
    return prepare(
        plan,
        facts,
        replace(plan.nodes[0], dedupe=Dedupe(scope) if scope else None),
        taken=(),
        epoch=1,
        attempt=1,
        ready_revision=1,
        result_of=lambda _node: None,
        modules=MODULES,
        replay=changed.get("replay", NO_REPLAY),
    ).idempotency_key


def test_the_new_key_of_a_requeue_is_nobody_else_s() -> None:
    """Two executions may each requeue their first quarantine: each is to be run."""
    anew = Replay(key_number=1)
    assert key_of(DedupeScope.GLOBAL, replay=anew) != key_of(DedupeScope.GLOBAL, replay=anew, execution=True)


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


REQUEUED_AT = 9
QUARANTINED_TWICE = (QuarantinedAs(3, "first", "TIMEOUT"), QuarantinedAs(6, "second", "TRANSIENT"))


@pytest.mark.parametrize(
    ("revision", "seen"),
    [(2, None), (3, "first"), (5, "first"), (6, "second"), (8, "second"), (9, "now"), (12, "now")],
)
@pytest.mark.parametrize("state", [RunState.SUCCESS, RunState.FAILED])
def test_a_result_is_as_it_was_at_a_revision_also_between_quarantine_and_resolution(
    state: RunState, revision: int, seen: str | None
) -> None:
    now = StoredResult(state, "1", "now", "PERMANENT", REQUEUED_AT, QUARANTINED_TWICE)
    found = as_of(now, revision)
    assert (found and found.error) == seen
    if seen in ("first", "second"):
        assert found is not None
        assert (found.state, found.outputs) == (RunState.QUARANTINED, None)
        assert found.error_type == ("TIMEOUT" if seen == "first" else "TRANSIENT")


@pytest.mark.parametrize("state", [RunState.READY, RunState.LEASED])
def test_a_run_that_was_requeued_still_shows_its_quarantine_while_it_runs(state: RunState) -> None:
    found = as_of(replace(UNSETTLED, state=state, error="a retry", earlier=QUARANTINED_TWICE), 20)
    assert found is not None
    assert found.error == "second"


@pytest.mark.parametrize("result", [None, UNSETTLED, replace(UNSETTLED, error="a retry", error_type="TRANSIENT")])
def test_what_was_never_settled_is_nothing_at_any_revision(result: StoredResult | None) -> None:
    assert as_of(result, 1_000) is None


def test_a_run_behind_an_always_edge_is_handed_the_same_before_and_after_the_quarantine_was_resolved() -> None:
    graph = a_graph(
        "a -> z",
        edges={"a->z": {"kind": "ALWAYS"}},
        modules={"z": ("TransformModule", {"output": "${nodes['a'].error.message}"})},
    )
    at_first = failed("no money", 3, RunState.QUARANTINED)
    later = replace(succeeded(1, 9), earlier=(QuarantinedAs(3, "no money", "TRANSIENT"),))
    runs = [prepared(graph, "z", results={"a": result}, ready_revision=3) for result in (at_first, later)]
    assert config_of(runs[0]) == {"output": "no money"}
    assert runs[0] == runs[1]


def test_overrides_stand_in_the_place_of_the_inputs_and_expressions_read_them() -> None:
    config = {"output": ["${trigger.n}", "${nodes['b'].outputs}", "${nodes['a'].outputs}", "${execution.version}"]}
    document = '{"trigger": {"n": 2}, "nodes": {"b": {"outputs": "other"}}}'
    known = {"a": succeeded("as it was"), "b": succeeded("as it was")}
    run = prepared(
        transforming("a -> b -> z", config), "z", trigger={"n": 1}, results=known, replay=Replay(inputs=document)
    )
    assert run.inputs == document.encode()
    assert config_of(run) == {"output": [2, "other", "as it was", 3]}


@pytest.mark.parametrize(
    ("nodes", "seen"),
    [
        pytest.param({"b": {"outputs": 7}}, [7, None], id="given"),
        pytest.param({}, [None, None], id="a predecessor that they leave out"),
        pytest.param({"b": None}, [None, None], id="null"),
        pytest.param({"b": {"error": {"type": "X"}}}, [None, {"type": "X"}], id="error"),
        pytest.param(None, [None, None], id="no nodes"),
    ],
)
def test_predecessors_are_what_the_overrides_say_of_them(nodes: Any, seen: list[Any]) -> None:
    graph = a_graph(
        "b -> z",
        edges={"b->z": {"kind": "ALWAYS"}},
        modules={"z": ("TransformModule", {"output": ["${nodes['b'].outputs}", "${nodes['b'].error}"]})},
    )
    document = orjson.dumps({"trigger": None, "nodes": nodes}).decode()
    run = prepared(graph, "z", results={"b": succeeded(1)}, replay=Replay(inputs=document))
    assert config_of(run) == {"output": seen}


def test_overrides_that_give_no_trigger_have_none() -> None:
    run = prepared(transforming("z", {"output": "${trigger}"}), "z", trigger=1, replay=Replay(inputs="{}"))
    assert config_of(run) == {"output": None}


def test_overrides_change_the_key_and_requeues_without_keep_it() -> None:
    known = {"a": succeeded(1)}
    graph = a_graph("a -> z")
    replays = [NO_REPLAY, Replay(traceparent="00-x", after_attempt=3)]
    first, again = (prepared(graph, "z", results=known, replay=replay) for replay in replays)
    overridden = prepared(graph, "z", results=known, replay=Replay(inputs='{"trigger": 1}'))
    assert first.idempotency_key == again.idempotency_key
    assert overridden.idempotency_key != first.idempotency_key
    assert overridden.inputs_hash != first.inputs_hash


def test_a_new_key_is_that_of_its_quarantine_number_and_leaves_inputs_and_config_alone() -> None:
    runs = [prepared(a_graph("z"), "z", replay=Replay(key_number=number)) for number in (0, 1, 2, 1)]
    keys = [run.idempotency_key for run in runs]
    assert keys[1] == keys[3]
    assert len(set(keys)) == 3
    assert len({(run.inputs_hash, run.config_hash) for run in runs}) == 1


def test_overrides_over_the_limit_are_a_problem_that_names_them() -> None:
    document = '{"trigger": "' + "x" * INPUTS_LIMIT + '"}'
    run = prepared(a_graph("z"), "z", replay=Replay(inputs=document))
    assert run.problem.startswith("INPUTS_TOO_LARGE")
    assert "that of the requeue" in run.problem


@pytest.mark.parametrize(
    ("config", "target"),
    [({"url": "https://api.example.com/x"}, "http:api.example.com"), ({"url": "${trigger.nothing.there}"}, "")],
    ids=["resolved", "a problem"],
)
def test_the_target_is_known_with_the_config(config: dict[str, Any], target: str) -> None:
    graph = a_graph("z", modules={"z": ("HttpRequestModule", {"method": "GET", **config})})
    run = prepared(graph, "z")
    assert (run.target, run.problem != "") == (target, target == "")
