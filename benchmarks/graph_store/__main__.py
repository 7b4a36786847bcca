"""`python -m benchmarks.graph_store [G1 ...]`: measures, prints a table against the budgets, keeps the raw figures."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.__main__ import ATTEMPTS
from benchmarks.errors import BenchError
from benchmarks.graph_store.figures import FULL, QUICK, QUICK_SIZES, SIZES
from benchmarks.graph_store.measuring import measure_of
from benchmarks.graph_store.report import report
from benchmarks.record import Record
from benchmarks.session import measure_all
from benchmarks.stack import forget_settings
from services.local.errors import StackError
from valkyr.errors import ValkyrError


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
    return 1 if record.errors else 0


def _measure(chosen: argparse.Namespace) -> Record:
    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def keep(record: Record) -> None:
        if chosen.json:
            record.write(chosen.json)

    with tempfile.TemporaryDirectory(prefix="valkyr-bench-", dir=chosen.folder) as folder:
        measuring = measure_all(
            chosen.workloads or list(QUICK_SIZES if chosen.quick else SIZES),
            Path(folder),
            rounds=chosen.rounds,
            sizes=QUICK if chosen.quick else FULL,
            attempts=1 if chosen.quick else ATTEMPTS,
            tell=tell,
            keep=keep,
            find=measure_of,
        )
        return asyncio.run(measuring)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.graph_store", description=__doc__)
    sizes = ", ".join(f"{name} {nodes:,} nodes" for name, nodes in SIZES.items())
    parser.add_argument("workloads", nargs="*", metavar="G1", choices=[*SIZES, []], help=f"all by default: {sizes}")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 100), metavar="N")
    parser.add_argument("--quick", action="store_true", help="few repeats: shows that it works, the figures say little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="raw figures are written there")
    parser.add_argument("--folder", type=Path, help="where PostgreSQL's data are put; default: the temporary folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
