"""Graphs of few ids and few values, so that any two of them have much in common. With errors too, as drafts have."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st

from valkyr.graph.model import Edge, EdgeKind, FailurePolicy, Graph, Module, Node, Position, Retry, Settings

IDS = st.sampled_from("abcd")
VALUES = st.sampled_from([0, 1, True, None, "x", [1], [1, 2], {"k": 1}, {"k": 2}, {"k": 1, "l": []}])
OBJECTS = st.dictionaries(st.sampled_from(["u", "v", "w.x"]), VALUES, max_size=3)
DATA = st.sampled_from(
    ["{}", '{"u":1}', '{"u": 1}', '{"u":1,"v":2}', '{"v":{"k":1}}', '{"n":123456789012345678901}', "no"]
)
NODES = st.builds(
    Node,
    IDS,
    st.sampled_from(["", "one", "two"]),
    st.none() | st.builds(Position, st.sampled_from([0.0, 1.0]), st.just(0.0)),
    st.none() | st.builds(Retry, st.none() | st.integers(1, 2), st.none() | st.just(timedelta(seconds=1))),
    priority=st.sampled_from([0, 1]),
)
EDGES = st.builds(Edge, st.sampled_from("efgh"), IDS, IDS, st.sampled_from(["", "true"]), st.sampled_from(EdgeKind))
MODULES = st.builds(
    lambda node_id, name, data: Module(node_id, name, *data),
    IDS,
    st.sampled_from(["One", "Two"]),
    st.just((None, None)) | st.tuples(DATA, st.none()) | st.tuples(st.none(), OBJECTS),
)
SETTINGS = st.builds(Settings, st.sampled_from(FailurePolicy), st.none() | st.just(timedelta(seconds=1)))


def _lists(items: st.SearchStrategy, key: str) -> st.SearchStrategy:
    return st.lists(items, max_size=4, unique_by=lambda item: getattr(item, key)).map(tuple)


VERSIONS = st.builds(Graph, _lists(NODES, "node_id"), _lists(EDGES, "edge_id"), _lists(MODULES, "node_id"), SETTINGS)
"""Without duplicate ids."""
DRAFTS = st.builds(
    Graph,
    st.lists(NODES, max_size=4).map(tuple),
    st.lists(EDGES, max_size=4).map(tuple),
    st.lists(MODULES, max_size=4).map(tuple),
    SETTINGS,
)
