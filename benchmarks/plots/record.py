"""The plots of a record of `python -m benchmarks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from benchmarks.figures import FIGURES, Summary, summarise
from benchmarks.plots.style import BUDGET, COLOURS, MISSED, OURS, drawing
from benchmarks.record import Record
from benchmarks.table import COSTS, costs_by_phase, number

AT_IDLE = "at idle"
ROW = 0.24
"""Inches of height for one bar."""

MOST = 50.0
"""Times better than the budget: beyond that the bar grows no more."""


def budgets(record: Record, path: Path) -> None:
    """How many times better than its budget each figure is: from 1 on it is met. Whiskers: the rounds."""
    found = [summary for summary in summarise(record.figures()) if summary.ratio is not None]
    with drawing(path, height=1.0 + ROW * len(found)) as axes:
        places = range(len(found))
        ratios = [_shown(summary, summary.median) for summary in found]
        lengths = [ratio - 1 for ratio in ratios]  # from the budget, to either side
        axes.barh(places, lengths, left=1, color=[OURS if summary.met else MISSED for summary in found], height=0.7)
        for place, summary in enumerate(found):
            ends = [_shown(summary, value) for value in summary.values]
            axes.plot([min(ends), max(ends)], [place, place], color=BUDGET, linewidth=1)
            axes.annotate(
                f" {number(summary.median, summary.figure.unit)}", (max(1.0, *ends), place), va="center", fontsize=7
            )
        axes.set_yticks(places, [_label(summary) for summary in found], fontsize=7)
        axes.invert_yaxis()
        axes.axvline(1, color=BUDGET, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.margins(x=0.25)
        axes.set_xlabel("times better than the budget (log; whiskers: all rounds)")


def latencies(record: Record, path: Path) -> None:
    """W2: which share of single executions had answered after so many milliseconds, a line for each round."""
    with drawing(path) as axes:
        for index, measured in enumerate(record.of("W2")):
            times = sorted(measured.detail["latencies_ms"])
            shares = [(place + 1) / len(times) for place in range(len(times))]
            axes.step(times, shares, color=COLOURS[index % len(COLOURS)], label=f"round {index + 1}", where="post")
        for key, share in (("W2.p50", 0.5), ("W2.p99", 0.99)):
            axes.plot(FIGURES[key].budget or 0, share, marker="x", color=BUDGET)
            axes.annotate(f" budget of p{share * 100:.0f}", (FIGURES[key].budget or 0, share), fontsize=7)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms from the start of one execution at idle to its result")
        axes.set_ylabel("share")
        axes.legend(loc="lower right")


def backlog(record: Record, path: Path) -> None:
    """W5: executions that ended in each second while a backlog is drained."""
    with drawing(path) as axes:
        for index, measured in enumerate(record.of("W5")):
            counts = {int(second): count for second, count in measured.detail["per_second"].items()}
            seconds = range(max(counts))  # but the last, which is not a whole one
            axes.plot(
                seconds,
                [counts.get(second, 0) for second in seconds],
                color=COLOURS[index % len(COLOURS)],
                label=f"round {index + 1}",
            )
        axes.axhline(FIGURES["W5.rate"].budget or 0, color=BUDGET, linestyle="--", linewidth=1, label="budget")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("s since the first lease")
        axes.set_ylabel("executions ended per second")
        axes.legend(loc="lower right")


def full_tables(record: Record, path: Path) -> None:
    """W9: the same load on empty tables and on full ones."""
    measured = record.of("W9")
    with drawing(path, height=2.2) as axes:
        rows = f"{measured[0].detail['rows']:,}"
        names = ("empty tables", f"{rows} finished rows", f"and {rows} ready rows")
        for place, rates in enumerate(zip(*(each.detail["rates"] for each in measured), strict=True)):
            axes.barh(place, median(rates), color=OURS, height=0.6)
            axes.plot([min(rates), max(rates)], [place, place], color=BUDGET, linewidth=1)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("single-node executions per second")


def cpu(record: Record, path: Path) -> None:
    """CPU time per run by process, in every phase with many runs at once."""
    phases = {key: cost for key, cost in costs_by_phase(record.rounds).items() if key[1] != AT_IDLE}
    labels = [f"{workload}, {phase}" for workload, phase in phases]
    with drawing(path, height=1.2 + ROW * len(phases)) as axes:
        left = [0.0] * len(phases)
        for colour, name in zip(COLOURS, COSTS[1:], strict=False):
            widths = [cost.get(name, 0.0) for cost in phases.values()]
            axes.barh(labels, widths, left=left, color=colour, label=name.replace("_", " "))
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set_xlabel("CPU microseconds per run")
        axes.legend(fontsize=7)


PLOTS: Mapping[str, tuple[str, Callable[[Record, Path], None]]] = {
    "budgets": ("", budgets),
    "latency": ("W2", latencies),
    "backlog": ("W5", backlog),
    "full-tables": ("W9", full_tables),
    "cpu": ("", cpu),
}
"""By the file's name: the workload that must have been measured, and what draws it."""


def draw(record: Record, folder: Path) -> None:
    """All plots that the record has figures for."""
    for name, (workload, plot) in PLOTS.items():
        if not workload or record.of(workload):
            plot(record, folder / f"{name}.svg")


def _shown(summary: Summary, value: float) -> float:
    """A ratio that has its place on the axis."""
    return min(MOST, summary.figure.ratio(value) or 0.0)


def _label(summary: Summary) -> str:
    what = summary.figure.what
    return f"{summary.figure.workload}  {what if len(what) < 60 else what[:57] + '...'}"
