"""Draws a record as SVG, by `python -m benchmarks.plots RECORD FOLDER` in an environment that has matplotlib."""
