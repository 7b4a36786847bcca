"""JSON text -> plain values; the positions are looked up in a second pass, and only if somebody asks for them."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from valkyr.cli.located import LocatedDocument, Position, Unreadable, child_path

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)


def read_json(text: str, source: str) -> LocatedDocument:
    """The document in `text`. Unreadable with its position for anything that is not JSON."""
    repeated: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(members)
        if len(value) != len(members):
            repeated.append("")
        return value

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Unreadable("SYNTAX", f"this is not JSON: {error.msg}", Position(error.lineno, error.colno)) from None
    except RecursionError:
        raise Unreadable("SYNTAX", "the document is nested too deep") from None
    except ValueError as error:
        raise Unreadable("BAD_NUMBER", str(error)) from None
    if repeated:
        raise _duplicate_key(text)
    return LocatedDocument(source, value, lambda: {path: place for path, place, _ in _places(text)})


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that JSON can hold")


def _duplicate_key(text: str) -> Unreadable:
    seen: dict[str, Position] = {}
    for path, position, is_key in _places(text):
        if is_key and path in seen:
            message = f"the key {path!r} stands here again; it was given on line {seen[path].line}"
            return Unreadable("DUPLICATE_KEY", message, position, path=path, hint="keep one of them")
        if is_key:
            seen[path] = position
    return Unreadable("DUPLICATE_KEY", "a key is given twice")


@dataclass(slots=True)
class _Open:
    """An object or a list being read; `key` is the member's whose value comes next."""

    path: str
    is_object: bool
    count: int = 0
    key: str | None = None

    def next_path(self) -> str:
        return child_path(self.path, self.count if self.key is None else self.key)


def _places(text: str) -> Iterator[tuple[str, Position, bool]]:
    """Path and position of every key and every value of valid JSON; True for keys."""
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
    open_: list[_Open] = []
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if piece == ":":
            continue
        if piece in ",}]":
            _leave(open_, piece)
            continue
        line = bisect_right(line_starts, match.start())
        position = Position(line, match.start() - line_starts[line - 1] + 1)
        parent = open_[-1] if open_ else None
        if parent is not None and parent.is_object and parent.key is None:
            parent.key = json.loads(piece)
            yield parent.next_path(), position, True
            continue
        path = parent.next_path() if parent else ""
        if parent is None or not parent.is_object:
            yield path, position, False
        if piece in "{[":
            open_.append(_Open(path, piece == "{"))


def _leave(open_: list[_Open], piece: str) -> None:
    if piece != ",":
        open_.pop()
        return
    open_[-1].count += 1
    open_[-1].key = None
