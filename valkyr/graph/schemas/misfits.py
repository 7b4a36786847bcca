"""Why a value does not fit a schema: the places that are wrong, each with a sentence about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from valkyr.graph.schemas.assertions import KEYWORDS
from valkyr.graph.schemas.fits import Fit
from valkyr.graph.schemas.fitting import OF_LISTS, OF_OBJECTS, Fitting
from valkyr.graph.schemas.words import known_names, sentence, shown

Step = str | int

_TELLING = ("type", "const", "enum")
"""What tells the branch of a choice that was meant from those that were not."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """`place` leads to the value from the outermost object; `message` says what is wrong with it."""

    place: tuple[Step, ...]
    message: str


class Misfits:
    """Finds what is wrong with one value that does not fit."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        self._told: set[tuple[int, int, tuple[Step, ...]]] = set()

    def of(self, schema: Any, value: Any, place: tuple[Step, ...] = ()) -> Iterator[Misfit]:
        """In the order of the schema, each subschema at each place once."""
        if isinstance(schema, bool):
            if not schema:
                yield Misfit(place, "nothing is allowed here")
            return
        key = id(schema), id(value), place
        if key in self._told:
            return
        self._told.add(key)
        for keyword in schema:
            if self._fitting.of_keyword(keyword, schema, value) is Fit.NO:
                yield from self._of_keyword(keyword, schema, value, place)

    def _of_keyword(
        self, keyword: str, schema: dict[str, Any], value: Any, place: tuple[Step, ...]
    ) -> Iterator[Misfit]:
        if keyword in OF_OBJECTS or keyword in OF_LISTS:
            yield from self._of_children(keyword, schema, value, place)
        elif keyword in ("anyOf", "oneOf"):
            yield from self._of_choice(keyword, schema, value, place)
        elif keyword == "propertyNames":
            for name in value:
                for misfit in self.of(schema[keyword], name, place):
                    yield Misfit((*place, name), f"the name does not fit: {misfit.message}")
        elif keyword in KEYWORDS or keyword in ("not", "contains"):
            yield from (Misfit(place, words) for words in sentence(keyword, schema, value))
        else:
            for inner in self._applied(keyword, schema, value):
                yield from self.of(inner, value, place)

    def _applied(self, keyword: str, schema: dict[str, Any], value: Any) -> Sequence[Any]:
        """What the value has to fit beside the schema itself."""
        match keyword:
            case "allOf":
                return [inner for inner in schema["allOf"] if self._fitting.fit(inner, value) is Fit.NO]
            case "$ref":
                return [self._fitting.referred(schema)]
            case "$dynamicRef":
                return self._fitting.dynamic(schema)[:1]
            case "if":
                chosen = self._fitting.fit(schema["if"], value)
                return [schema.get("else" if chosen is Fit.NO else "then", True)]
            case "dependentSchemas":
                return [inner for name, inner in schema[keyword].items() if name in value]
        return ()

    def _of_children(
        self, keyword: str, schema: dict[str, Any], value: Any, place: tuple[Step, ...]
    ) -> Iterator[Misfit]:
        for step, inner, item in self._fitting.children(keyword, schema, value):
            if inner is False:
                yield Misfit((*place, step), _unknown(keyword, schema, step))
            elif self._fitting.fit(inner, item) is Fit.NO:
                yield from self.of(inner, item, (*place, step))

    def _of_choice(self, keyword: str, schema: dict[str, Any], value: Any, place: tuple[Step, ...]) -> Iterator[Misfit]:
        """What is wrong with the branch that was meant, if that can be told."""
        branches = schema[keyword]
        fitting = [inner for inner in branches if self._fitting.fit(inner, value) is not Fit.NO]
        if fitting:
            yield Misfit(
                place, f"{shown(value)} fits {len(fitting)} of the {len(branches)} kinds that exclude each other"
            )
            return
        meant = [inner for inner in branches if self._may_be_meant(inner, value)]
        if len(meant) == 1:
            yield from self.of(meant[0], value, place)
        else:
            types = self._types_of(branches)
            yield Misfit(
                place, f"{shown(value)} is {types}" if types else f"{shown(value)} fits none of the kinds allowed"
            )

    def _may_be_meant(self, schema: Any, value: Any) -> bool:
        """Its type is right, and so are the fields that can have one value only."""
        schema = self._resolved(schema)
        if not isinstance(schema, dict) or any(
            self._fitting.of_keyword(keyword, schema, value) is Fit.NO for keyword in _TELLING if keyword in schema
        ):
            return False
        if not isinstance(value, dict):
            return True
        for name, inner in schema.get("properties", {}).items():
            said = self._resolved(inner)
            tells = name in value and isinstance(said, dict) and ("const" in said or "enum" in said)
            if tells and self._fitting.fit(said, value[name]) is Fit.NO:
                return False
        return True

    def _types_of(self, branches: Sequence[Any]) -> str:
        """ "neither an integer nor null", where the branches are told apart by their types alone."""
        names = []
        for inner in map(self._resolved, branches):
            if not isinstance(inner, dict) or not isinstance(inner.get("type"), str) or len(inner) > 1:
                return ""
            names.append(inner["type"])
        return f"neither {', '.join(names[:-1])} nor {names[-1]}" if len(names) > 1 else ""

    def _resolved(self, schema: Any) -> Any:
        for _ in range(10):
            if not (isinstance(schema, dict) and "$ref" in schema):
                break
            schema = self._fitting.referred(schema)
        return schema


def _unknown(keyword: str, schema: dict[str, Any], step: Step) -> str:
    if isinstance(step, int):
        return "there is one item too many"
    names = known_names(schema)
    if keyword not in ("additionalProperties", "unevaluatedProperties") or not names:
        return f"{shown(step)} is not allowed"
    near = get_close_matches(step[:100], names[:1_000], n=1)
    guess = f"; did you mean {shown(near[0])}?" if near else ""
    return f"{shown(step)} is not known here; takes {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}{guess}"
