"""What a session of turns has measured, and the figures that come of it: medians over rounds, ratios to Valkyr."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contract import Line
from benchmarks.peers.contenders import OURS


@dataclass(frozen=True, slots=True)
class Result:
    """One turn: what the driver answered, or why it has not; `others`, the share of the machine that was used just
    before, while none of ours had anything to do."""

    round: int
    contender: str
    line: Line | None
    workload: str
    size: int
    error: str = ""
    others: float = 0.0


@dataclass(frozen=True, slots=True)
class Session:
    """All turns, on what machine, by which versions of ours; those of peers stand in their lines."""

    began: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    results: list[Result] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As JSON, a line for each turn."""
        content = asdict(self)
        results = ",\n".join(f"  {json.dumps(_rounded(each))}" for each in content.pop("results"))
        head = json.dumps(content, indent=1).removesuffix("\n}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head},\n "results": [\n{results}\n ]\n}}\n')


def read_session(path: Path) -> Session:
    """OSError, or ValueError for what is no session."""
    try:
        content = json.loads(path.read_text())
        results = [
            Result(**{**each, "line": Line(**each["line"]) if each["line"] else None})
            for each in content.pop("results")
        ]
        return Session(**content, results=results)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no session of peers: {error}") from error


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a line; None where the line has none."""

    workload: str
    what: str
    unit: str
    value: Callable[[Line], float | None]
    more_is_better: bool = False


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: with a hundred values, p99 is the second largest but one at most."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _latency(share: float, *, scale: float = 1.0) -> Callable[[Line], float | None]:
    def value(line: Line) -> float | None:
        return percentile(line.latencies_ms, share) * scale if line.latencies_ms else None

    return value


def _rate(line: Line) -> float | None:
    return line.rate or None


def _tenth(name: str) -> Callable[[Line], float | None]:
    def value(line: Line) -> float | None:
        found = line.extra.get(name)
        return float(found) if found else None

    return value


FIGURES: Sequence[Figure] = (
    Figure("W1", "single-node executions, sustained", "/s", _rate, more_is_better=True),
    Figure("W2", "one at idle, start to result, p50", "ms", _latency(0.5)),
    Figure("W2", "the same, p99", "ms", _latency(0.99)),
    Figure("W3", "chain of ten at idle, p50", "ms", _latency(0.5)),
    Figure("W3", "chains of ten, saturated", "chains/s", _rate, more_is_better=True),
    Figure("W4", "1 -> 1,000 -> 1 at idle, p50", "s", _latency(0.5, scale=0.001)),
    Figure("W5", "backlog drained", "/s", _rate, more_is_better=True),
    Figure("W5", "its first tenth", "/s", _tenth("first_tenth"), more_is_better=True),
    Figure("W5", "its last tenth", "/s", _tenth("last_tenth"), more_is_better=True),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A contender's figure: the median of its rounds, and how many times better ours is (below 1: the peer is)."""

    median: float
    least: float
    most: float
    rounds: int
    ratio: float | None


def cell(session: Session, figure: Figure, contender: str) -> Cell | None:
    """None where nothing was measured."""
    values = values_of(session, figure, contender)
    if not values:
        return None
    median = statistics.median(values)
    ours = values_of(session, figure, OURS) if contender != OURS else []
    ratio = None
    if ours:
        ratio = statistics.median(ours) / median if figure.more_is_better else median / statistics.median(ours)
    return Cell(median, min(values), max(values), len(values), ratio)


def values_of(session: Session, figure: Figure, contender: str) -> list[float]:
    """One for each round that has it."""
    lines = [each.line for each in session.results if each.contender == contender and each.workload == figure.workload]
    values = [figure.value(line) for line in lines if line is not None]
    return [value for value in values if value is not None]


def _rounded(value: Any) -> Any:
    """Five digits say more than any of these figures knows."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
