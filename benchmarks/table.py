"""Figures as text: for the terminal, and for a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.figures import Measured, Summary

HEADINGS = ("workload", "what", "budget", "measured", "min - max", "ratio", "met")
COST_ORDER = ("executor", "postgres", "graph_store", "breaker", "dlq", "supervisor")


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


def costs(rounds: Sequence[Mapping[str, Measured]]) -> list[tuple[str, ...]]:
    """(workload, phase, CPU microseconds per run by process): the medians over rounds."""
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for measured in rounds:
        for workload, each in measured.items():
            for phase, cost in each.cost.items():
                found.setdefault((workload, phase), []).append(cost)
    return [(*key, _cost_text(each)) for key, each in found.items()]


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
        "" if summary.ratio is None else f"{summary.ratio:.2f}",
        {None: "", True: "yes", False: "NO"}[summary.met],
    )


def _cost_text(each: Sequence[Mapping[str, float]]) -> str:
    names = {name for cost in each for name in cost if name != "all"}
    order = sorted(names, key=lambda name: (COST_ORDER.index(name) if name in COST_ORDER else -1, name))
    parts = [f"{name} {_median([cost.get(name, 0.0) for cost in each]):.0f}" for name in order]
    return f"{_median([cost['all'] for cost in each]):.0f} = " + " + ".join(parts)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
