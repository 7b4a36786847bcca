"""What every contender answers: `python driver.py --workload W1 --size N --postgres URL` prints one JSON line, a Line.

    W1  `count` single-node executions took `seconds`, from the first start to the last result known to the client
    W2  `latencies_ms`: one single-node execution at a time, start to result known; `count` of them
    W3  `count` chains of ten, many at once, took `seconds`; `latencies_ms`: one chain at a time
    W4  `latencies_ms`: 1 -> 1,000 -> 1, one at a time, start to result known; `count` of them
    W5  a backlog of `count` single-node executions was drained in `seconds`, from the end of the first of them until
        the client knew that all had ended

All warm up alike before a clock starts: by `warm_up` executions or chains where many run at once, by WARM_CALLS in W2,
by WARM_CHAINS before chains one at a time, by WARM_FANS in W4; not at all in W5, whose workers begin with the backlog.

`postgres` is the URL of an empty database that the driver may use as it likes. Every output is checked, present and
right, before a line is printed: `checked` is true, or the driver exits with another code than 0. What the line is not
comparable in stands in `note`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

WORKLOADS = ("W1", "W2", "W3", "W4", "W5")
WARM_CALLS, WARM_CHAINS, WARM_FANS = 20, 5, 1


def warm_up(size: int) -> int:
    """How many executions, or chains, go before `size` of them, many at once, are timed."""
    return max(1, size // 10)


class BadLine(ValueError):
    """A contender printed something else than its line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement of one contender. `seconds` is 0 and `latencies_ms` None where the workload has none."""

    workload: str
    seconds: float
    count: int
    checked: bool
    latencies_ms: Sequence[float] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Executions per second; 0 where none was measured."""
        return self.count / self.seconds if self.seconds else 0.0

    def text(self) -> str:
        """The line as it is printed."""
        return json.dumps(asdict(self))


def parse_line(text: str) -> Line:
    """The last line of what a contender printed. BadLine where that is none, or where the outputs were not checked."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        line = Line(**json.loads(lines[-1]))
    except (IndexError, TypeError, ValueError) as error:
        raise BadLine(f"no line of a contender: {lines[-1][:200] if lines else 'nothing was printed'}") from error
    if line.workload not in WORKLOADS or line.checked is not True:
        raise BadLine(f"outputs of {line.workload!r} were not checked, or there is no such workload")
    return line


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """`workload`, `size` and `postgres` of a driver's command line."""
    parser = argparse.ArgumentParser(description="one contender, one workload, one line")
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--size", type=int, required=True, help="executions; for W2 and W4, how many times")
    parser.add_argument("--postgres", required=True, help="URL of an empty database")
    return parser.parse_args(arguments)
