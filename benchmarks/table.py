"""Figures as text: for the terminal, and for a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.figures import Measured, Summary

HEADINGS = ("workload", "what", "budget", "measured", "min - max", "ratio", "met")
COSTS = ("all", "client", "executor", "postgres", "graph_store", "breaker", "dlq", "supervisor")
COST_HEADINGS = ("workload", "CPU us per run", *(name.replace("_", " ") for name in COSTS))


def rows(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """One for each figure: the cells under HEADINGS."""
    return [_row(summary) for summary in summaries]


def terminal(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Columns side by side."""
    widths = [max(len(row[column]) for row in (headings, *cells)) for column in range(len(headings))]
    lines = [headings, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [headings, ["---"] * len(headings), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def costs_by_phase(rounds: Sequence[Mapping[str, Measured]]) -> Mapping[tuple[str, str], Mapping[str, float]]:
    """CPU microseconds per run by process, medians over rounds, by workload and phase. Further clients count as one."""
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for measured in rounds:
        for workload, each in measured.items():
            for phase, cost in each.cost.items():
                found.setdefault((workload, phase), []).append(_joined(cost))
    return {phase: _medians(each) for phase, each in found.items()}


def costs(rounds: Sequence[Mapping[str, Measured]]) -> list[tuple[str, ...]]:
    """The cells under COST_HEADINGS."""
    return [
        (*phase, *(f"{cost.get(name, 0.0):,.0f}" for name in COSTS)) for phase, cost in costs_by_phase(rounds).items()
    ]


def number(value: float, unit: str) -> str:
    """With as many digits as say something."""
    if unit in ("/s", "runs/s") and value >= 100:
        return f"{value:,.0f} {unit}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}"


def _row(summary: Summary) -> tuple[str, ...]:
    figure, values = summary.figure, summary.values
    many = len(values) > 1
    return (
        figure.workload,
        figure.what,
        "" if figure.budget is None else number(figure.budget, figure.unit),
        number(summary.median, figure.unit),
        f"{number(min(values), '').strip()} - {number(max(values), '').strip()}" if many else "",
        "" if summary.ratio is None else "> 99" if summary.ratio > 99 else f"{summary.ratio:.2f}",
        {None: "", True: "yes", False: "NO"}[summary.met],
    )


def _medians(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for cost in costs for name in cost})
    return {name: median(cost.get(name, 0.0) for cost in costs) for name in names}


def _joined(cost: Mapping[str, float]) -> dict[str, float]:
    joined: dict[str, float] = {}
    for name, value in cost.items():
        process = name.split(" ", 1)[0]  # `client 1` is a client
        joined[process] = joined.get(process, 0.0) + value
    return joined
