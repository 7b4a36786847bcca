"""Layout and the rest told apart, changes gathered, and resume tokens that say what they were made of."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.graph_store.model import RowIds, StoredWorkflow, is_layout, row_changes
from services.graph_store.model_history import Change, Position, Snapshot, newest
from services.graph_store.wire_history import read_watch, resume_token
from tests.builders import a_graph
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest
from valkyr.graph.diff import diff_graphs
from valkyr.graph.document import graph_to_document
from valkyr.graph.model import FailurePolicy, Graph, Join, Module, Settings
from valkyr.graph.model import Position as Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = a_graph("a -> b -> c, a -> c, d", modules={"b": ("LogModule", {"on": True})})


def _node(graph: Graph, index: int, **fields: Any) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **fields)
    return replace(graph, nodes=tuple(nodes))


EDITS: list[tuple[str, Any]] = [
    ("moved", lambda graph: _node(graph, 0, position=Place(1, 2))),
    ("moved back", lambda graph: _node(graph, 0, position=None)),
    ("moved another", lambda graph: _node(graph, 3, position=Place(-1.5, 0))),
    ("nodes reordered", lambda graph: replace(graph, nodes=graph.nodes[::-1])),
    ("edges reordered", lambda graph: replace(graph, edges=graph.edges[::-1])),
    ("modules reordered", lambda graph: replace(graph, modules=graph.modules[::-1])),
    ("labelled", lambda graph: _node(graph, 1, label="other")),
    ("joined", lambda graph: _node(graph, 1, join=Join.ANY)),
    ("edge lost", lambda graph: replace(graph, edges=graph.edges[1:])),
    ("module lost", lambda graph: replace(graph, modules=graph.modules[1:])),
    (
        "config changed",
        lambda graph: replace(
            graph,
            modules=tuple(
                replace(module, config={"on": 1}) if module.node_id == "b" else module for module in graph.modules
            ),
        ),
    ),
    ("settings", lambda graph: replace(graph, settings=Settings(failure_policy=FailurePolicy.FAIL_FAST))),
]


def layout_of(old: Graph, new: Graph) -> bool:
    before, after = graph_to_document(old), graph_to_document(new)
    ids = RowIds(*(["id"] * len(before.get(kind, ())) for kind in ("nodes", "edges", "modules")))
    changes = row_changes(before, ids, after, new_id=lambda: "new")
    return is_layout(before, after, changes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(EDITS), max_size=4), st.lists(st.sampled_from(EDITS), min_size=1, max_size=4))
def test_rows_and_diffs_agree_on_what_is_layout(first: list[Any], then: list[Any]) -> None:
    old = BASE
    for _, edit in first:
        old = edit(old)
    new = old
    for _, edit in then:
        new = edit(new)
    diff = diff_graphs(old, new)
    if diff or graph_to_document(old) != graph_to_document(new):
        assert layout_of(old, new) == diff.is_layout


def test_module_data_spelt_otherwise_is_not_layout() -> None:
    spelt = [replace(BASE, modules=(Module("a", "LogModule", module_data=data),)) for data in ('{"x":1}', '{"x": 1}')]
    assert not layout_of(spelt[0], _node(spelt[1], 0, position=Place(1, 2)))


def a_change(workflow_id: str, place: int, *, layout: bool = False) -> Change:
    workflow = StoredWorkflow("default", workflow_id, None, "", {}, place, "", NOW, NOW)
    return Change((place, place), workflow, "workflow.saved", "ada", layout)


def test_the_last_change_of_each_workflow_stays_in_order() -> None:
    changes = [a_change("x", 1), a_change("y", 2), a_change("x", 3, layout=True), a_change("z", 4, layout=True)]
    found = newest([*changes, a_change("z", 5, layout=True)])
    assert [(change.workflow.id, change.place[0], change.layout) for change in found] == [
        ("y", 2, False),
        ("x", 3, False),
        ("z", 5, True),
    ]
    assert newest([]) == []


numbers = st.integers(min_value=0, max_value=2**63 - 1)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    top = draw(numbers)
    below = draw(st.lists(st.integers(min_value=1, max_value=max(1, min(top, 10_000))), unique=True, max_size=20))
    return Snapshot(top, tuple(top - number for number in below if number <= top))


@given(snapshots(), st.none() | st.tuples(snapshots(), st.tuples(numbers, numbers)))
def test_a_token_gives_back_the_position_that_it_was_made_of(seen: Snapshot, towards: Any) -> None:
    position = Position(seen) if towards is None else Position(seen, *towards)
    token = resume_token(position)
    assert read_watch(pb.WatchWorkflowsRequest(resume_token=token), "default").since == position


@given(st.text(min_size=1, max_size=60) | st.from_regex(r"\AW[A-Za-z0-9_-]{1,60}\Z"))
def test_i25_what_is_no_token_is_refused_and_crashes_nothing(token: str) -> None:
    with suppress(InvalidRequest):
        assert read_watch(pb.WatchWorkflowsRequest(resume_token=token), "default").since is not None


def test_workflows_that_are_named_twice_are_watched_once() -> None:
    some = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
    request = pb.WatchWorkflowsRequest(workflow_ids=[some, some.upper()])
    assert list(read_watch(request, "default").workflow_ids) == [some]
    with pytest.raises(InvalidRequest):
        read_watch(pb.WatchWorkflowsRequest(workflow_ids=["x"]), "default")
