"""Many seeds in chunks, on several processes: how far it has come, what has happened, the first seed that fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.simulator.failure import Failure, run_seeds

CHUNK = 250
SAID_EVERY = 10.0
"""Seconds between lines of progress."""

Result = Counter[str] | Failure


def run_campaign(first: int, seeds: int, *, jobs: int) -> int:
    """The exit code. What is done is told by seeds in order, so that an interrupted campaign goes on from there."""
    began = said = time.monotonic()
    total: Counter[str] = Counter()
    done_to = first
    for done_to, result in _in_order(first, seeds, jobs):
        if isinstance(result, Failure):
            print(result.explain(), flush=True)
            return 1
        total.update(result)
        now = time.monotonic()
        if now - said >= SAID_EVERY:
            said = now
            rate = (done_to - first) / (now - began)
            left = (first + seeds - done_to) / rate
            print(
                f"{done_to - first:,} of {seeds:,} schedules, {rate:.0f}/s, {left / 60:.0f} min left; "
                f"{total['attempts']:,} attempts, {total['crashes']:,} crashes, "
                f"{total['quarantines']:,} quarantines; goes on with --first {done_to}",
                flush=True,
            )
    minutes = (time.monotonic() - began) / 60
    print(f"seeds {first} to {done_to - 1}: every invariant held, in {minutes:.1f} min. What happened:")
    print_counts(total)
    return 0


def print_counts(counts: Counter[str]) -> None:
    for name, number in sorted(counts.items()):
        print(f"{number:14,}  {name}")


def _in_order(first: int, seeds: int, jobs: int) -> Iterator[tuple[int, Result]]:
    """Results of chunks by seed, each with the seed after it; no more are under way than are needed."""
    starts = list(range(first, first + seeds, CHUNK))
    results: dict[int, Result] = {}
    running: dict[Future[Result], int] = {}
    told = asked = 0
    with ProcessPoolExecutor(jobs) as pool:
        while told < len(starts):
            while asked < len(starts) and len(running) < jobs + 1:
                start = starts[asked]
                running[pool.submit(run_seeds, start, min(CHUNK, first + seeds - start))] = start
                asked += 1
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                results[running.pop(future)] = future.result()
            while told < len(starts) and starts[told] in results:
                start = starts[told]
                told += 1
                yield min(start + CHUNK, first + seeds), results.pop(start)
