"""A session of measuring as JSON: what was measured, on what, by which versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Measured


@dataclass(frozen=True, slots=True)
class Record:
    """`rounds`: by workload, what each round measured; `errors`: what could not be. Times are UTC, ISO 8601."""

    began: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    rounds: list[dict[str, Measured]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def figures(self) -> Sequence[Mapping[str, float]]:
        """By round, of all workloads together."""
        return [
            {key: value for measured in round_.values() for key, value in measured.figures.items()}
            for round_ in self.rounds
        ]

    def of(self, workload: str) -> Sequence[Measured]:
        """What each round has of it."""
        return [round_[workload] for round_ in self.rounds if workload in round_]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """OSError, or ValueError for what is no record."""
    try:
        content = json.loads(path.read_text())
        rounds = [{name: Measured(**each) for name, each in round_.items()} for round_ in content.pop("rounds")]
        return Record(**content, rounds=rounds)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no record of a benchmark: {error}") from error


def _rounded(value: Any) -> Any:
    """Six digits say more than any of these figures knows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
