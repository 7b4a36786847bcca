"""Draws figures as SVG, by `python -m benchmarks.plots` in an environment that has matplotlib."""
