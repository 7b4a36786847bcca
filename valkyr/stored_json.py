"""What a module hands over to be stored, as bounded JSON: outputs and progress. Pure."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import orjson
from pydantic import BaseModel

MAX_OUTPUT_BYTES = 1024 * 1024
MAX_PROGRESS_BYTES = 64 * 1024
MAX_DEPTH = 64

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CONTAINERS = (dict, list, tuple)


class Unstorable(ValueError):
    """The value cannot be stored. The text completes "the outputs ..."."""


def encode(value: Any, *, limit: int) -> bytes:
    """JSON of at most `limit` bytes. Dataclasses and pydantic models are taken apart, times become RFC 3339.
    Unstorable if it is no JSON, is larger, nests deeper than 64, or holds NaN or NUL."""
    nested = False

    def take_apart(item: Any) -> Any:
        nonlocal nested
        nested = True
        return _taken_apart(item)

    try:
        text = orjson.dumps(value, take_apart, orjson.OPT_PASSTHROUGH_DATACLASS)
    except orjson.JSONEncodeError as error:
        cause = error.__cause__
        if isinstance(cause, Unstorable):
            raise cause from None
        if "recursion" in str(error).lower():
            raise Unstorable(f"nest deeper than {MAX_DEPTH} levels, or contain themselves") from None
        raise Unstorable(f"cannot be written as JSON: {error}") from None
    if len(text) > limit:
        raise Unstorable(f"have {len(text)} bytes, and {limit} are allowed: store them elsewhere, and say where")
    if isinstance(value, float) or (isinstance(value, _CONTAINERS) and value):
        _check(value)
    if nested:  # each was looked at for itself: how deep they are in each other shows in the whole
        _check(orjson.loads(text))
    if has_nul(text):
        raise Unstorable("contain a NUL character (\\u0000), which cannot be stored")
    return text


def has_nul(text: bytes) -> bool:
    """Whether a string of this JSON has a NUL character in it, which databases do not take."""
    return b"\\u0000" in text and _NUL.search(text) is not None


def _check(value: Any) -> None:
    """Depth and numbers that JSON has not, level by level; orjson has already shown that it ends."""
    level = [value]
    for depth in range(MAX_DEPTH + 1):
        following: list[Any] = []
        for item in level:
            if isinstance(item, float):
                if not math.isfinite(item):
                    raise Unstorable(f"contain {item}, which JSON cannot hold")
            elif isinstance(item, _CONTAINERS):
                if depth == MAX_DEPTH:
                    raise Unstorable(f"nest deeper than {MAX_DEPTH} levels")
                following.extend(item.values() if isinstance(item, dict) else item)
        level = following


def _taken_apart(value: Any) -> Any:
    if isinstance(value, BaseModel):
        plain: Any = value.model_dump(mode="json")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        raise Unstorable(f"contain a {type(value).__qualname__}, which JSON cannot hold")
    _check(plain)
    return plain
