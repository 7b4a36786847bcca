"""YAML 1.2 text -> plain values with their positions, by the core schema and nothing beyond it.

Built from the parser's events without recursion. `no`, `on` and `2026-01-01` are text, as YAML 1.2 has them. What would
silently mean something else is refused with its line: duplicate keys, merge keys, tags, `012`, several documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from valkyr.cli.located import START, LocatedDocument, Position, Unreadable, child_path

MAX_DEPTH = 200
MAX_VALUES = 2_000_000
MAX_DIGITS = 400

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+$")
_BASED = re.compile(r"0o[0-7]+$|0x[0-9a-fA-F]+$")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_TEXT_TAG = "tag:yaml.org,2002:str"


@dataclass(slots=True)
class _Open:
    """A list or object being read. `key` is the one whose value comes next."""

    value: Any
    path: str
    anchor: str | None
    first: int
    key: str | None = None
    key_positions: dict[str, Position] = field(default_factory=dict)


def read_yaml(text: str, source: str) -> LocatedDocument:
    """The one document in `text`. Unreadable with its position for anything else."""
    builder = _Builder()
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except ReaderError as error:
        where = _position_at(text, error.position)
        found = text[error.position : error.position + 1]
        raise Unreadable("SYNTAX", f"the character {found!r} is not allowed in YAML", where) from None
    except MarkedYAMLError as error:
        raise _syntax_error(error) from None
    except YAMLError as error:
        raise Unreadable("SYNTAX", " ".join(str(error).split())) from None
    except RecursionError:
        raise Unreadable("SYNTAX", "the document is nested too deep") from None
    positions = builder.positions
    return LocatedDocument(source, builder.root, lambda: positions)


class _Builder:
    def __init__(self) -> None:
        self.root: Any = None
        self.positions: dict[str, Position] = {"": START}
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[Any, int]] = {}
        self._documents = 0
        self._values = 0

    def take(self, event: Any) -> None:
        """One event of the parser."""
        position = Position(event.start_mark.line + 1, event.start_mark.column + 1)
        match event:
            case DocumentStartEvent():
                self._start_document(position)
            case MappingStartEvent() | SequenceStartEvent():
                self._refuse_tag(event, position)
                self._start(event, position)
            case MappingEndEvent() | SequenceEndEvent():
                self._end()
            case ScalarEvent():
                self._take_scalar(event, position)
            case AliasEvent():
                self._take_alias(event.anchor, position)
            case DocumentEndEvent() if not self._documents:
                raise Unreadable("SYNTAX", "the file is empty", position)

    def _start_document(self, position: Position) -> None:
        self._documents += 1
        if self._documents > 1:
            message = "the file holds more than one document"
            raise Unreadable("SYNTAX", message, position, hint="put each graph into a file of its own")

    def _start(self, event: Any, position: Position) -> None:
        if self._awaits_key():
            raise Unreadable("BAD_KEY", "a key has to be text, not a list or an object", position)
        if len(self._open) >= MAX_DEPTH:
            raise Unreadable("SYNTAX", f"the document is nested deeper than {MAX_DEPTH} levels", position)
        path = self._next_path()
        self._count(1, position)
        self.positions.setdefault(path, position)
        value: Any = {} if isinstance(event, MappingStartEvent) else []
        self._open.append(_Open(value, path, event.anchor, self._values))

    def _end(self) -> None:
        done = self._open.pop()
        if done.anchor:
            self._anchored[done.anchor] = (done.value, self._values - done.first + 1)
        self._put(done.value)

    def _take_scalar(self, event: Any, position: Position) -> None:
        if self._awaits_key():
            self._take_key(event, position)
            return
        path = self._next_path()
        self.positions.setdefault(path, position)
        value = _scalar(event, position, path)
        self._count(1, position)
        if event.anchor:
            self._anchored[event.anchor] = (value, 1)
        self._put(value)

    def _take_key(self, event: Any, position: Position) -> None:
        mapping = self._open[-1]
        if event.value == "<<" and event.style is None:
            hint = "YAML 1.2 has none; write the fields out"
            raise Unreadable("BAD_KEY", "merge keys (<<) are not supported", position, path=mapping.path, hint=hint)
        key = _scalar(event, position, mapping.path)
        if not isinstance(key, str):
            raise Unreadable("BAD_KEY", f"the key {event.value} is not text", position, hint="put it in quotes")
        earlier = mapping.key_positions.get(key)
        path = child_path(mapping.path, key)
        if earlier is not None:
            message = f"the key {key!r} stands here again; it was given on line {earlier.line}"
            raise Unreadable("DUPLICATE_KEY", message, position, path=path, hint="keep one of them")
        mapping.key_positions[key] = position
        mapping.key = key
        self.positions[path] = position

    def _take_alias(self, anchor: str, position: Position) -> None:
        if self._awaits_key():
            raise Unreadable("BAD_KEY", "a key has to be text, not an alias", position)
        if anchor not in self._anchored:
            raise Unreadable("SYNTAX", f"the alias *{anchor} names nothing that is complete before it", position)
        value, size = self._anchored[anchor]
        self._count(size, position)
        self.positions.setdefault(self._next_path(), position)
        self._put(value)

    def _put(self, value: Any) -> None:
        if not self._open:
            self.root = value
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        else:
            parent.value[parent.key] = value
            parent.key = None

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _next_path(self) -> str:
        if not self._open:
            return ""
        parent = self._open[-1]
        return child_path(parent.path, len(parent.value) if parent.key is None else parent.key)

    def _count(self, values: int, position: Position) -> None:
        """Aliases count as what they stand for, so that a small file cannot mean a huge document."""
        self._values += values
        if self._values > MAX_VALUES:
            raise Unreadable("LIMIT_EXCEEDED", f"the document holds more than {MAX_VALUES:,} values", position)

    def _refuse_tag(self, event: Any, position: Position) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise _bad_tag(event.tag, position)


def _scalar(event: Any, position: Position, path: str) -> Any:
    text: str = event.value
    if event.tag not in (None, "!", _TEXT_TAG):
        raise _bad_tag(event.tag, position)
    if event.style is not None or event.tag is not None:
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    return _number_or_text(text, position, path)


def _number_or_text(text: str, position: Position, path: str) -> Any:
    if _LEADING_ZERO.match(text):
        message = f"{text} is 8-based in YAML 1.1 and 10-based in YAML 1.2"
        hint = "put it in quotes, or leave out the leading zero"
        raise Unreadable("AMBIGUOUS_NUMBER", message, position, path=path, hint=hint)
    if len(text) > MAX_DIGITS and _FLOAT.match(text):
        raise Unreadable("LIMIT_EXCEEDED", f"a number of {len(text)} digits", position, path=path)
    if _INTEGER.match(text):
        return int(text)
    if _BASED.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if _NOT_FINITE.match(text):
        raise Unreadable("BAD_NUMBER", f"{text} is no number that JSON can hold", position, path=path)
    return text


def _bad_tag(tag: str, position: Position) -> Unreadable:
    return Unreadable("BAD_TAG", f"the tag {tag} is not allowed", position, hint="write the plain value")


def _syntax_error(error: MarkedYAMLError) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    position = START if mark is None else Position(mark.line + 1, mark.column + 1)
    what = ", ".join(" ".join(part.split()) for part in (error.context, error.problem) if part)
    hint = "indent with spaces" if "\\t" in what else ""
    return Unreadable("SYNTAX", what or "this is not YAML", position, hint=hint)


def _position_at(text: str, offset: int) -> Position:
    before = text[: max(offset, 0)]
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
