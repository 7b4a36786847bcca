"""`python -m benchmarks.peers.publish SESSION.json`: the session and its tables become those of docs/performance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.report import for_page
from benchmarks.peers.results import read_session
from benchmarks.publish import FOLDER, LARGEST, replaced

SESSION, PAGE = "peers.json", "peers.md"


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when the session or the page is not there."""
    try:
        publish(Path(arguments[0]), FOLDER)
    except IndexError:
        print("name the session: python -m benchmarks.peers.publish FILE", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def publish(source: Path, folder: Path) -> None:
    """OSError; ValueError for what is no session or no page, or shows no more than that everything works."""
    session = read_session(source)
    if session.settings["quick"]:
        raise ValueError(f"{source} was measured with small sizes: its figures say nothing")
    if source.stat().st_size > LARGEST:
        raise ValueError(f"{source} is over {LARGEST // 1024} KiB; measure fewer rounds")
    page = folder / PAGE
    text = replaced(page.read_text(), for_page(session))
    (folder / SESSION).write_text(source.read_text())
    page.write_text(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
