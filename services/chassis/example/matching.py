"""An example and a matcher -> one predicate. Pure; every problem is collected by its path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.chassis.example.coercion import coerce, coerce_text, nearest
from services.chassis.example.predicates import (
    EVERYTHING,
    Absent,
    All,
    AnyOf,
    At,
    Blank,
    Contains,
    Equals,
    Matches,
    Nothing,
    Predicate,
    Some,
    StringMode,
)
from services.chassis.example.resource import Column, Document, Field, Group, Kind, Labels, Many, Unsearchable
from valkyr.graph.fields import Problems, read_json, shown

MAX_VALUES = 200
MAX_ITEMS = 16
"""Of lists of objects in an example, all together: each is a subquery to be planned."""
_NAMES_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Matcher:
    """How an example is matched. `ignored`: resolved paths, whatever stands there or below.

    With `match_any` one of the values given is enough, wherever it stands; without, all of them have to match.
    """

    mode: StringMode = StringMode.EXACT
    ignore_case: bool = False
    match_any: bool = False
    ignored: frozenset[tuple[str, ...]] = frozenset()


def predicate_of(example: Any, fields: Mapping[str, Field], matcher: Matcher, problems: Problems) -> Predicate:
    """What a row has to meet; EVERYTHING for an empty example, and wherever there are problems."""
    reading = _Reading(matcher, problems)
    parts = tuple(reading.fields_of(example, fields, "example", ()))
    if reading.visited > MAX_VALUES:
        problems.add("example", f"holds more than {MAX_VALUES} values; ask for less at once")
    return reading.combined(parts)


def ignored_path(text: str, fields: Mapping[str, Field], path: str, problems: Problems) -> tuple[str, ...]:
    """`modules.className` as the names it leads along; list positions are not told apart. A problem if it leads
    nowhere. Below labels and documents it may name any key."""
    names: list[str] = []
    known, rest = fields, text
    while rest:
        written, _, rest = rest.partition(".")
        name = known_name(written.partition("[")[0], known)
        if name is None:
            problems.add(path, f"{shown(text)} names no field{nearest(written, known)}")
            break
        names.append(name)
        match known[name]:
            case Labels() | Document():
                return (*names, rest) if rest else tuple(names)
            case Group(inner) | Many(fields=inner):
                known = inner
            case _:
                known = {}
    if not text:
        problems.add(path, "is empty; name a field")
    return tuple(names)


def known_name(name: str, fields: Mapping[str, Field]) -> str | None:
    """The field's JSON name: that itself, or, as protobuf's JSON allows, the name with underscores."""
    if name in fields:
        return name
    head, *tail = name.split("_")
    camel = head + "".join(word[:1].upper() + word[1:] for word in tail)
    return camel if tail and camel in fields else None


class _Reading:
    """One walk over an example."""

    def __init__(self, matcher: Matcher, problems: Problems) -> None:
        self.matcher = matcher
        self.problems = problems
        self.visited = 0
        self.items = 0

    def combined(self, parts: tuple[Predicate, ...]) -> Predicate:
        if len(parts) == 1:
            return parts[0]
        return AnyOf(parts) if parts and self.matcher.match_any else All(parts)

    def fields_of(
        self, example: Any, fields: Mapping[str, Field], path: str, names: tuple[str, ...]
    ) -> Iterator[Predicate]:
        """A predicate for each value of the object, those of groups among them."""
        if not isinstance(example, Mapping):
            self.problems.add(path, f"{shown(example)} is not an object")
            return
        seen: set[str] = set()
        for written, value in example.items():
            if not self._is_one_more():
                return
            name = known_name(written, fields)
            if name is None:
                self.problems.add(f"{path}.{written}", f"there is no such field{_known(written, fields)}")
            elif (*names, name) in self.matcher.ignored:
                continue
            elif name in seen:
                self.problems.add(f"{path}.{written}", f"is given twice, as {name} too")
            else:
                yield from self._field(value, fields[name], f"{path}.{written}", (*names, name))
            seen.add(name or written)

    def _field(self, value: Any, field: Field, path: str, names: tuple[str, ...]) -> Iterator[Predicate]:
        if isinstance(field, Unsearchable):
            self.problems.add(path, f"cannot be asked for: {field.instead}")
        elif value is None:
            yield _absent(field)
        elif isinstance(field, Group):
            yield from self.fields_of(value, field.fields, path, names)
        elif isinstance(field, Many):
            yield from self._rows(value, field, path, names)
        elif isinstance(field, Labels):
            yield from self._labels(value, field, path, names)
        elif isinstance(field, Document):
            yield from self._document(value, field, path, names, ())
        else:
            yield from self._column(value, field, path)

    def _column(self, value: Any, column: Column, path: str) -> Iterator[Predicate]:
        coerced = coerce(value, column, path, self.problems)
        if coerced == "" and column.blank_is_absent and self.matcher.mode is StringMode.EXACT:
            yield Absent(column)  # as it is answered
        elif coerced is not None:
            is_text = column.kind is Kind.TEXT
            yield self._text(column, coerced) if is_text else Equals(column, coerced)

    def _rows(self, value: Any, many: Many, path: str, names: tuple[str, ...]) -> Iterator[Predicate]:
        """Each object of the example has a row that it matches."""
        if not isinstance(value, list):
            self.problems.add(path, f"{shown(value)} is not a list of objects")
            return
        self.items += len(value)
        if self.items > MAX_ITEMS:
            self.problems.add(path, f"makes {self.items:,} objects of lists; an example holds at most {MAX_ITEMS}")
            return
        for i, item in enumerate(value):
            if not self._is_one_more():
                return
            inner = self.combined(tuple(self.fields_of(item, many.fields, f"{path}[{i}]", names)))
            yield Some(many, inner)

    def _labels(self, value: Any, labels: Labels, path: str, names: tuple[str, ...]) -> Iterator[Predicate]:
        if not isinstance(value, Mapping):
            self.problems.add(path, f"{shown(value)} is not an object of strings")
            return
        for key, wanted in value.items():
            place = f"{path}.{key}"
            if not self._is_one_more():
                return
            if (*names, key) in self.matcher.ignored or coerce_text(key, place, self.problems) is None:
                continue
            if wanted is None:
                yield Absent(At(labels.sql, (key,)))
                continue
            label = coerce_text(wanted, place, self.problems)
            if label is not None:
                yield self._inside(labels.sql, (key,), label)

    def _document(
        self, value: Any, document: Document, path: str, names: tuple[str, ...], within: tuple[str, ...]
    ) -> Iterator[Predicate]:
        """Objects are walked, so that strings below them are matched by the mode; lists are contained as they are.
        What is empty restricts nothing."""
        if not self._is_one_more() or (within and (*names, ".".join(within)) in self.matcher.ignored):
            return
        if isinstance(value, Mapping):
            for key, item in value.items():
                if coerce_text(key, f"{path}.{key}", self.problems) is not None:
                    yield from self._document(item, document, f"{path}.{key}", names, (*within, key))
        elif value is None:
            yield Absent(At(document.sql, within))
        elif value != []:
            yield self._inside(document.sql, within, read_json(value, path, self.problems))

    def _inside(self, sql: str, within: tuple[str, ...], value: Any) -> Predicate:
        exact = self.matcher.mode is StringMode.EXACT and not self.matcher.ignore_case
        if isinstance(value, str) and not exact:
            return self._text(At(sql, within), value)
        for key in reversed(within):
            value = {key: value}
        return Contains(sql, json.dumps(value))

    def _text(self, place: Column | At, value: str) -> Predicate:
        return Matches(place, value, self.matcher.mode, self.matcher.ignore_case)

    def _is_one_more(self) -> bool:
        """Counts a value; whether it is to be looked at."""
        self.visited += 1
        return self.visited <= MAX_VALUES


def _absent(field: Field) -> Predicate:
    """Null in an example: everything that the field is made of is absent."""
    match field:
        case Column():
            return Absent(field)
        case Labels(sql):
            return Blank(sql)
        case Document(sql):
            return Absent(At(sql, ()))
        case Many():
            return Nothing(field)
        case Group(fields):
            return All(tuple(_absent(inner) for inner in fields.values() if not isinstance(inner, Unsearchable)))
        case Unsearchable():
            return EVERYTHING


def _known(name: str, fields: Mapping[str, Field]) -> str:
    hint = nearest(name, fields)
    if hint:
        return hint
    names = list(fields)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"; there are {', '.join(names[:_NAMES_SHOWN])}{more}"
