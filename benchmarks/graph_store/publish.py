"""`python -m benchmarks.graph_store.publish RECORD.json`: the record and its tables become those of
docs/performance/graph_store.md. No figure is typed by hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.graph_store.figures import FULL, SIZES
from benchmarks.graph_store.report import tables
from benchmarks.publish import FOLDER, origin, published, replaced
from benchmarks.record import Record, read_record
from benchmarks.table import doubts, markdown

PAGE, RECORD = "graph_store.md", "graph_store.json"


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when the record or the page is not there, or the record is not a whole one."""
    try:
        publish(Path(arguments[0]), FOLDER)
    except IndexError:
        print("name the record: python -m benchmarks.graph_store.publish FILE", file=sys.stderr)
        return 2
    except (OSError, ValueError, BenchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def publish(source: Path, folder: Path) -> None:
    """OSError, or ValueError for what is no whole record or no page."""
    record = read_record(source)
    missing = [name for name in SIZES if len(record.of(name)) < len(record.rounds)]
    if record.settings["sizes"] != asdict(FULL) or missing or not record.rounds:
        raise ValueError(
            f"{source} has not every size in every round, measured in full: it says nothing of the budgets"
        )
    text = replaced((folder / PAGE).read_text(), figures(record))
    published(record).write(folder / RECORD)
    (folder / PAGE).write_text(text)


def figures(record: Record) -> str:
    """All that is said of a record, as Markdown."""
    measured, cost = tables(record, markdown)
    doubtful = "\n".join(f"- {line}" for line in doubts(record, FULL))
    parts = [origin(record, RECORD), measured, doubtful, "CPU time per call, which depends less on who else there is:"]
    return "\n\n".join(part for part in [*parts, cost] if part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
