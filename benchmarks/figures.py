"""Every figure that is measured: what it means, its unit, its budget, and the arithmetic over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BUSY = 0.05
"""Share of the machine that others may use before figures are said to be doubtful."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`key` begins with its workload. Without a budget it is told for what it says about another."""

    key: str
    what: str
    unit: str
    budget: float | None = None
    more_is_better: bool = False

    @property
    def workload(self) -> str:
        return self.key.partition(".")[0]

    def ratio(self, value: float) -> float | None:
        """How many times better than its budget: from 1 on it is met. None without a budget."""
        if self.budget is None:
            return None
        better, worse = (value, self.budget) if self.more_is_better else (self.budget, value)
        return better / worse if worse > 0 else float("inf")


def _rate(key: str, what: str, budget: float | None = None, *, unit: str = "/s") -> Figure:
    return Figure(key, what, unit, budget, more_is_better=True)


FIGURES: Mapping[str, Figure] = {
    figure.key: figure
    for figure in (
        Figure("W0.call", "the machine: a gRPC call that does nothing, one at a time, p50", "ms"),
        Figure("W0.read", "the machine: SELECT 1, one at a time, p50", "ms"),
        Figure("W0.commit", "the machine: a row updated and committed, one at a time, p50", "ms"),
        Figure("W0.loop", "the machine: 1,000,000 turns of an empty loop in Python", "ms"),
        _rate("W1.one", "single-node executions, sustained, 1 client", 5_000),
        _rate("W1.two", "the same with 2 clients", 5_000),
        _rate("W1.noop", "the same with 1 client, NoopModule in place of a user's"),
        Figure("W2.p50", "one single-node execution at idle, start to result, p50", "ms", 4),
        Figure("W2.p99", "the same, p99", "ms", 12),
        Figure("W3.idle", "chain of ten at idle, start to result, p50", "ms", 20),
        _rate("W3.saturated", "runs in chains of ten, many at once", 10_000, unit="runs/s"),
        Figure("W4.fan", "fan-out 1 -> 1,000 -> 1 at idle, start to result, p50", "s", 0.3),
        _rate("W5.rate", "backlog drained, from the first lease to the last end", 8_000),
        _rate("W5.first", "its first tenth"),
        _rate("W5.last", "its last tenth"),
        _rate("W5.decay", "last tenth as fast as the first (within 5 %)", 0.95, unit="x"),
        Figure("W6.idle", "graph of 300 nodes, fan-in and fan-out 100, at idle, p50", "s"),
        _rate("W6.saturated", "its runs, several executions at once", unit="runs/s"),
        Figure("W7.p95", "READY to module start, p95, 250,000 runs unsettled, 2,000 ready or leased", "ms", 75),
        Figure("W7.p50", "the same, p50", "ms"),
        _rate("W7.rate", "module starts meanwhile"),
        _rate("W8.one", "single-node executions through a remote runner", 3_000),
        _rate("W8.three", "the same through three like it", 3_000),
        _rate("W9.empty", "single-node executions, sustained, tables empty"),
        Figure("W9.finished", "slower with the finished rows", "%", 15),
        Figure("W9.ready", "slower with the ready rows", "%", 15),
        Figure("W10.cpu", "idle cost of the whole stack", "% of a core", 2),
        Figure("W10.queries", "statements at idle", "/s", 3),
        Figure("W11.graph_store", "graph store at idle, resident", "MiB", 90),
        Figure("W11.executor", "executor at idle, resident", "MiB", 90),
        Figure("W11.breaker", "breaker at idle, resident", "MiB", 90),
        Figure("W11.dlq", "DLQ at idle, resident", "MiB", 90),
        Figure("W11.loaded", "executor at full load, resident, peak", "MiB", 300),
        Figure("W12.closed", "breaker asked before a lease, target closed", "us", 5),
        Figure("W12.p99", "failures that trip a target, sent, until an executor holds it back, p99", "ms", 1_000),
        Figure("W12.p50", "the same, p50", "ms"),
    )
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one workload gave in one round. `cost`: CPU microseconds per run by process and phase; `others`: the largest
    share of the machine that was used by what does not belong to it; `detail`: raw figures."""

    figures: Mapping[str, float]
    cost: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    others: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """A figure over all rounds."""

    figure: Figure
    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        return self.figure.ratio(self.median)

    @property
    def met(self) -> bool | None:
        """None without a budget."""
        return None if self.ratio is None else self.ratio >= 1


def summarise(rounds: Sequence[Mapping[str, float]], known: Mapping[str, Figure] = FIGURES) -> Sequence[Summary]:
    """Of all `known` figures that any round has, in their order."""
    found = {key: [figures[key] for figures in rounds if key in figures] for key in known}
    return [Summary(known[key], values) for key, values in found.items() if values]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed. ValueError for none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = -(-round(share * len(ordered) * 1e9) // 10**9)  # ceil, without the noise of binary fractions
    return ordered[max(0, rank - 1)]


def slowdown(before: float, after: float) -> float:
    """By how many percent the rate fell; negative where it rose."""
    return (1 - after / before) * 100
