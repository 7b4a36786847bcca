"""The sum of several runs of pytest, as one closing line: `python -m tests.total RESULTS=EXIT_CODE...`, where RESULTS
is the file that --junitxml named. Exit code 1 if anything failed, if a run broke off, or if one had no tests.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree


def main(runs: Sequence[str]) -> int:
    """Prints the line; the exit code."""
    total: Counter[str] = Counter()
    broken, seconds = [], 0.0
    for run in runs:
        file, _, code = run.rpartition("=")
        try:
            suite = ElementTree.fromstring(Path(file).read_bytes()).find("testsuite")
        except (OSError, ElementTree.ParseError):
            suite = None
        if suite is None or code not in ("0", "1"):
            broken.append(f"the {Path(file).name} run broke off (exit code {code})")
        if suite is None:
            continue
        counts = {kind: int(suite.get(kind, "0")) for kind in ("tests", "failures", "errors", "skipped")}
        total += Counter(
            failed=counts["failures"],
            passed=counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"],
            skipped=counts["skipped"],
            errors=counts["errors"],
        )
        seconds += float(suite.get("time", "0"))
    said = [f"{total[kind]} {kind}" for kind in ("failed", "passed", "skipped", "errors") if total[kind]]
    sys.stdout.write(f"{', '.join([*said, *broken])} in {seconds:.2f}s\n")
    return 0 if total["passed"] and not (total["failed"] or total["errors"] or broken) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
