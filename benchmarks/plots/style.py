"""How all plots look, and that the same figures give the same file, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "valkyr",
        "svg.fonttype": "none",
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
)
COLOURS = ("#2a6f97", "#e07a5f", "#81b29a", "#f2cc8f", "#6d597a", "#9a8c98", "#3d405b", "#b56576")
OURS, BUDGET, MISSED = COLOURS[0], "#444444", COLOURS[1]


@contextmanager
def drawing(path: Path, *, width: float = 7.5, height: float = 3.5) -> Iterator[Axes]:
    """One plot, written when the block is done; sizes in inches."""
    figure, axes = plt.subplots(figsize=(width, height))
    with _saved(figure, path):
        yield axes


@contextmanager
def panels(path: Path, count: int, *, rows_each: int) -> Iterator[Sequence[Axes]]:
    """So many plots in two columns, each with so many bars."""
    lines = (count + 1) // 2
    figure, axes = plt.subplots(lines, 2, figsize=(9, lines * (0.7 + 0.2 * rows_each)), squeeze=False)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_visible(False)
    with _saved(figure, path):
        yield flat[:count]


@contextmanager
def _saved(figure: Figure, path: Path) -> Iterator[None]:
    try:
        yield
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    finally:
        plt.close(figure)
