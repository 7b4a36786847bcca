"""Bugs that the simulator must find: each is planted alone in a copy of the library, and schedules run until one fails.

`python -m tests.simulator.mutants` prints which invariant caught each, and after how many schedules; its exit code is 1
if one survives, if the code that it changes is not there any more, or if anything is found where nothing is planted.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulator.bug import Bug
from tests.simulator.planted import BUGS

ROOT = Path(__file__).parents[2]
COPIED = ("valkyr", "tests/simulator", "tests/unit/flow")
SCHEDULES = 30_000
TIME_LIMIT = 600.0
"""Seconds for one bug. What has not ended by then has not been found."""

_PROBE = """
import sys
from tests.simulator.failure import Failure, run_seeds
done = run_seeds(0, int(sys.argv[1]))
if isinstance(done, Failure):
    print(done.seed + 1, done.invariant, done.message.replace("\\n", " "), sep="\\t")
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`schedules` is how many it took; None if it was not found. `by` says what found it."""

    bug: Bug
    schedules: int | None
    by: str
    message: str = ""


NOTHING = Bug("nothing is planted", "valkyr/flow/__init__.py", "", "")


def try_bug(bug: Bug, schedules: int = SCHEDULES) -> Verdict:
    """In a folder of its own, with a process of its own."""
    with tempfile.TemporaryDirectory(prefix="valkyr-bug-") as name:
        folder = Path(name)
        for part in COPIED:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for package in ("tests", "tests/unit"):
            (folder / package / "__init__.py").touch()  # or the packages of this very tree would be found
        path = folder / bug.file
        text = path.read_text()
        if bug is not NOTHING:
            if text.count(bug.before) != 1:
                return Verdict(bug, None, f"its text stands {text.count(bug.before)} times in {bug.file}")
            path.write_text(text.replace(bug.before, bug.after))
        return _probe(bug, folder, schedules)


def _probe(bug: Bug, folder: Path, schedules: int) -> Verdict:
    command = [sys.executable, "-B", "-c", _PROBE, str(schedules)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(bug, None, "no end")
    if done.returncode:
        return Verdict(bug, None, f"the simulator broke: {done.stderr[-300:]}")
    if not done.stdout.strip():
        return Verdict(bug, None, "nothing")
    number, invariant, message = done.stdout.rstrip("\n").split("\t", 2)
    return Verdict(bug, int(number), invariant, message)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these bugs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--schedules", type=int, default=SCHEDULES)
    parser.add_argument("--verbose", action="store_true", help="what was said of each")
    arguments = parser.parse_args()
    chosen = [bug for bug in BUGS if not arguments.names or bug.name in arguments.names]
    control = try_bug(NOTHING, arguments.schedules)
    if control.by != "nothing":
        print(f"something is wrong where nothing is planted: {control.by}, {control.message}")
        return 1
    print(f"{'bug':50} {'caught by':12} after schedules")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        survived = 0
        for verdict in pool.map(lambda bug: try_bug(bug, arguments.schedules), chosen):
            survived += verdict.schedules is None
            count = "SURVIVED" if verdict.schedules is None else f"{verdict.schedules:8,}"
            print(f"{verdict.bug.name:50} {verdict.by:12} {count}", flush=True)
            if arguments.verbose:
                print(f"    {verdict.message}")
    print(f"{len(chosen) - survived} of {len(chosen)} bugs caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
