"""`python -m benchmarks.peers [dbos celery ...]`: installs peers, measures all in turns, prints a table, keeps JSON."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.contract import WORKLOADS
from benchmarks.database import Databases
from benchmarks.errors import BenchError
from benchmarks.machine import machine, postgres_settings, versions
from benchmarks.peers.contenders import CONTENDERS, OURS, Contender
from benchmarks.peers.report import failures, for_terminal
from benchmarks.peers.results import Result, Session
from benchmarks.peers.running import DriverFailed, interpreter, run_driver
from benchmarks.peers.turns import Turn, turns
from benchmarks.session import open_postgres
from benchmarks.usage import busy_seconds
from services.local.errors import StackError

RESULTS = Path(__file__).parents[1] / "results"
LOOK = 0.5
"""Seconds before each turn in which others are seen at work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when all was measured, whatever the figures are; 1 when something could not be."""
    chosen = _parse(arguments)
    contenders = [CONTENDERS[name] for name in CONTENDERS if name == OURS or name in (chosen.peers or CONTENDERS)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: whatever ends us, all is taken down
    path = chosen.json or RESULTS / f"peers-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    try:
        for contender in contenders:
            _tell(f"environment of {contender.title} ...")
            interpreter(contender)
        session = asyncio.run(_measure(contenders, chosen, path))
    except (BenchError, StackError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(for_terminal(session))
    print(f"Raw figures: {path}")
    return 1 if failures(session) else 0


async def _measure(contenders: Sequence[Contender], chosen: argparse.Namespace, path: Path) -> Session:
    with tempfile.TemporaryDirectory(prefix="bench-peers-postgres-", dir=chosen.folder) as folder:
        async with open_postgres(Path(folder)) as cluster:
            postgres = await postgres_settings(cluster.url)
            settings = {"rounds": chosen.rounds, "quick": chosen.quick, "postgres": postgres}
            began = datetime.now(UTC).isoformat(timespec="seconds")
            session = Session(began, machine(Path(folder)), versions(), settings)
            databases = Databases(cluster)
            for turn in turns(contenders, chosen.workloads or WORKLOADS, chosen.rounds):
                size = turn.contender.size(turn.workload, quick=chosen.quick)
                _tell(f"round {turn.round} of {chosen.rounds}: {turn.workload} {turn.contender.title}, {size:,} ...")
                session.results.append(await _take(turn, size, databases, chosen.folder))
                session.write(path)
    return session


async def _take(turn: Turn, size: int, databases: Databases, folder: Path | None) -> Result:
    contender = turn.contender
    others = await _used_by_others()
    line, failure = None, ""
    async with databases.fresh() as database:
        try:
            line = await run_driver(contender, turn.workload, size, postgres=database.url, folder=folder)
        except DriverFailed as error:
            failure = str(error)
            _tell(f"  {failure}")
    return Result(turn.round, contender.name, line, turn.workload, size, error=failure, others=others)


async def _used_by_others() -> float:
    """The share of all cores that is used now, when of ours there is but an idle PostgreSQL."""
    before, began = busy_seconds(), time.monotonic()
    await asyncio.sleep(LOOK)
    return min(1.0, (busy_seconds() - before) / ((time.monotonic() - began) * (os.cpu_count() or 1)))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    peers = [name for name in CONTENDERS if name != OURS]
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"all by default: {' '.join(peers)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, help="all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where raw figures are kept")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the data of PostgreSQL, Redis and Temporal are put; default: the temporary folder",
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.peers if name not in peers]
    if unknown:
        parser.error(f"there is no peer {', '.join(unknown)}; there are {', '.join(peers)}")
    chosen.folder = chosen.folder and chosen.folder.resolve()  # drivers have another current folder
    if chosen.rounds < 1:
        parser.error("--rounds: at least 1")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
