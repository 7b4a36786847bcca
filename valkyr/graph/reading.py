"""Reads one mapping of a document key by key: every key known, every value of its type, every problem with its path."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from valkyr.graph import fields

_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Reader:
    """A mapping at a path. What is absent or null reads as the type's empty value; problems go into `problems`."""

    values: Mapping[str, Any]
    at: str
    problems: fields.Problems

    @classmethod
    def of(cls, value: Any, at: str, problems: fields.Problems, *, known: Collection[str] | None = None) -> Reader:
        if not isinstance(value, Mapping):
            problems.add(at, f"expected an object, got {fields.shown(value)}")
            return cls({}, at, problems)
        reader = cls(value, at, problems)
        if known is not None:
            reader._refuse_unknown(known)
        return reader

    def path(self, key: str) -> str:
        return f"{self.at}.{key}" if self.at else key

    def text_keys(self) -> list[str]:
        return [key for key in self.values if self._is_text_key(key)]

    def text(self, key: str, *, hint: str = "put it in quotes") -> str:
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.problems.add(self.path(key), f"expected a string, got {fields.shown(value)}; {hint}")
            return ""
        fields.check_text(value, self.path(key), self.problems)
        return str(value)

    def integer(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**31:
            self.problems.add(self.path(key), f"expected a whole number of 32 bits, got {fields.shown(value)}")
            return None
        return int(value)

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problems.add(self.path(key), f"expected a number, got {fields.shown(value)}")
            return 0.0
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if number - number != 0:
            self.problems.add(self.path(key), f"{fields.shown(value)} is not a finite number")
            return 0.0
        return number

    def duration(self, key: str, *, zero: bool = False) -> timedelta | None:
        text = self.text(key, hint="write a duration such as PT30S or 30s")
        if not text:
            return None
        value = fields.read_duration(text, self.path(key), self.problems)
        if value is not None:
            fields.check_duration(value, self.path(key), self.problems, zero=zero)
        return value

    def choice(self, key: str, choices: type[_Choice], default: _Choice) -> _Choice:
        text = self.text(key)
        if not text:
            return default
        try:
            return choices(text)
        except ValueError:
            names = ", ".join(choices)
            self.problems.add(self.path(key), f"{fields.shown(text)} is not one of {names}")
            return default

    def child(self, key: str, *, known: Collection[str] | None = None) -> Reader | None:
        value = self.values.get(key)
        return None if value is None else Reader.of(value, self.path(key), self.problems, known=known)

    def list(self, key: str) -> Iterator[tuple[Any, str]]:
        """The items with their paths."""
        value = self.values.get(key)
        if value is None:
            return
        if not isinstance(value, list | tuple):
            self.problems.add(self.path(key), f"expected a list, got {fields.shown(value)}")
            return
        for index, item in enumerate(value):
            yield item, f"{self.path(key)}[{index}]"

    def json_object(self, key: str) -> dict[str, Any] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.problems.add(self.path(key), f"expected an object, got {fields.shown(value)}")
            return None
        result: dict[str, Any] = fields.read_json(value, self.path(key), self.problems)
        return result

    def _is_text_key(self, key: object) -> bool:
        if isinstance(key, str):
            return True
        self.problems.add(self.at, f"the key {fields.shown(key)} is not a string; put it in quotes")
        return False

    def _refuse_unknown(self, known: Collection[str]) -> None:
        for key in self.text_keys():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
                self.problems.add(self.path(key), f"unknown field {fields.shown(key)}{hint}")
