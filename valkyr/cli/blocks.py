"""What stands below a label: JSON and stack traces, as letters and runs show them."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from valkyr.cli.printing import Printer, joined

LABEL = 10
STACK_LINES = 15


def print_fact(printer: Printer, label: str, *said: str | Text) -> None:
    """One line: a label, and what there is to say."""
    printer.line(Text(label.ljust(LABEL), "bold"), *said)


def print_json(printer: Printer, label: str, value: Any) -> None:
    """A value as indented JSON; `none` for None."""
    printer.line(Text(label, "bold"), "" if value is not None else "  none")
    if value is not None:
        for line in json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines():
            printer.line(f"  {line}")


def print_stack_trace(printer: Printer, stack_trace: str, *, limit: int = STACK_LINES) -> None:
    """Its last lines, dimmed; nothing where there is none."""
    lines = stack_trace.rstrip().splitlines()
    if len(lines) > limit:
        printer.line(f"       ... {len(lines) - limit} lines more with --json")
    for line in lines[-limit:]:
        printer.line(Text("       "), Text.assemble((joined(line).plain, "dim")))
