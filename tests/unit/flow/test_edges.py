"""The table of edges, cell by cell: end of the source x kind x condition x decided before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from valkyr.flow.edges import CannotEvaluate, Decision, SourceEnd, decide_edge
from valkyr.graph.model import EdgeKind

ASKED = {"yes": Decision.TAKEN, "no": Decision.NOT_TAKEN, "broken": Decision.BROKEN}
# A FAILURE condition that cannot be evaluated counts as held.
HANDLES = {"yes": Decision.TAKEN, "no": Decision.NOT_TAKEN, "broken": Decision.TAKEN}
STAYS = dict.fromkeys(ASKED, Decision.UNDECIDED)
NOT_TAKEN = dict.fromkeys(ASKED, Decision.NOT_TAKEN)
DEAD = dict.fromkeys(ASKED, Decision.DEAD)

# Source: (SUCCESS edge, FAILURE edge, ALWAYS edge, ALWAYS edge decided before), as in the design.
TABLE = {
    SourceEnd.SUCCESS: (ASKED, NOT_TAKEN, ASKED, STAYS),
    SourceEnd.HANDLED: (NOT_TAKEN, HANDLES, ASKED, STAYS),
    SourceEnd.QUARANTINED: (STAYS, STAYS, ASKED, STAYS),
    SourceEnd.DISCARDED: (DEAD, NOT_TAKEN, STAYS, STAYS),
    SourceEnd.SKIPPED: (NOT_TAKEN, NOT_TAKEN, NOT_TAKEN, NOT_TAKEN),
    SourceEnd.SKIPPED_DEAD: (DEAD, DEAD, DEAD, DEAD),
}
CELLS = [
    pytest.param(end, kind, condition, before, column[condition], id=f"{end}-{kind}-{condition}-{before=}")
    for end, row in TABLE.items()
    for (kind, before), column in zip(
        [
            (EdgeKind.SUCCESS, False),
            (EdgeKind.FAILURE, False),
            (EdgeKind.ALWAYS, False),
            (EdgeKind.ALWAYS, True),
        ],
        row,
        strict=True,
    )
    for condition in ASKED
]


def a_condition(word: str) -> Callable[[], bool]:
    def holds() -> bool:
        if word == "broken":
            raise CannotEvaluate("no such key: total")
        return word == "yes"

    return holds


@pytest.mark.parametrize(("end", "kind", "condition", "before", "expected"), CELLS)
def test_an_edge_is_decided_by_the_table(
    end: SourceEnd, kind: EdgeKind, condition: str, before: bool, expected: Decision
) -> None:
    decision, problem = decide_edge(end, kind, a_condition(condition), decided_before=before)
    assert decision is expected
    assert problem == ("no such key: total" if expected is Decision.BROKEN else "")


@pytest.mark.parametrize(
    ("end", "kind"), [*product(SourceEnd, (EdgeKind.SUCCESS, EdgeKind.FAILURE))], ids=lambda value: value.value
)
def test_only_always_edges_are_ever_decided_before_their_source_ends_for_good(end: SourceEnd, kind: EdgeKind) -> None:
    for condition in ASKED:
        holds = a_condition(condition)
        assert decide_edge(end, kind, holds, decided_before=True) == decide_edge(end, kind, holds)


@pytest.mark.parametrize(
    ("end", "kind", "before"),
    [
        (SourceEnd.SUCCESS, EdgeKind.FAILURE, False),
        (SourceEnd.SUCCESS, EdgeKind.ALWAYS, True),
        (SourceEnd.HANDLED, EdgeKind.SUCCESS, False),
        (SourceEnd.QUARANTINED, EdgeKind.SUCCESS, False),
        (SourceEnd.QUARANTINED, EdgeKind.FAILURE, False),
        (SourceEnd.QUARANTINED, EdgeKind.ALWAYS, True),
        *product([SourceEnd.DISCARDED, SourceEnd.SKIPPED, SourceEnd.SKIPPED_DEAD], EdgeKind, [False]),
    ],
)
def test_a_condition_is_not_evaluated_where_the_table_does_not_ask_for_it(
    end: SourceEnd, kind: EdgeKind, before: bool
) -> None:
    def never() -> bool:
        raise AssertionError("the condition was evaluated")

    decide_edge(end, kind, never, decided_before=before)


def test_other_errors_of_a_condition_are_not_swallowed() -> None:
    def breaks() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide_edge(SourceEnd.SUCCESS, EdgeKind.SUCCESS, breaks)
