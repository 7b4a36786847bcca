"""What goes to the terminal: results on standard output, errors and remarks on standard error.

Colours only on a terminal. What comes from a graph, a module or a server has its control characters escaped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from valkyr.cli.diff_view import differences_text, disagreements_text
from valkyr.cli.documents import error_of, placed_finding_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.graph_files import PlacedFinding
from valkyr.errors import ValkyrError
from valkyr.telemetry import escaped

STYLES = {
    "SUCCESS": "green",
    "FAILED": "red",
    "QUARANTINED": "red",
    "CANCELLED": "yellow",
    "SKIPPED": "dim",
    "PENDING": "dim",
    "LEASED": "cyan",
    "RUNNING": "cyan",
    "WAITING": "blue",
    "PARKED": "yellow",
    "PAUSED": "yellow",
    "OPEN": "red",
    "FORCED_OPEN": "red",
    "HALF_OPEN": "yellow",
    "CLOSED": "green",
    "REQUEUED": "green",
    "FIXED": "green",
    "DISCARDED": "yellow",
    "ACTIVE": "green",
    "DRAINING": "yellow",
    "LOST": "red",
    "ERROR": "red",
    "WARNING": "yellow",
}


class _Screen(Console):
    """A console that leaves a broken pipe to `main`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Printer:
    """`as_json` prints documents instead of text; each method says what it prints then."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.screen = _Screen(highlight=False, soft_wrap=True)
        self._errors = _Screen(stderr=True, highlight=False, soft_wrap=True)

    @property
    def is_live(self) -> bool:
        """Whether a moving picture can be drawn."""
        return self.screen.is_terminal and not self.screen.is_dumb_terminal and not self.as_json

    def line(self, *parts: str | Text) -> None:
        """One line of text; nothing with `as_json`."""
        if not self.as_json:
            self.screen.print(joined(*parts))

    def remark(self, text: str) -> None:
        """A line beside the result, on standard error; nothing with `as_json`."""
        if not self.as_json:
            self._errors.print(Text(clean(text)))

    def document(self, value: Any) -> None:
        """A JSON document, indented."""
        self._write(json.dumps(value, indent=2, ensure_ascii=False))

    def json_line(self, value: Any) -> None:
        """A JSON document on one line, for streams."""
        self._write(json.dumps(value, ensure_ascii=False))

    def text(self, text: str) -> None:
        """Text exactly as it is, such as a file."""
        self._write(text.removesuffix("\n"))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """Columns side by side, a line per row, nothing cut."""
        cells = [[_cell(cell) for cell in row] for row in rows]
        cells.insert(0, [Text(name, "bold") for name in columns])
        widths = [max(cell_len(cell.plain) for cell in column) for column in zip(*cells, strict=True)]
        for row in cells:
            line = Text()
            for cell, width in zip(row, widths, strict=True):
                line.append_text(cell).append(" " * (width - cell_len(cell.plain) + 2))
            line.rstrip()
            self.screen.print(line)

    def error(self, error: ValkyrError, code: ExitCode) -> None:
        """One sentence, what others have changed, and the hint; a document on standard error with `as_json`."""
        if self.as_json:
            self._errors.print(Text(json.dumps(error_of(error, int(code)), ensure_ascii=False)))
            return
        self._errors.print(joined(Text("error: ", "red"), error.message))
        _print_what_disagrees(self._errors, error)
        if error.hint and error.hint not in error.message:
            self._errors.print(joined(Text(" hint: ", "cyan"), error.hint))

    def findings(self, findings: Sequence[PlacedFinding]) -> None:
        """`file:line:column: error CODE: message`, the hint below it, as a result. Nothing with `as_json`."""
        if not self.as_json:
            _print_findings(self.screen, findings)

    def remark_lines(self, lines: Sequence[Text]) -> None:
        """Lines beside the result, on standard error; nothing with `as_json`."""
        if not self.as_json:
            for line in lines:
                self._errors.print(line)

    def remark_findings(self, findings: Sequence[PlacedFinding]) -> None:
        """The same beside the result, on standard error."""
        if not self.as_json:
            _print_findings(self._errors, findings)

    def refused(self, error: ValkyrError, code: ExitCode, findings: Sequence[PlacedFinding]) -> None:
        """An error with its findings; as JSON they stand in it."""
        if self.as_json:
            document = error_of(error, int(code))
            document["error"]["findings"] = [placed_finding_of(placed) for placed in findings]
            self._errors.print(Text(json.dumps(document, ensure_ascii=False)))
            return
        _print_findings(self._errors, findings)
        self._errors.print(joined(Text("error: ", "red"), error.message))

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def clean(text: str) -> str:
    """On one line, with nothing that drives a terminal."""
    return escaped(text)


def joined(*parts: str | Text) -> Text:
    """One line of text; plain parts are cleaned."""
    line = Text()
    for part in parts:
        line.append_text(part) if isinstance(part, Text) else line.append(clean(part))
    return line


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, STYLES.get(state, ""))


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table for a moving picture: what is too wide for the terminal is cut, so that its height is known."""
    table = Table(*columns, box=SIMPLE, show_edge=False, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    return table


def _cell(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(clean(cell))


def moment(when: datetime | None) -> str:
    """Local time to the second, "-" if there is none."""
    if when is None:
        return "-"
    try:
        local = when.astimezone()
    except OverflowError:
        local = when
    return local.strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float) -> str:
    """A duration for people: 8 ms, 1.24 s, 3 min 5 s."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.2f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def _print_what_disagrees(console: Console, error: ValkyrError) -> None:
    """What others have changed, and where that does not go together with what was sent."""
    details = error.details
    if details.differences:
        console.print(Text("what was changed meanwhile:"))
    for line in differences_text(details.differences):
        console.print(Text("  ").append_text(line))
    for line in disagreements_text(details.disagreements):
        console.print(Text("  ").append_text(line))
    shown = len(details.differences) + len(details.disagreements)
    more = int(details.metadata.get("total", 0)) - shown
    if shown and more > 0:
        console.print(Text(f"  and {more:,} more"))


def _print_findings(console: Console, findings: Sequence[PlacedFinding]) -> None:
    for placed in findings:
        console.print(_finding_line(placed))
        if placed.finding.hint:
            console.print(joined("    hint: ", placed.finding.hint))


def _finding_line(placed: PlacedFinding) -> Text:
    finding, position = placed.finding, placed.position
    severity = finding.severity.value
    where = f" {finding.path}" if position is None else f":{position.line}:{position.column}"
    return joined(
        f"{placed.source}{where}: ",
        Text(severity.lower(), STYLES[severity]),
        f" {finding.code}: {finding.message}",
    )
