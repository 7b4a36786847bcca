"""`python -m benchmarks.plots record|peers FILE FOLDER`: writes the plots of a record or of a session with peers."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.results import read_session
from benchmarks.plots import peers, record
from benchmarks.record import read_record

if __name__ == "__main__":
    kind, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if kind == "peers":
        peers.draw(read_session(source), folder / "peers.svg")
    else:
        record.draw(read_record(source), folder)
