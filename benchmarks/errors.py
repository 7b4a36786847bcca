"""What stops the benchmarks."""

from __future__ import annotations


class BenchError(Exception):
    """No figure can be had; the text says why."""
