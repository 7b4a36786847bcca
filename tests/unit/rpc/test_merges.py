"""Diffs and conflicts on the wire: every kind has its name there, and nothing is lost."""

from __future__ import annotations

from hypothesis import given, settings

from tests.unit.graph.small_graphs import VERSIONS
from valkyr.api.common.v1 import common_pb2
from valkyr.errors import Difference
from valkyr.graph.conflicts import ConflictKind
from valkyr.graph.diff import ChangeKind, Part, diff_graphs, differences_of
from valkyr.graph.merge import merge_graphs
from valkyr.graph.model import Graph
from valkyr.rpc.merges import conflicts_from_proto, conflicts_to_proto, diff_to_proto


def test_the_wire_has_the_names_of_the_library() -> None:
    for names, enum in (
        (ChangeKind, common_pb2.Difference.Kind),
        (Part, common_pb2.Difference.Part),
        (ConflictKind, common_pb2.Conflict.Kind),
    ):
        assert set(names) == {name for name in enum.keys() if not name.endswith("_UNSPECIFIED")}  # noqa: SIM118


@given(VERSIONS, VERSIONS, VERSIONS)
@settings(max_examples=50, deadline=None)
def test_conflicts_and_differences_survive_the_wire(base: Graph, current: Graph, mine: Graph) -> None:
    conflicts = merge_graphs(base, current, mine).conflicts
    sent = [common_pb2.Conflict.FromString(item.SerializeToString()) for item in conflicts_to_proto(conflicts)]
    assert conflicts_to_proto(conflicts_from_proto(sent)) == sent
    assert list(map(repr, conflicts_from_proto(sent))) == list(map(repr, conflicts))
    diff = diff_graphs(base, current)
    assert [
        Difference(
            common_pb2.Difference.Kind.Name(message.kind),
            common_pb2.Difference.Part.Name(message.part),
            message.id,
            message.path,
            message.old if message.HasField("old") else None,
            message.new if message.HasField("new") else None,
        )
        for message in diff_to_proto(diff)
    ] == differences_of(diff)
