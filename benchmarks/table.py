"""Figures as text: for the terminal, and for a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.figures import BUSY, FIGURES, Measured, Summary, summarise
from benchmarks.record import Record
from benchmarks.sizes import FULL

HEADINGS = ("workload", "what", "budget", "measured", "min - max", "ratio", "met")
COSTS = ("all", "client", "executor", "runners", "postgres", "graph_store", "breaker", "dlq", "supervisor")

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


def doubts(record: Record, full: Any = FULL) -> list[str]:
    """What could not be measured, and what makes the rest doubtful, one line each."""
    names = list(dict.fromkeys(name for round_ in record.rounds for name in round_))
    others = {name: max(measured.others for measured in record.of(name)) for name in names}
    busy = [f"{name} {share:.0%}" for name, share in others.items() if share > BUSY]
    lines = [f"Not measured: {' '.join(error.split())}" for error in record.errors]
    lines += [f"Doubtful, as others used much of the machine meanwhile: {', '.join(busy)}."] if busy else []
    if record.settings["sizes"] != asdict(full):
        lines.append("Doubtful, as the sizes were small: this shows that all of it works, and no more.")
    if record.machine["filesystem"] == "tmpfs":
        lines.append("Doubtful, as the data folder is in memory: fsync costs nothing there.")
    return lines


def verdict(record: Record) -> str:
    """How many of all budgets are met, and which workloads are not there, or not in every round."""
    found = {summary.figure.key: summary for summary in summarise(record.figures())}
    budgets = [key for key, figure in FIGURES.items() if figure.budget is not None]
    missed = [key for key in budgets if key in found and not found[key].met]
    missing = [key for key in FIGURES if key not in found or len(found[key].values) < len(record.rounds)]
    if not missed and not missing:
        return f"All {len(budgets)} budgets are met."
    met = sum(1 for key in budgets if key in found) - len(missed)
    parts = [f"Of {len(budgets)} budgets {met} are met"]
    parts += [f"{len(missed)} are missed"] if missed else []
    parts += [f"{unknown} were not measured"] if (unknown := len(budgets) - met - len(missed)) else []
    workloads = list(dict.fromkeys(figure.workload for figure in FIGURES.values()))
    lacking = list(dict.fromkeys(FIGURES[key].workload for key in missing))
    if not lacking:
        return f"{', '.join(parts)}."
    whole = f"{len(workloads) - len(lacking)} of {len(workloads)} workloads were measured in every round"
    return f"{', '.join(parts)}. {whole}; missing: {', '.join(lacking)}."


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
