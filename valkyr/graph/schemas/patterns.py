"""Patterns of schemas: matched by an engine in linear time, or, where one looks around or back, on short texts only."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jsonschema_rs

from valkyr.duration import ISO_8601_PATTERN

MAX_PATTERN = 1_000
"""Characters."""
MAX_LOOKED_AROUND = 1_000
"""Characters of a text that is matched with look-around or back-references, whose cost is not linear."""
_SIZES = (4 * 1024, 16 * 1024, 64 * 1024, 256 * 1024)
"""Bytes that a compiled pattern may take, tried in turn: so it is known what each one takes."""
_BACKTRACKS = 5_000


class BadPattern(Exception):
    """Not a regular expression, or one that is too large."""


class Pattern:
    """`matches` is None where a text is too long to be looked at. `size`: about how many bytes it takes."""

    def __init__(self, test: Callable[[str], bool], *, linear: bool, size: int) -> None:
        self._test = test
        self.linear = linear
        self.size = size

    def matches(self, text: str) -> bool | None:
        if not self.linear and len(text) > MAX_LOOKED_AROUND:
            return None
        return self._test(text)


def compile_pattern(text: str) -> Pattern:
    """BadPattern, saying what is wrong. Small ones in linear time are kept for the next schema that has them."""
    if len(text) > MAX_PATTERN:
        raise BadPattern(f"the pattern has {len(text):,} characters; at most {MAX_PATTERN:,} are allowed")
    small = _small(text)
    if small is not None:
        return small
    for make in (_linear, _looking):
        for size in _SIZES:
            pattern = make(text, size)
            if pattern is not None:
                return pattern
    raise BadPattern(f"{text[:200]!r} is no regular expression, or too large a one once its repeats are written out")


@lru_cache(maxsize=1_000)
def _small(text: str) -> Pattern | None:
    return _linear(text, _SIZES[0])


def _linear(text: str, size: int) -> Pattern | None:
    """None for what looks around or back, is no regular expression, or is larger than that once it is compiled."""
    test = _compiled(text, jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=size))
    return None if test is None else Pattern(test, linear=True, size=2 * size)


def _looking(text: str, size: int) -> Pattern | None:
    """The limits are those of each piece that is compiled by itself: before, in and behind what looks around or back,
    which takes a parenthesis or a backslash to write."""
    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS, size_limit=size, dfa_size_limit=size)
    test = _compiled(text, options)
    if test is None:
        return None
    pieces = 1 + 2 * text.count("(") + text.count("\\")
    # The pattern of our own durations looks ahead by one character only.
    return Pattern(test, linear=text == ISO_8601_PATTERN, size=2 * size * pieces)


def _compiled(
    text: str, options: jsonschema_rs.RegexOptions | jsonschema_rs.FancyRegexOptions
) -> Callable[[str], bool] | None:
    try:
        validator = jsonschema_rs.Draft202012Validator({"pattern": text}, pattern_options=options, offline=True)
    except (jsonschema_rs.ValidationError, ValueError):
        return None
    test: Callable[[str], bool] = validator.is_valid
    return test
