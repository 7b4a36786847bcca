"""The plot of a session of `python -m benchmarks.peers`: every figure, Valkyr beside its peers."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from benchmarks.peers.contenders import CONTENDERS, OURS
from benchmarks.peers.results import FIGURES, Cell, Session, cell
from benchmarks.plots.style import BUDGET, COLOURS, panels
from benchmarks.plots.style import OURS as OUR_COLOUR
from benchmarks.table import number

THEIRS = COLOURS[5]


def draw(session: Session, path: Path) -> Path:
    """One panel for each figure; medians, whiskers for the rounds, logarithmic."""
    measured = {each.contender for each in session.results}
    names = [name for name in CONTENDERS if name in measured]
    shown = [figure for figure in FIGURES if any(cell(session, figure, name) for name in names)]
    with panels(path, len(shown), rows_each=len(names)) as axes:
        for axis, figure in zip(axes, shown, strict=True):
            for place, name in enumerate(names):
                _mark(axis, place, cell(session, figure, name), figure.unit, ours=name == OURS)
            better = "more" if figure.more_is_better else "less"
            axis.set_title(f"{figure.workload}: {figure.what} ({better} is better)", fontsize=7, loc="left")
            axis.set_yticks(range(len(names)), [CONTENDERS[name].title for name in names], fontsize=6)
            axis.invert_yaxis()
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.margins(x=0.3, y=0.1)
            axis.tick_params(axis="x", labelsize=6)
    return path


def _mark(axis: Axes, place: int, found: Cell | None, unit: str, *, ours: bool) -> None:
    """A dot for the median: a bar's length would mean nothing on this scale."""
    if found is None:
        axis.annotate("not measured", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=6)
        return
    axis.plot([found.least, found.most], [place, place], color=BUDGET, linewidth=1)
    axis.plot(found.median, place, marker="o", markersize=6, color=OUR_COLOUR if ours else THEIRS)
    axis.annotate(f"  {number(found.median, unit)}", (found.most, place), va="center", fontsize=6)
