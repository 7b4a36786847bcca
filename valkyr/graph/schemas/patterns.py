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
_COMPILED_BYTES = 256 * 1024
_BACKTRACKS = 5_000


class BadPattern(Exception):
    """Not a regular expression, or one that is too large."""


class Pattern:
    """`matches` is None where a text is too long to be looked at."""

    def __init__(self, test: Callable[[str], bool], *, linear: bool) -> None:
        self._test = test
        self.linear = linear

    def matches(self, text: str) -> bool | None:
        if not self.linear and len(text) > MAX_LOOKED_AROUND:
            return None
        return self._test(text)


@lru_cache(maxsize=1_000)
def compile_pattern(text: str) -> Pattern:
    """BadPattern, saying what is wrong."""
    if len(text) > MAX_PATTERN:
        raise BadPattern(f"the pattern has {len(text):,} characters; at most {MAX_PATTERN:,} are allowed")
    linear = jsonschema_rs.RegexOptions(size_limit=_COMPILED_BYTES, dfa_size_limit=2 * _COMPILED_BYTES)
    test = _compiled(text, linear)
    if test is not None:
        return Pattern(test, linear=True)
    looking = jsonschema_rs.FancyRegexOptions(
        backtrack_limit=_BACKTRACKS, size_limit=_COMPILED_BYTES, dfa_size_limit=2 * _COMPILED_BYTES
    )
    test = _compiled(text, looking)
    if test is None:
        raise BadPattern(
            f"{text[:200]!r} is no regular expression, or too large a one once its repeats are written out"
        )
    # The pattern of our own durations looks ahead by one character only.
    return Pattern(test, linear=text == ISO_8601_PATTERN)


def _compiled(
    text: str, options: jsonschema_rs.RegexOptions | jsonschema_rs.FancyRegexOptions
) -> Callable[[str], bool] | None:
    try:
        validator = jsonschema_rs.Draft202012Validator({"pattern": text}, pattern_options=options, offline=True)
    except (jsonschema_rs.ValidationError, ValueError):
        return None
    test: Callable[[str], bool] = validator.is_valid
    return test
