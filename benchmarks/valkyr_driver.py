"""Valkyr as a contender among its peers: `python -m benchmarks.valkyr_driver --workload W1 --size N --postgres URL`.

Runs the same measurements as `python -m benchmarks`, at the size that was asked for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.contract import Line, read_arguments, warm_up
from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import Measured
from benchmarks.machine import versions
from benchmarks.session import Measure, measure_of
from benchmarks.sizes import FULL, Sizes
from benchmarks.stack import forget_settings
from benchmarks.workloads.w01_sustained import measure_one
from benchmarks.workloads.w03_chains import LENGTH
from services.local.errors import StackError
from valkyr.errors import ValkyrError

CHAIN_CALLS = 20


def sizes_for(workload: str, size: int) -> Sizes:
    """The full sizes, but for the one that counts in this workload, and its warm-up."""
    warm = warm_up(size)
    changes: Mapping[str, Sizes] = {
        "W1": replace(FULL, sustained=size, warm=warm),
        "W2": replace(FULL, calls=size),
        "W3": replace(FULL, chains=size, chain_calls=CHAIN_CALLS, warm=warm * LENGTH),
        "W4": replace(FULL, fan_calls=size),
        "W5": replace(FULL, backlog=size),
    }
    return changes[workload]


def line_of(workload: str, size: int, measured: Measured) -> Line:
    """What was measured, in the words that all contenders share."""
    rates = {"W1": "W1.one", "W3": "W3.saturated"}
    drained = measured.detail.get("drained", {})
    seconds = drained.get("seconds", 0.0)
    if workload in rates:
        runs = size * LENGTH if workload == "W3" else size
        seconds = runs / measured.figures[rates[workload]]
    return Line(
        workload,
        seconds,
        size,
        checked=True,
        latencies_ms=measured.detail.get("latencies_ms"),
        versions=versions(),
        note="the whole: four services, gRPC, traces, logs, breaker; at most 200 runs at a time",
        extra={**drained, "figures": measured.figures, "cost": measured.cost},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    forget_settings()
    measure: Measure = measure_one if chosen.workload == "W1" else measure_of(chosen.workload)
    try:
        measured = asyncio.run(measure(Database(chosen.postgres), sizes_for(chosen.workload, chosen.size)))
    except (BenchError, StackError, ValkyrError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(line_of(chosen.workload, chosen.size, measured).text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
