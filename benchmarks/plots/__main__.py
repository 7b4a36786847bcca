"""`python -m benchmarks.plots RECORD.json FOLDER`: writes the plots and names them."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.plots.record import draw
from benchmarks.record import read_record

if __name__ == "__main__":
    source, folder = (Path(argument) for argument in sys.argv[1:3])
    for path in draw(read_record(source), folder):
        print(path)
