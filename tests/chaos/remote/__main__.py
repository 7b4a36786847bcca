"""Runners in processes of their own under full load, killed, frozen and drained: nothing lost, given twice or late.

`python -m tests.chaos.remote --minutes 10`: the campaign. Exit code 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.remote.drains import drained
from tests.chaos.remote.findings import (
    Drains,
    Load,
    Strikes,
    problems_of_drains,
    problems_of_load,
    problems_of_strikes,
    quantile,
)
from tests.chaos.remote.house import open_house
from tests.chaos.remote.load import RUNNERS, loaded
from tests.chaos.remote.strikes import struck

SHORT_LEASE, SHORT_HEARTBEAT = 4.0, 0.5
"""Of runners that are struck: else each would be waited for for two minutes."""


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _chosen(arguments)
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="valkyr-runners-") as folder:
        load, strikes, drains = asyncio.run(_run(Path(folder), chosen, tell))
    problems = [*problems_of_load(load), *problems_of_strikes(strikes), *problems_of_drains(drains)]
    print("\n".join(_summary(load, strikes, drains)))
    for problem in problems:
        print(f"  {problem}")
    if chosen.json:
        Path(chosen.json).write_bytes(
            orjson.dumps(_record(load, strikes, drains, problems), option=orjson.OPT_INDENT_2)
        )
    print(f"{len(problems)} problems, in {time.monotonic() - began:.0f} s")
    return 1 if problems else 0


def _chosen(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.chaos.remote", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of full load, the second half starved (default 10)")
    parser.add_argument("--kills", type=int, default=60, help="of runners that hold runs (default 60)")
    parser.add_argument("--drains", type=int, default=50, help="of runners that hold nothing (default 50)")
    parser.add_argument("--lease", type=float, default=10, help="seconds, under load (default 10)")
    parser.add_argument("--heartbeat", type=float, default=2, help="seconds, under load (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="decides when between two heartbeats a strike comes")
    parser.add_argument("--json", help="a file for all figures")
    return parser.parse_args(arguments)


async def _run(folder: Path, chosen: argparse.Namespace, tell: Any) -> tuple[Load, Strikes, Drains]:
    async with open_house(folder) as house:
        load = await loaded(
            house, seconds=chosen.minutes * 60, lease=chosen.lease, heartbeat=chosen.heartbeat, tell=tell
        )
        strikes = await struck(
            house, kills=chosen.kills, lease=SHORT_LEASE, heartbeat=SHORT_HEARTBEAT, seed=chosen.seed, tell=tell
        )
        return load, strikes, await drained(house, number=chosen.drains, tell=tell)


def _summary(load: Load, strikes: Strikes, drains: Drains) -> Sequence[str]:
    kept, hit = load.recorded, strikes.recorded
    after, thawed = strikes.after_kills, strikes.after_freezes
    return [
        f"load: {RUNNERS} runners, leases of {load.lease:g} s, {load.seconds:.0f} s, for {load.starved:.0f} s starved:"
        f" {load.acknowledged} executions started, {kept.succeeded} ended ({load.per_second:.0f} a second);"
        f" {kept.unreported} leases expired or were taken back, {load.fenced} were given up,"
        f" {load.lived.twice} runs were begun twice, {kept.twice} ended twice",
        f"strikes: {strikes.kills} kills and {strikes.freezes} freezes of runners with {strikes.held} leases of"
        f" {strikes.lease:g} s: {strikes.started} executions started, {hit.succeeded} ended, {hit.lost} leases lost,"
        f" {hit.unreported - strikes.held + strikes.bystanders} of them falsely, {hit.twice} runs ended twice",
        f"  taken over after kill -9: p50 {quantile(after, 0.5):.2f} s, p99 {quantile(after, 0.99):.2f} s, at most"
        f" {max(after, default=0):.2f} s; after SIGSTOP: at most {max(thawed, default=0):.2f} s",
        f"  two attempts of one run live at once for {max(load.lived.largest, strikes.lived.largest):.3f} s at most",
        f"drains: {len(drains.seconds)} idle runners: p50 {quantile(drains.seconds, 0.5):.2f} s, at most"
        f" {max(drains.seconds, default=0):.2f} s from SIGTERM to the exit",
    ]


def _record(load: Load, strikes: Strikes, drains: Drains, problems: Sequence[str]) -> dict[str, Any]:
    machine = {"cores": len(os.sched_getaffinity(0)), "python": sys.version.split()[0]}
    parts = {"load": asdict(load), "strikes": asdict(strikes), "drains": asdict(drains)}
    return {"machine": machine, **parts, "problems": list(problems)}


if __name__ == "__main__":
    sys.exit(main())
