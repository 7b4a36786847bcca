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
_SMALL = _SIZES[0]
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
    """BadPattern, saying what is wrong. Small ones are kept for the next schema that has them."""
    if len(text) > MAX_PATTERN:
        raise BadPattern(f"the pattern has {len(text):,} characters; at most {MAX_PATTERN:,} are allowed")
    small = _small(text)
    if small is not None:
        return small
    for size in _SIZES[1:]:
        pattern = _pattern(text, size)
        if pattern is not None:
            return pattern
    raise BadPattern(f"{text[:200]!r} is no regular expression, or too large a one once its repeats are written out")


@lru_cache(maxsize=1_000)
def _small(text: str) -> Pattern | None:
    return _pattern(text, _SMALL)


def _pattern(text: str, size: int) -> Pattern | None:
    """None for what is no regular expression, or is larger than that once it is compiled."""
    linear = jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=size)
    test = _compiled(text, linear)
    if test is not None:
        return Pattern(test, linear=True, size=2 * size)
    looking = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS, size_limit=size, dfa_size_limit=size)
    test = _compiled(text, looking)
    # The pattern of our own durations looks ahead by one character only.
    return None if test is None else Pattern(test, linear=text == ISO_8601_PATTERN, size=2 * size)


def _compiled(
    text: str, options: jsonschema_rs.RegexOptions | jsonschema_rs.FancyRegexOptions
) -> Callable[[str], bool] | None:
    try:
        validator = jsonschema_rs.Draft202012Validator({"pattern": text}, pattern_options=options, offline=True)
    except (jsonschema_rs.ValidationError, ValueError):
        return None
    test: Callable[[str], bool] = validator.is_valid
    return test
