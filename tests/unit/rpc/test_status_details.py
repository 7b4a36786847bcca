"""What a status carries beside its message, and what is cut so that it fits into the trailers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from valkyr.errors import Difference, Disagreement, DraftConflict, MergeConflict, ValkyrError, VersionConflict
from valkyr.graph.conflicts import Conflict, ConflictKind, conflicts_of, disagreements_of
from valkyr.graph.parts import Part
from valkyr.rpc.status import from_rpc_error, to_grpc_status

BOTH_CHANGED = Conflict(ConflictKind.BOTH_CHANGED, Part.NODE, "a", "label", "A", "B", "C")
ONE_REMOVED = Conflict(ConflictKind.CHANGED_AND_REMOVED, Part.EDGE, "e", base={"edgeId": "e"}, mine={"edgeId": "e"})


class Failed(grpc.RpcError):  # type: ignore[misc]
    """A call that ended with a status."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def code(self) -> Any:
        return self._status.code

    def details(self) -> str:
        return str(self._status.details)

    def trailing_metadata(self) -> Any:
        return self._status.trailing_metadata


def sent(error: ValkyrError) -> Any:
    return from_rpc_error(Failed(to_grpc_status(error)))


@pytest.mark.parametrize("conflicts", [[BOTH_CHANGED], [ONE_REMOVED], [BOTH_CHANGED, ONE_REMOVED]], ids=len)
def test_the_conflicts_of_a_refused_publish_arrive_as_they_were(conflicts: Sequence[Conflict]) -> None:
    error = MergeConflict(
        "two changed the same", metadata={"currentVersion": "7"}, disagreements=disagreements_of(conflicts)
    )
    arrived = sent(error)
    assert isinstance(arrived, MergeConflict)
    assert arrived.current_version == 7
    assert not arrived.is_truncated
    assert conflicts_of(arrived.disagreements) == conflicts


def test_more_conflicts_than_fit_are_counted() -> None:
    many = [Disagreement("BOTH_CHANGED", "NODE", f"n{number}", "label", '"A"', '"B"', '"C"') for number in range(500)]
    arrived = sent(MergeConflict("two changed the same", metadata={"currentVersion": "7"}, disagreements=many))
    assert arrived.is_truncated
    assert arrived.details.metadata["total"] == "500"
    assert 10 < len(arrived.disagreements) < 500
    assert list(arrived.disagreements) == many[: len(arrived.disagreements)]


def test_a_value_that_was_cut_is_a_text() -> None:
    long = Conflict(ConflictKind.BOTH_CHANGED, Part.MODULE, "a", "config", "x" * 500, "y", "z")
    arrived = sent(MergeConflict("no", disagreements=disagreements_of([long])))
    (conflict,) = conflicts_of(arrived.disagreements)
    assert conflict.base.startswith('"xxx')
    assert (conflict.current, conflict.mine) == ("y", "z")


def test_a_stale_draft_names_the_revision_that_is_there() -> None:
    assert sent(DraftConflict("revision 2 is stale", metadata={"currentRevision": "5"})).current_revision == 5


def test_differences_and_conflicts_do_not_mix() -> None:
    arrived = sent(VersionConflict("no", differences=[Difference("ADDED", "NODE", "a")]))
    assert (len(arrived.differences), len(arrived.details.disagreements)) == (1, 0)
