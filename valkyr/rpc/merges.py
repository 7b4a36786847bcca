"""Diffs and conflicts of graphs as protobuf, whole, and back. Statuses carry them cut: `valkyr.rpc.status`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from valkyr.api.common.v1 import common_pb2
from valkyr.errors import Difference
from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.diff import GraphDiff, differences_of
from valkyr.graph.parts import Part, json_text, value_of_text
from valkyr.rpc.status import difference_from_proto


def diff_to_proto(diff: GraphDiff) -> list[common_pb2.Difference]:
    """Every entry, moves last. `reordered` does not travel."""
    return [_difference_to_proto(difference) for difference in differences_of(diff)]


def differences_from_proto(messages: Iterable[common_pb2.Difference]) -> list[Difference]:
    """The entries of an answer."""
    return [difference_from_proto(message) for message in messages]


def conflicts_to_proto(conflicts: Iterable[Conflict]) -> list[common_pb2.Conflict]:
    """Every conflict with its values as JSON text."""
    return [
        common_pb2.Conflict(
            kind=common_pb2.Conflict.Kind.Value(conflict.kind),
            part=common_pb2.Difference.Part.Value(conflict.part),
            id=conflict.id,
            path=conflict.path,
            base=json_text(conflict.base),
            current=json_text(conflict.current),
            mine=json_text(conflict.mine),
        )
        for conflict in conflicts
    ]


def conflicts_from_proto(messages: Iterable[common_pb2.Conflict]) -> list[Conflict]:
    """The conflicts of an answer; a value that was cut is a text. ValueError for a kind that a newer server has."""
    return [
        Conflict(
            kind=ConflictKind(common_pb2.Conflict.Kind.Name(message.kind)),
            part=Part(common_pb2.Difference.Part.Name(message.part)),
            id=message.id,
            path=message.path,
            base=_value(message, "base"),
            current=_value(message, "current"),
            mine=_value(message, "mine"),
        )
        for message in messages
    ]


def _difference_to_proto(difference: Difference) -> common_pb2.Difference:
    return common_pb2.Difference(
        kind=common_pb2.Difference.Kind.Value(difference.kind),
        part=common_pb2.Difference.Part.Value(difference.part),
        id=difference.id,
        path=difference.path,
        old=difference.old,
        new=difference.new,
    )


def _value(message: common_pb2.Conflict, field: str) -> Any:
    return value_of_text(getattr(message, field) if message.HasField(field) else None)  # type: ignore[arg-type]
