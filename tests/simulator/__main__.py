"""`python -m tests.simulator`: one seed with its trace, or a campaign over many."""

from __future__ import annotations

import argparse
import sys

from tests.simulator.campaign import print_counts, run_campaign
from tests.simulator.failure import Failure, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, help="one schedule")
    parser.add_argument("--trace", action="store_true", help="tell all that happens in it")
    parser.add_argument("--seeds", type=int, help="a campaign of so many schedules")
    parser.add_argument("--first", type=int, default=1, help="the first seed of the campaign")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _run_one(arguments.seed, trace=arguments.trace)
    if arguments.seeds is None:
        parser.error("say --seed or --seeds")
    return run_campaign(arguments.first, arguments.seeds, jobs=arguments.jobs)


def _run_one(seed: int, *, trace: bool) -> int:
    done = run_seed(seed, print if trace else None)
    if isinstance(done, Failure):
        print(f"{done.message}" if trace else done.explain())
        return 1
    print_counts(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
