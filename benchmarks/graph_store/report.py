"""Figures of the graph store as text: beside the budgets, and beside what was projected for v1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.figures import Summary, summarise
from benchmarks.graph_store.figures import FIGURES, FULL, V1
from benchmarks.record import Record
from benchmarks.table import COST_HEADINGS, HEADINGS, costs, doubts, number, rows, terminal

V1_HEADING = "v1, projected"
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def tables(record: Record, table: Table = terminal) -> list[str]:
    """Of figures, and of CPU time."""
    summaries = summarise(record.figures(), FIGURES)
    beside = [(*row, _of_v1(summary)) for row, summary in zip(rows(summaries), summaries, strict=True)]
    headings = ("CPU us per call", *COST_HEADINGS[2:])
    called = [phase[1:] for phase in costs(record.rounds)]
    return [table((*HEADINGS, V1_HEADING), beside), table(headings, called)]


def report(record: Record) -> str:
    """The tables, and what makes them doubtful."""
    doubtful = doubts(record, FULL)
    return "\n\n".join([*tables(record), *(["\n".join(doubtful)] if doubtful else [])])


def _of_v1(summary: Summary) -> str:
    """How long it was to take, and how many times as long that is."""
    projected = V1.get(summary.figure.key)
    if projected is None:
        return ""
    return f"{number(projected, 'ms')}, {projected / summary.median:,.0f} times as long"
