"""Predicates, order and place -> SQL text with numbered parameters. No value of a caller ever stands in the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.chassis.example.ordering import Term
from services.chassis.example.predicates import (
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
    Within,
)
from services.chassis.example.resource import Column, Kind

_TYPES = {
    Kind.TEXT: "text",
    Kind.INTEGER: "bigint",
    Kind.LONG: "bigint",
    Kind.NUMBER: "float8",
    Kind.BOOLEAN: "boolean",
    Kind.TIME: "timestamptz",
    Kind.DURATION: "interval",
    Kind.UUID: "uuid",
    Kind.ENUM: "text",
}
_WILDCARDS = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


@dataclass(slots=True)
class Parameters:
    """The values of `$1`, `$2`, ...; each use is one more."""

    values: list[Any] = field(default_factory=list)

    def add(self, value: Any, type_name: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{type_name}"


def condition(predicate: Predicate, parameters: Parameters) -> str:
    """A boolean expression; in parentheses where it needs them."""
    match predicate:
        case All(parts) | AnyOf(parts):
            return _joined(parts, " OR " if isinstance(predicate, AnyOf) else " AND ", parameters)
        case Equals(column, value):
            return _equals(column, value, parameters)
        case Matches():
            return _matches(predicate, parameters)
        case Absent(place):
            return _absent(place, parameters)
        case Contains(sql, document):
            return f"{sql} @> {parameters.add(document, 'jsonb')}"
        case Blank(sql):
            return f"({sql} IS NULL OR {sql} = '{{}}'::jsonb)"
        case Some(many, inner):
            return f"EXISTS (SELECT FROM {many.rows} WHERE {many.on} AND {condition(inner, parameters)})"
        case Nothing(many):
            return f"NOT EXISTS (SELECT FROM {many.rows} WHERE {many.on})"
        case Within(column, start, end):
            bounds = ((">=", start), ("<", end))
            told = [f"{column.sql} {sign} {parameters.add(at, 'timestamptz')}" for sign, at in bounds if at is not None]
            return f"({' AND '.join(told)})"


def order(terms: Sequence[Term]) -> str:
    """What stands behind ORDER BY. Nulls stay where PostgreSQL and its indexes have them."""
    return ", ".join(f"{term.column.sql}{' DESC' if term.descending else ''}" for term in terms)


def after(terms: Sequence[Term], place: Sequence[Any], parameters: Parameters) -> list[str]:
    """The rows after `place`, which has a value for each term: one condition, or two that follow each other and exclude
    each other. Each leads along an index to where it begins, which their OR would not."""
    first, at = terms[0], place[0]
    if not first.column.nullable or (first.descending and at is not None) or (at is None and not first.descending):
        return [_after(terms, place, parameters)]
    if at is None:
        return [_after_same(terms, place, parameters), f"{first.column.sql} IS NOT NULL"]
    return [
        f"{_bound(first, at, parameters)}({_beyond_value(first, at, parameters)}"
        f" OR ({_after_same(terms, place, parameters)}))",
        f"{first.column.sql} IS NULL",
    ]


def _after_same(terms: Sequence[Term], place: Sequence[Any], parameters: Parameters) -> str:
    """Among those that are the same in the first term."""
    return f"{_same(terms[0], place[0], parameters)} AND {_after(terms[1:], place[1:], parameters)}"


def _after(terms: Sequence[Term], place: Sequence[Any], parameters: Parameters) -> str:
    if len({term.descending for term in terms}) == 1 and not any(term.column.nullable for term in terms):
        names = ", ".join(term.column.sql for term in terms)
        values = ", ".join(_value(term, value, parameters) for term, value in zip(terms, place, strict=True))
        return f"({names}) {_sign(terms[0])} ({values})"
    alternatives = []
    nulls_last = terms[0].column.nullable and not terms[0].descending
    bound = "" if nulls_last else _bound(terms[0], place[0], parameters)
    for i, (term, value) in enumerate(zip(terms, place, strict=True)):
        if value is None and not term.descending:
            continue  # nothing is larger than what is absent
        same = [_same(before, at, parameters) for before, at in zip(terms[:i], place[:i], strict=True)]
        alternatives.append(" AND ".join([*same, _beyond(term, value, parameters)]))
    return f"{bound}({' OR '.join(alternatives) or 'false'})"


def _joined(parts: Sequence[Predicate], word: str, parameters: Parameters) -> str:
    told = [condition(part, parameters) for part in parts]
    if len(told) == 1:
        return told[0]
    return f"({word.join(told)})" if told else "true"


def _equals(column: Column, value: Any, parameters: Parameters) -> str:
    told = f"{column.sql} = {parameters.add(value, _TYPES[column.kind])}"
    if not column.stored:
        return told
    names = column.stored_as.get(value, (value,))
    if len(names) == 1:
        return f"({column.stored} = {parameters.add(names[0], 'text')} AND {told})"
    return f"({column.stored} = ANY({parameters.add(list(names), 'text[]')}) AND {told})"


def _matches(predicate: Matches, parameters: Parameters) -> str:
    fold: Callable[[str], str] = (lambda sql: f"lower({sql})") if predicate.ignore_case else (lambda sql: sql)
    place = fold(_operand(predicate.place, parameters))
    escaped = predicate.value.translate(_WILDCARDS)
    match predicate.mode:
        case StringMode.EXACT:
            return f"{place} = {fold(parameters.add(predicate.value, 'text'))}"
        case StringMode.STARTS_WITH:
            return f"{place} ^@ {fold(parameters.add(predicate.value, 'text'))}"
        case StringMode.ENDS_WITH:
            return f"{place} LIKE {fold(parameters.add(f'%{escaped}', 'text'))}"
        case StringMode.CONTAINS:
            return f"{place} LIKE {fold(parameters.add(f'%{escaped}%', 'text'))}"


def _absent(place: Column | At, parameters: Parameters) -> str:
    operand = _operand(place, parameters)
    if isinstance(place, Column) and place.blank_is_absent:
        return f"({operand} IS NULL OR {operand} = '')" if place.nullable else f"{operand} = ''"
    return f"{operand} IS NULL"


def _operand(place: Column | At, parameters: Parameters) -> str:
    if isinstance(place, Column):
        return place.sql
    return f"({place.sql} #>> {parameters.add(list(place.path), 'text[]')})"


def _beyond(term: Term, value: Any, parameters: Parameters) -> str:
    """Of a descending term, what is absent comes first: after it comes all that is there."""
    sql = term.column.sql
    if value is None:
        return f"{sql} IS NOT NULL"
    compared = _beyond_value(term, value, parameters)
    return f"({compared} OR {sql} IS NULL)" if term.column.nullable and not term.descending else compared


def _beyond_value(term: Term, value: Any, parameters: Parameters) -> str:
    return f"{term.column.sql} {_sign(term)} {_value(term, value, parameters)}"


def _bound(term: Term, value: Any, parameters: Parameters) -> str:
    """What every alternative implies for the first column, said apart, so that an index on it leads to the place."""
    if value is None:
        return ""
    return f"{term.column.sql} {_sign(term)}= {_value(term, value, parameters)} AND "


def _same(term: Term, value: Any, parameters: Parameters) -> str:
    return f"{term.column.sql} IS NULL" if value is None else f"{term.column.sql} = {_value(term, value, parameters)}"


def _value(term: Term, value: Any, parameters: Parameters) -> str:
    return parameters.add(value, _TYPES[term.column.kind])


def _sign(term: Term) -> str:
    return "<" if term.descending else ">"
