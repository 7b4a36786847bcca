"""Yes, no, or not to be told before expressions are evaluated; and when two JSON values are equal in that sense."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final, final


class Fit(IntEnum):
    """Ordered, so that `min` is "and" and `max` is "or"."""

    NO = 0
    OPEN = 1
    YES = 2

    @classmethod
    def of(cls, fits: bool) -> Fit:
        return cls.YES if fits else cls.NO

    def __invert__(self) -> Fit:
        return Fit(2 - self)


@final
class Unknown:
    """The value of an expression, in the place of the string that holds it."""

    def __repr__(self) -> str:
        return "${...}"


UNKNOWN: Final = Unknown()


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(one: Any, other: Any) -> Fit:
    """As JSON has it: 1 and 1.0 are equal, 1 and true are not."""
    if one is UNKNOWN or other is UNKNOWN:
        return Fit.OPEN
    if isinstance(one, bool) or isinstance(other, bool):
        return Fit.of(one is other)
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return Fit.NO
        return _all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return _all(map(equal, one, other)) if len(one) == len(other) else Fit.NO
    comparable = type(one) is type(other) or (is_number(one) and is_number(other))
    return Fit.of(comparable and one == other)


def key_of(value: Any) -> Any:
    """A hashable stand-in: two values without unknowns have equal ones when they are equal."""
    if isinstance(value, dict):
        return "{", frozenset((key, key_of(item)) for key, item in value.items())
    if isinstance(value, list):
        return "[", tuple(map(key_of, value))
    return value if is_number(value) else (type(value), value)


def holds_unknown(value: Any) -> bool:
    """Recursion is bounded by the depth of a config."""
    if isinstance(value, dict):
        return any(holds_unknown(item) for item in value.values())
    return any(map(holds_unknown, value)) if isinstance(value, list) else value is UNKNOWN


def size_of(value: Any) -> int:
    """How many values it is made of."""
    if isinstance(value, dict):
        return 1 + sum(map(size_of, value.values()))
    return 1 + sum(map(size_of, value)) if isinstance(value, list) else 1


def _all(fits: Iterable[Fit]) -> Fit:
    worst = Fit.YES
    for fit in fits:
        if fit is Fit.NO:
            return fit
        worst = min(worst, fit)
    return worst
