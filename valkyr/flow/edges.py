"""The table of edges: what the end of a run means for each edge that leaves it. DESIGN: an edge is decided once."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum

from valkyr.graph.model import EdgeKind


class CannotEvaluate(Exception):
    """A condition raised: a field that is missing, a type that does not fit. `str` says which."""


class SourceEnd(StrEnum):
    """How the source of an edge ended, as far as its edges care."""

    SUCCESS = "SUCCESS"
    HANDLED = "HANDLED"
    QUARANTINED = "QUARANTINED"
    DISCARDED = "DISCARDED"
    SKIPPED = "SKIPPED"
    SKIPPED_DEAD = "SKIPPED_DEAD"


class Decision(StrEnum):
    TAKEN = "TAKEN"
    # Taken, since its condition could not be evaluated; the target is quarantined when it would have become READY.
    BROKEN = "BROKEN"
    NOT_TAKEN = "NOT_TAKEN"
    DEAD = "DEAD"
    UNDECIDED = "UNDECIDED"


class _By(Enum):
    CONDITION = "its condition"
    CONDITION_ONCE = "its condition, unless decided before"


_TABLE: dict[SourceEnd, dict[EdgeKind, Decision | _By]] = {
    SourceEnd.SUCCESS: {
        EdgeKind.SUCCESS: _By.CONDITION,
        EdgeKind.FAILURE: Decision.NOT_TAKEN,
        EdgeKind.ALWAYS: _By.CONDITION_ONCE,
    },
    SourceEnd.HANDLED: {
        EdgeKind.SUCCESS: Decision.NOT_TAKEN,
        EdgeKind.FAILURE: _By.CONDITION,
        EdgeKind.ALWAYS: _By.CONDITION_ONCE,
    },
    SourceEnd.QUARANTINED: {
        EdgeKind.SUCCESS: Decision.UNDECIDED,
        EdgeKind.FAILURE: Decision.UNDECIDED,
        EdgeKind.ALWAYS: _By.CONDITION_ONCE,
    },
    SourceEnd.DISCARDED: {
        EdgeKind.SUCCESS: Decision.DEAD,
        EdgeKind.FAILURE: Decision.NOT_TAKEN,
        EdgeKind.ALWAYS: Decision.UNDECIDED,
    },
    SourceEnd.SKIPPED: dict.fromkeys(EdgeKind, Decision.NOT_TAKEN),
    SourceEnd.SKIPPED_DEAD: dict.fromkeys(EdgeKind, Decision.DEAD),
}


def decide_edge(
    end: SourceEnd, kind: EdgeKind, holds: Callable[[], bool], *, decided_before: bool = False
) -> tuple[Decision, str]:
    """The decision for one edge, and the error of a condition that could not be evaluated.

    `holds` evaluates the edge's condition and may raise CannotEvaluate; it is called only where the table asks for it.
    `decided_before` is true of an ALWAYS edge whose source was quarantined before; UNDECIDED means "stays as it is".
    """
    rule = _TABLE[end][kind]
    if isinstance(rule, Decision):
        return rule, ""
    if rule is _By.CONDITION_ONCE and decided_before:
        return Decision.UNDECIDED, ""
    try:
        return (Decision.TAKEN if holds() else Decision.NOT_TAKEN), ""
    except CannotEvaluate as error:
        if kind is EdgeKind.FAILURE:
            return Decision.TAKEN, ""
        return Decision.BROKEN, str(error)
