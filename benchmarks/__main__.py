"""`python -m benchmarks [W1 W3 ...]`: measures, prints a table against the budgets, and keeps the raw figures."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.figures import summarise
from benchmarks.record import Record
from benchmarks.session import WORKLOADS, measure_all
from benchmarks.sizes import FULL, QUICK
from benchmarks.stack import forget_settings
from benchmarks.table import COST_HEADINGS, HEADINGS, costs, doubts, rows, terminal
from services.local.errors import StackError
from valkyr.errors import ValkyrError

ATTEMPTS = 3
STATEMENT = ("ms", "calls", "rows", "query")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when all was measured, whatever the figures are; 1 when something could not be measured."""
    chosen = _parse(arguments)
    forget_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: stops what it has started
    try:
        record = _measure(chosen)
    except (BenchError, StackError, ValkyrError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report(record))
    if chosen.statements:
        print(f"\n{statements(record)}")
    return 1 if record.errors else 0


def _measure(chosen: argparse.Namespace) -> Record:
    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def keep(record: Record) -> None:
        if chosen.json:
            record.write(chosen.json)

    workloads, sizes = chosen.workloads or list(WORKLOADS), QUICK if chosen.quick else FULL
    with tempfile.TemporaryDirectory(prefix="valkyr-bench-", dir=chosen.folder) as folder:
        measuring = measure_all(
            workloads,
            Path(folder),
            rounds=chosen.rounds,
            sizes=sizes,
            attempts=1 if chosen.quick else ATTEMPTS,
            tell=tell,
            keep=keep,
        )
        return asyncio.run(measuring)


def report(record: Record) -> str:
    """The tables, and what makes them doubtful."""
    parts = [
        terminal(HEADINGS, rows(summarise(record.figures()))),
        terminal(COST_HEADINGS, costs(record.rounds)),
    ]
    doubtful = doubts(record)
    return "\n\n".join([*parts, "\n".join(doubtful)] if doubtful else parts)


def statements(record: Record) -> str:
    """What PostgreSQL was asked in the last round, warming up included."""
    cells = [
        (workload, *(str(each[name]) for name in STATEMENT))
        for workload, measured in record.rounds[-1].items()
        for each in measured.detail["statements"]
    ]
    return terminal(("workload", *STATEMENT), cells)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="W1", help=f"all by default: {' '.join(WORKLOADS)}")
    parser.add_argument("--rounds", type=_positive, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that it works, the figures say nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="raw figures are written there")
    parser.add_argument("--statements", action="store_true", help="also those that PostgreSQL spent most time on")
    parser.add_argument("--folder", type=Path, help="where PostgreSQL's data are put; default: the temporary folder")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    return chosen


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
