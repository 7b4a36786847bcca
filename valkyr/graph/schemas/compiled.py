"""A schema that was looked at: configs are held against it, with expressions in them or without."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from valkyr.graph.depths import is_deeper
from valkyr.graph.schemas.fits import UNKNOWN, Fit
from valkyr.graph.schemas.fitting import Fitting
from valkyr.graph.schemas.misfits import Misfit, Misfits
from valkyr.graph.schemas.parts import DRAFT, BadSchema, Parts, parts_of
from valkyr.graph.schemas.quick import written_out
from valkyr.graph.schemas.steps import Steps, TooManySteps

__all__ = ["BadSchema", "ConfigSchema", "compile_schema"]

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_QUICK_BYTES = 16 * 1024
"""Of a config that the fast validator may look at, where the schema is not ours."""
PER_STEP = 500
"""Bytes of a config times parts of a schema that compiled code is through with while one step is counted."""
_BACKTRACKS = 5_000


class ConfigSchema:
    """Made by `compile_schema`. Immutable in what it says; may be used by several threads."""

    def __init__(self, root: dict[str, Any], parts: Parts, size: int, *, trusted: bool) -> None:
        self.size = size
        """Bytes as JSON, and a tenth of what its patterns take: about a tenth of what all of it takes compiled."""
        self._root = root
        self._parts = parts
        self._trusted = trusted

    @cached_property
    def _written_out(self) -> int | None:
        return written_out(self._root, self._parts)

    @cached_property
    def _quick(self) -> jsonschema_rs.Validator | None:
        """Compiled code, for schemas on which it cannot take long; a few times faster than steps that are counted."""
        if not self._trusted and self._written_out is None:
            return None
        options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        try:
            return jsonschema_rs.Draft202012Validator(self._root, pattern_options=options, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
            return None  # an `$id` that only we can do with, say

    def misfits(self, value: Any, text: bytes | None, steps: Steps, *, most: int, templates: bool) -> list[Misfit]:
        """At most `most` reasons why the value does not fit; none if it fits, or may once expressions are evaluated.

        `text` is the value as JSON, where that is at hand. `templates`: strings in it may hold expressions.
        TooManySteps.
        """
        escapes = templates and text is not None and b"$${" in text
        if not escapes and self._fits_quickly(value, text, steps):
            return []
        if templates and (text is None or b"${" in text):
            value = _unknown_in(value)
        fitting = Fitting(self._parts, steps)
        try:
            if fitting.fit(self._root, value) is not Fit.NO:
                return []
            return list(islice(Misfits(fitting).of(self._root, value), most))
        except RecursionError:
            raise TooManySteps from None

    def _fits_quickly(self, value: Any, text: bytes | None, steps: Steps) -> bool:
        quick = self._quick
        if quick is None:
            return False
        if not self._trusted:
            size = len(text or b"")
            if size > MAX_QUICK_BYTES:
                return False
            steps.take(size * (self._written_out or 1) // PER_STEP)
        return bool(quick.is_valid(value))


def compile_schema(schema: Mapping[str, Any], *, trusted: bool = False) -> ConfigSchema:
    """BadSchema for what is no schema of 2020-12, refers to other documents, or is too large or too deep.

    `trusted` is ours: it cannot be meant to take long, and may be larger.
    """
    if is_deeper(schema, MAX_DEPTH) and not trusted:
        raise BadSchema(
            "", f"the schema is nested deeper than {MAX_DEPTH} levels; flatten it with `$defs`", over_limit=True
        )
    text = orjson.dumps(schema)
    if len(text) > MAX_BYTES and not trusted:
        raise BadSchema(
            "", f"the schema has {len(text):,} bytes as JSON; at most {MAX_BYTES:,} are allowed", over_limit=True
        )
    root = orjson.loads(text)
    if not isinstance(root, dict):
        raise BadSchema("", "a schema of a config is an object")
    said = root.get("$schema", DRAFT)
    if not isinstance(said, str) or said.rstrip("#") != DRAFT:
        raise BadSchema("$schema", f"{str(said)[:200]!r} is not the dialect {DRAFT}; write the schema in that")
    parts = parts_of(root)
    return ConfigSchema(root, parts, len(text) + parts.pattern_bytes // 10, trusted=trusted)


def _unknown_in(value: Any) -> Any:
    """The value with what is not known yet in the place of strings with expressions, and `$${` as the `${` it means."""
    if isinstance(value, str):
        if "${" not in value:
            return value
        literal = value.replace("$${", "")
        return UNKNOWN if "${" in literal else value.replace("$${", "${")
    if isinstance(value, Mapping):
        return {key: _unknown_in(item) for key, item in value.items()}
    return [_unknown_in(item) for item in value] if isinstance(value, list | tuple) else value
