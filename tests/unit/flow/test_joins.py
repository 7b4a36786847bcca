"""The table of joins: any sequence of decisions, and what becomes of the run that waits for them."""

from __future__ import annotations

from itertools import permutations

import pytest

from valkyr.flow.edges import Decision
from valkyr.flow.joins import Gate, Verdict, judge, pass_edge, taken_edges
from valkyr.graph.model import Join

LETTERS = {"T": Decision.TAKEN, "B": Decision.BROKEN, "N": Decision.NOT_TAKEN, "D": Decision.DEAD}


def pass_all(decisions: str, join: Join, *, edges: int | None = None) -> Gate:
    """A gate of `edges` edges, the first of them decided in order."""
    gate = Gate(len(decisions) if edges is None else edges)
    for edge, letter in enumerate(decisions):
        broken = f"edge {edge} is broken" if letter == "B" else ""
        gate = pass_edge(gate, edge, LETTERS[letter], join=join, broken=broken)
    return gate


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        ("T", Verdict.READY),
        ("B", Verdict.READY),
        ("N", Verdict.SKIP),
        ("D", Verdict.SKIP_DEAD),
        ("TT", Verdict.READY),
        ("TN", Verdict.READY),
        ("BN", Verdict.READY),
        ("NN", Verdict.SKIP),
        ("TD", Verdict.SKIP_DEAD),
        ("BD", Verdict.SKIP_DEAD),
        ("ND", Verdict.SKIP_DEAD),
        ("DD", Verdict.SKIP_DEAD),
        ("TTN", Verdict.READY),
        ("TND", Verdict.SKIP_DEAD),
        ("NNNT", Verdict.READY),
    ],
)
def test_all_waits_for_every_edge_whatever_their_order(decisions: str, expected: Verdict) -> None:
    for order in set(permutations(decisions)):
        for decided in range(len(order)):
            gate = pass_all("".join(order[:decided]), Join.ALL, edges=len(order))
            assert judge(gate, Join.ALL) is Verdict.WAIT
        assert judge(pass_all("".join(order), Join.ALL), Join.ALL) is expected


@pytest.mark.parametrize(
    ("decisions", "edges", "expected"),
    [
        ("", 2, Verdict.WAIT),
        ("T", 1, Verdict.READY),
        ("T", 3, Verdict.READY),
        ("B", 3, Verdict.READY),
        ("N", 3, Verdict.WAIT),
        ("NN", 3, Verdict.WAIT),
        ("NNN", 3, Verdict.SKIP),
        ("NNT", 3, Verdict.READY),
        ("D", 3, Verdict.WAIT),
        ("DT", 3, Verdict.READY),
        ("DNN", 3, Verdict.SKIP_DEAD),
        ("NND", 3, Verdict.SKIP_DEAD),
    ],
)
def test_any_opens_at_the_first_taken_edge(decisions: str, edges: int, expected: Verdict) -> None:
    assert judge(pass_all(decisions, Join.ANY, edges=edges), Join.ANY) is expected


def test_the_taken_edges_of_all_are_those_not_decided_against() -> None:
    assert taken_edges((0, 1, 2, 3), pass_all("TNBD", Join.ALL)) == (0, 2)


def test_without_exclusions_the_taken_edges_of_all_are_its_edges() -> None:
    assert taken_edges((0, 1, 2), pass_all("TTT", Join.ALL)) == (0, 1, 2)


def test_the_taken_edge_of_any_is_the_one_that_opened_it() -> None:
    assert taken_edges((0, 1, 2), pass_all("NT", Join.ANY, edges=3)) == (1,)


def test_an_undecided_edge_leaves_the_gate_as_it_is() -> None:
    gate = Gate(2, taken=1)
    assert pass_edge(gate, 0, Decision.UNDECIDED, join=Join.ALL) is gate


def test_the_first_broken_edge_is_named() -> None:
    assert pass_all("TBB", Join.ALL).broken == "edge 1 is broken"


def test_every_decision_counts_down_once() -> None:
    gate = pass_all("TBND", Join.ALL, edges=5)
    assert (gate.unmet, gate.taken, gate.dead, gate.excluded) == (1, 2, True, (2, 3))
