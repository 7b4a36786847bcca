"""Any text on one line of a terminal: nothing in it drives the terminal, and its width is counted in cells."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from valkyr.graph.parts import ABSENT

ELLIPSIS = "…"


def one_line(text: str) -> str:
    """The text with line breaks as ⏎ and whatever is not printable escaped."""
    if text.isprintable():
        return text
    lines = " ⏎ ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in lines)


def cells(text: str) -> int:
    """How many columns a printable text takes: two for wide scripts, none for marks that combine."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(char) for char in text)


def cut(text: str, width: int) -> str:
    """At most `width` columns of a printable text, with an ellipsis where it was longer."""
    if len(text) * 2 <= width or cells(text) <= width:
        return text
    taken = 0
    for index, char in enumerate(text):
        taken += _cells_of(char)
        if taken > width - 1:
            return text[:index] + ELLIPSIS
    return text


def value_text(value: Any) -> str:
    """A JSON value on one line; `(none)` for none."""
    if value is ABSENT:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """As JSON escapes it."""
    return json.dumps(char)[1:-1]


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
