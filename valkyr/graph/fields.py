"""Reads single fields of a graph strictly and collects every problem, so that one answer names them all.

Shared by the two ways in: documents (`valkyr.graph.document`) and protobuf (`valkyr.rpc.graphs`). A value that cannot
be stored or told apart from another (NUL, lone surrogate, NaN, an integer that a double loses) is a problem here.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from valkyr.duration import MAX_DURATION, parse_duration
from valkyr.errors import InvalidRequest, Violation
from valkyr.graph.model import MAX_DEDUPE_TTL

MAX_REPORTED = 100
MAX_READABLE_DEPTH = 200
MAX_PRIORITY = 100
EXACT_INTEGER = 2**53

_SHOWN = 200
_SECONDS = re.compile(r"-?\d{1,12}(?:\.\d{1,9})?s")


def shown(value: object) -> str:
    """A value as error messages show it: quoted, escaped, cut to 200 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def short_number(value: float) -> str:
    """All digits of a whole number of up to 20, else its magnitude: what follows in the message is to be read too."""
    if abs(value) < 10**20:
        return f"{int(value)}"
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return "a number over 1e+308"


class Problems:
    """What is wrong with a request so far. `raise_if_any` makes one InvalidRequest of it, in the order found."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._total = 0

    def add(self, path: str, description: str) -> None:
        self._total += 1
        if self._total <= MAX_REPORTED:
            self._violations.append(Violation(path, description))

    def add_all(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.add(violation.field, violation.description)

    def raise_if_any(self) -> None:
        """InvalidRequest naming every bad field, the first in its message."""
        if not self._total:
            return
        first = self._violations[0]
        more = f" (and {self._total - 1} more)" if self._total > 1 else ""
        raise InvalidRequest(
            f"{first.field or 'the document'}: {first.description}{more}",
            violations=self._violations,
            metadata={"total": str(self._total)},
        )


def check_text(value: str, path: str, problems: Problems) -> None:
    """Refuses what no database and no JSON can carry: NUL and lone surrogates."""
    if "\x00" in value:
        problems.add(path, f"{shown(value)} holds a NUL character, which cannot be stored; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problems.add(path, f"{shown(value)} holds half of a surrogate pair at position {error.start}; remove it")


def read_uuid(value: str, path: str, problems: Problems) -> str | None:
    """The UUID in its usual spelling, whatever spelling it came in."""
    try:
        return str(uuid.UUID(value))
    except ValueError:
        problems.add(path, f"{shown(value)} is not a UUID, such as 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80")
        return None


def edited_version(outer: int | None, inner: int | None, problems: Problems) -> int | None:
    """The version of `version` or else of `workflow.version`; 0 says nothing. Both and different is a problem."""
    for path, version in (("version", outer), ("workflow.version", inner)):
        if version is not None and version < 0:
            problems.add(path, f"{version} is no version; the first one is 1")
    if outer and inner and outer != inner:
        problems.add("version", f"{outer} differs from workflow.version {inner}; give one of them")
    return outer or inner or None


def check_priority(value: int, path: str, problems: Problems) -> None:
    if not -MAX_PRIORITY <= value <= MAX_PRIORITY:
        problems.add(path, f"{value} is out of range; a priority is from -{MAX_PRIORITY} to {MAX_PRIORITY}")


def check_attempts(value: int, path: str, problems: Problems) -> None:
    if value < 1:
        problems.add(path, f"{value} is too few; the first attempt counts, so at least 1")


def check_duration(value: timedelta, path: str, problems: Problems, *, zero: bool) -> None:
    """Refuses negative durations, zero where it means nothing, and what would overflow a calendar."""
    if value < timedelta(0) or (not zero and not value):
        problems.add(path, f"{duration_text(value)} is not {'zero or more' if zero else 'more than zero'}")
    elif value > MAX_DURATION:
        problems.add(path, f"{duration_text(value)} is too long; at most {MAX_DURATION.days} days")


def check_dedupe_ttl(value: timedelta, path: str, problems: Problems) -> None:
    """Beside what every duration has to be."""
    if MAX_DEDUPE_TTL < value <= MAX_DURATION:
        problems.add(path, f"{duration_text(value)} is too long; successes are reused for {MAX_DEDUPE_TTL.days} days")


def read_duration(text: str, path: str, problems: Problems) -> timedelta | None:
    """`"30s"` and `"1.5s"` as protobuf's JSON has it, or ISO 8601 from days to seconds (`PT30S`, `P1DT2H`)."""
    if _SECONDS.fullmatch(text):
        seconds, _, fraction = text[:-1].partition(".")
        micros = int((fraction[:6]).ljust(6, "0"))
        if fraction[6:].strip("0"):
            problems.add(path, f"{shown(text)} is finer than a microsecond")
            return None
        sign = -1 if seconds.startswith("-") else 1
        return sign * timedelta(seconds=abs(int(seconds)), microseconds=micros)
    try:
        return parse_duration(text)
    except ValueError as error:
        problems.add(path, str(error))
        return None


def duration_text(value: timedelta) -> str:
    """Seconds as protobuf's JSON writes them, without trailing zeros: `30s`, `1.5s`."""
    micros = value // timedelta(microseconds=1)
    whole, fraction = divmod(abs(micros), 1_000_000)
    tail = f".{fraction:06d}".rstrip("0") if fraction else ""
    return f"{'-' if micros < 0 else ''}{whole}{tail}s"


def read_number(value: float, path: str, problems: Problems) -> int | float:
    """A double as canonical JSON has it: whole numbers without a fraction. NaN and huge integers are problems."""
    if not math.isfinite(value):
        problems.add(path, f"{value} is not a number that JSON can hold; leave it out or give a finite one")
        return 0
    if not value.is_integer():
        return value
    if abs(value) >= EXACT_INTEGER:
        problems.add(
            path,
            f"{short_number(value)} is an integer of 2^53 or more, which a double may not hold; send it as a string",
        )
        return 0
    return int(value)


def read_json(value: Any, path: str, problems: Problems, *, depth: int = 0) -> Any:
    """Any JSON value, in its canonical form (whole doubles become integers). Recursion is bounded by the depth."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(value, path, problems)
        return str(value)
    if isinstance(value, int):
        if abs(value) >= EXACT_INTEGER:
            problems.add(path, f"{short_number(value)} is an integer of 2^53 or more; send it as a string")
        return int(value)
    if isinstance(value, float):
        return read_number(float(value), path, problems)
    if depth >= MAX_READABLE_DEPTH:
        problems.add(path[:_SHOWN], f"is nested deeper than {MAX_READABLE_DEPTH} levels")
        return None
    if isinstance(value, Mapping):
        return {
            _read_key(key, path, problems): read_json(item, f"{path}.{key}", problems, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [read_json(item, f"{path}[{i}]", problems, depth=depth + 1) for i, item in enumerate(value)]
    problems.add(path, f"{shown(value)} ({type(value).__name__}) is nothing that JSON can hold")
    return None


def _read_key(key: object, path: str, problems: Problems) -> str:
    if not isinstance(key, str):
        problems.add(path, f"the key {shown(key)} is not a string; put it in quotes")
        return str(key)
    check_text(key, path, problems)
    return str(key)
