"""`python -m benchmarks.publish RECORD.json`: the record, its plots and its tables become those of docs/performance.

No figure is typed by hand: what stands between the marks in README.md is written here, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.environments import environment
from benchmarks.errors import BenchError
from benchmarks.figures import Measured, summarise
from benchmarks.record import Record, read_record
from benchmarks.sizes import FULL
from benchmarks.table import COST_HEADINGS, HEADINGS, costs, doubts, markdown, rows, verdict
from services.local.home import PROJECT

FOLDER = PROJECT / "docs" / "performance"
RECORD, PEERS = "figures.json", "peers.json"
LARGEST = 200 * 1024
WIDTH = 125
PICTURES = {"W2": "latency", "W5": "backlog", "W9": "full-tables"}
BEGIN, END = "<!-- figures: written by benchmarks.publish -->", "<!-- end of figures -->"
REQUIREMENTS = Path(__file__).parent / "plots" / "requirements.txt"


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when the record, the page or the environment for the plots is not there."""
    try:
        publish(Path(arguments[0]), FOLDER)
    except IndexError:
        print("name the record: python -m benchmarks.publish FILE", file=sys.stderr)
        return 2
    except (OSError, ValueError, BenchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def publish(source: Path, folder: Path) -> None:
    """OSError, ValueError for what is no record or no page, BenchError where plots cannot be drawn."""
    record = read_record(source)
    if record.settings["sizes"] != asdict(FULL):
        raise ValueError(
            f"{source} was measured with other sizes than the full ones: they say nothing about the budgets"
        )
    page = folder / "README.md"
    text = replaced(page.read_text(), figures(record))
    published(record).write(folder / RECORD)
    if (folder / RECORD).stat().st_size > LARGEST:
        raise ValueError(f"{folder / RECORD} is over {LARGEST // 1024} KiB; measure fewer rounds")
    _draw("record", folder / RECORD)
    if (folder / PEERS).exists():
        _draw("peers", folder / PEERS)
        text = replaced(text, f"{figures(record)}\n\n![Valkyr beside its peers](peers.svg)")
    page.write_text(text)


def published(record: Record) -> Record:
    """Without what PostgreSQL was asked, which is for whoever makes it faster, and large."""

    def shortened(measured: Measured) -> Measured:
        return replace(measured, detail={name: each for name, each in measured.detail.items() if name != "statements"})

    rounds = [{name: shortened(measured) for name, measured in round_.items()} for round_ in record.rounds]
    return replace(record, rounds=rounds)


def _draw(kind: str, source: Path) -> None:
    """Beside the figures themselves."""
    command = [str(environment("plots", REQUIREMENTS)), "-m", "benchmarks.plots", kind, str(source), str(source.parent)]
    drawn = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if drawn.returncode != 0:
        raise BenchError(f"the plots could not be drawn: {drawn.stderr.strip()[-500:]}")


def figures(record: Record) -> str:
    """All that is said of a record, as Markdown."""
    summaries = summarise(record.figures())
    pictures = [f"![{workload}]({name}.svg)" for workload, name in PICTURES.items() if record.of(workload)]
    parts = [
        origin(record, RECORD),
        markdown(HEADINGS, rows(summaries)),
        textwrap.fill(verdict(record), WIDTH),
        *(["\n".join(f"- {line}" for line in doubtful)] if (doubtful := doubts(record)) else []),
        "![How far from its budget each figure is](budgets.svg)",
        "CPU time per run, which tells where time goes and depends less on who else uses the machine:",
        markdown(COST_HEADINGS, costs(record.rounds)),
        "![CPU time per run](cpu.svg)",
    ]
    return "\n\n".join(parts + pictures)


def origin(record: Record, name: str) -> str:
    """Where the figures come from; `name` is that of the file beside the page that has them all."""
    machine, versions, postgres = record.machine, record.versions, record.settings["postgres"]
    sentences = (
        f"Measured on {record.began[:10]} at commit {versions['commit']}, {len(record.rounds)} rounds.",
        f"Machine: {machine['cores']} cores of {machine['cpu']}, {machine['memory_mib'] // 1024} GiB,",
        f"Linux {machine['kernel']}, {machine['filesystem']}; 8 KiB are durable after {machine['fsync_us']:.0f} us.",
        f"PostgreSQL {postgres['server_version']}, fsync {postgres['fsync']},",
        f"synchronous_commit {postgres['synchronous_commit']};",
        f"Python {versions['python']}, grpcio {versions['grpcio']}, asyncpg {versions['asyncpg']}.",
        f"Raw figures: [{name}]({name}).",
    )
    return textwrap.fill(" ".join(sentences), WIDTH)


def replaced(page: str, text: str) -> str:
    """The page with `text` between its marks. ValueError where a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} with {END} after it")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
