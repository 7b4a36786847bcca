"""Whether a value fits a schema: each pair of a subschema and a place in the value is decided once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from valkyr.graph.schemas.assertions import KEYWORDS, OF_ANY, assertions_for, matches
from valkyr.graph.schemas.fits import UNKNOWN, Fit, holds_unknown, key_of, size_of
from valkyr.graph.schemas.parts import Parts
from valkyr.graph.schemas.steps import Steps


class Fitting:
    """One value against one schema. `value` must be kept as long as this is: places in it are known by `id`."""

    def __init__(self, parts: Parts, steps: Steps) -> None:
        self._parts = parts
        self._steps = steps
        self._decided: dict[tuple[int, int], Fit] = {}
        self._names: dict[tuple[int, int, bool], frozenset[Any]] = {}

    def fit(self, schema: Any, value: Any) -> Fit:
        """TooManySteps. A reference that leads back to itself at the same place demands nothing."""
        if isinstance(schema, bool):
            return Fit.of(schema)
        key = id(schema), id(value)
        known = self._decided.get(key)
        if known is not None:
            return known
        self._steps.take(1 + len(schema))
        self._decided[key] = Fit.YES
        worst = Fit.YES
        for keyword in schema:
            fit = self.of_keyword(keyword, schema, value)
            if fit < worst:
                worst = fit
                if worst is Fit.NO:
                    break
        self._decided[key] = worst
        return worst

    def of_keyword(self, keyword: str, schema: dict[str, Any], value: Any) -> Fit:
        """What one keyword of the schema says of the value."""
        if keyword in KEYWORDS:
            return self._asserted(keyword, schema[keyword], value)
        in_place = _IN_PLACE.get(keyword)
        if in_place is not None:
            return in_place(self, schema, value)
        inside = _OF_CHILDREN.get(keyword)
        if inside is None:
            return Fit.YES
        kind, judge = inside
        if value is UNKNOWN:
            return Fit.OPEN
        return judge(self, schema, value) if isinstance(value, kind) else Fit.YES

    def referred(self, schema: dict[str, Any]) -> Any:
        """Where its `$ref` leads."""
        return self._parts.refs[id(schema)]

    def dynamic(self, schema: dict[str, Any]) -> list[Any]:
        """Where its `$dynamicRef` may lead."""
        return self._parts.dynamic[id(schema)]

    def children(self, keyword: str, schema: dict[str, Any], value: Any) -> Iterator[tuple[str | int, Any, Any]]:
        """(step, subschema, value) of what `keyword` looks at inside an object or a list."""
        said = schema[keyword]
        self._steps.take(min(len(said), len(value)) if keyword == "properties" else len(value))
        match keyword:
            case "properties":
                names = said if len(said) < len(value) else value
                yield from ((name, said[name], value[name]) for name in names if name in said and name in value)
            case "patternProperties":
                for text, inner in said.items():
                    yield from ((name, inner, value[name]) for name in value if self._named(text, name))
            case "additionalProperties":
                yield from ((name, said, value[name]) for name in value if not self._is_named(schema, name))
            case "prefixItems":
                yield from ((index, inner, item) for index, (inner, item) in enumerate(zip(said, value, strict=False)))
            case "items":
                first = len(schema.get("prefixItems", ()))
                yield from ((index, said, value[index]) for index in range(first, len(value)))
            case "unevaluatedProperties" | "unevaluatedItems":
                seen = self.evaluated(schema, value, whole=False)
                steps = value if isinstance(value, dict) else range(len(value))
                yield from ((step, said, value[step]) for step in steps if step not in seen)

    def evaluated(self, schema: Any, value: Any, *, whole: bool = True) -> frozenset[Any]:
        """Names or indexes that the schema has a word on. Not `whole`: but for its `unevaluated...`."""
        if isinstance(schema, bool):
            return frozenset()
        key = id(schema), id(value), whole
        known = self._names.get(key)
        if known is not None:
            return known
        self._names[key] = frozenset()
        every: Iterable[Any] = value if isinstance(value, dict) else range(len(value))
        if whole and ("unevaluatedProperties" if isinstance(value, dict) else "unevaluatedItems") in schema:
            found = frozenset(every)
        else:
            found = self._evaluated_here(schema, value).union(
                *(self.evaluated(inner, value) for inner in self.applied(schema, value))
            )
        self._steps.take(1 + len(found))
        self._names[key] = found
        return found

    def applied(self, schema: dict[str, Any], value: Any) -> Iterator[Any]:
        """The subschemas that judge the same value and do not refuse it."""
        if "$ref" in schema:
            yield self.referred(schema)
        for inner in (*self._parts.dynamic.get(id(schema), ()), *_said(schema, "allOf", "anyOf", "oneOf")):
            if self.fit(inner, value) is not Fit.NO:
                yield inner
        if "if" in schema:
            chosen = self.fit(schema["if"], value)
            if chosen is not Fit.NO:
                yield from (schema["if"], schema.get("then", True))
            if chosen is not Fit.YES:
                yield schema.get("else", True)
        for name, inner in schema.get("dependentSchemas", {}).items() if isinstance(value, dict) else ():
            if name in value:
                yield inner

    def _evaluated_here(self, schema: dict[str, Any], value: Any) -> frozenset[Any]:
        keywords = OF_OBJECTS[:-1] if isinstance(value, dict) else OF_LISTS[:-1]
        found = {
            step for keyword in keywords if keyword in schema for step, _, _ in self.children(keyword, schema, value)
        }
        if isinstance(value, list) and "contains" in schema:
            found.update(i for i, item in enumerate(value) if self.fit(schema["contains"], item) is not Fit.NO)
        return frozenset(found)

    def _asserted(self, keyword: str, said: Any, value: Any) -> Fit:
        if value is UNKNOWN:
            return Fit.OPEN
        if keyword == "pattern":
            return matches(self._parts.patterns[said], value, self._steps) if isinstance(value, str) else Fit.YES
        if keyword == "enum" and not holds_unknown(value):
            self._steps.take(size_of(value))
            return Fit.of(key_of(value) in self._parts.options[id(said)])
        assertion = OF_ANY.get(keyword) or assertions_for(value).get(keyword)
        if assertion is None:
            return Fit.YES
        fits = assertion(said, value, self._steps)
        return fits if isinstance(fits, Fit) else Fit.of(fits)

    def _named(self, pattern: str, name: str) -> bool:
        return matches(self._parts.patterns[pattern], name, self._steps) is not Fit.NO

    def _is_named(self, schema: dict[str, Any], name: str) -> bool:
        return name in schema.get("properties", ()) or any(
            self._named(text, name) for text in schema.get("patternProperties", ())
        )

    def _all(self, schema: dict[str, Any], value: Any) -> Fit:
        self._steps.take(len(schema["allOf"]))
        return _worst(self.fit(inner, value) for inner in schema["allOf"])

    def _any(self, schema: dict[str, Any], value: Any) -> Fit:
        self._steps.take(len(schema["anyOf"]))
        best = Fit.NO
        for inner in schema["anyOf"]:
            best = max(best, self.fit(inner, value))
            if best is Fit.YES:
                break
        return best

    def _one(self, schema: dict[str, Any], value: Any) -> Fit:
        self._steps.take(len(schema["oneOf"]))
        fits = [self.fit(inner, value) for inner in schema["oneOf"]]
        sure, perhaps = fits.count(Fit.YES), fits.count(Fit.OPEN)
        if sure > 1 or not sure + perhaps:
            return Fit.NO
        return Fit.OPEN if perhaps else Fit.YES

    def _not(self, schema: dict[str, Any], value: Any) -> Fit:
        return ~self.fit(schema["not"], value)

    def _if(self, schema: dict[str, Any], value: Any) -> Fit:
        chosen = self.fit(schema["if"], value)
        ways = []
        if chosen is not Fit.NO:
            ways.append(self.fit(schema.get("then", True), value))
        if chosen is not Fit.YES:
            ways.append(self.fit(schema.get("else", True), value))
        return ways[0] if len(set(ways)) == 1 else Fit.OPEN

    def _ref(self, schema: dict[str, Any], value: Any) -> Fit:
        return self.fit(self.referred(schema), value)

    def _dynamic_ref(self, schema: dict[str, Any], value: Any) -> Fit:
        """Which of several is meant depends on the way here, which is not kept: where they differ it is left open."""
        fits = {self.fit(inner, value) for inner in self._parts.dynamic[id(schema)]}
        return fits.pop() if len(fits) == 1 else Fit.OPEN

    def _dependent(self, schema: dict[str, Any], value: Any) -> Fit:
        if value is UNKNOWN:
            return Fit.OPEN
        if not isinstance(value, dict):
            return Fit.YES
        return _worst(self.fit(inner, value) for name, inner in schema["dependentSchemas"].items() if name in value)

    def _names_fit(self, schema: dict[str, Any], value: dict[str, Any]) -> Fit:
        self._steps.take(len(value))
        return _worst(self.fit(schema["propertyNames"], name) for name in value)

    def _contains(self, schema: dict[str, Any], value: list[Any]) -> Fit:
        self._steps.take(len(value))
        fits = [self.fit(schema["contains"], item) for item in value]
        sure, perhaps = fits.count(Fit.YES), fits.count(Fit.OPEN)
        least, most = schema.get("minContains", 1), schema.get("maxContains", len(value))
        if sure > most or sure + perhaps < least:
            return Fit.NO
        return Fit.YES if sure >= least and sure + perhaps <= most else Fit.OPEN


def _children_fit(keyword: str) -> Callable[[Fitting, dict[str, Any], Any], Fit]:
    def judge(fitting: Fitting, schema: dict[str, Any], value: Any) -> Fit:
        return _worst(fitting.fit(inner, item) for _, inner, item in fitting.children(keyword, schema, value))

    return judge


def _worst(fits: Iterable[Fit]) -> Fit:
    worst = Fit.YES
    for fit in fits:
        if fit is Fit.NO:
            return fit
        worst = min(worst, fit)
    return worst


def _said(schema: dict[str, Any], *keywords: str) -> list[Any]:
    return [inner for keyword in keywords for inner in schema.get(keyword, ())]


OF_OBJECTS = ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties")
OF_LISTS = ("prefixItems", "items", "unevaluatedItems")
_Judge = Callable[[Fitting, dict[str, Any], Any], Fit]
_IN_PLACE: Mapping[str, _Judge] = {
    "allOf": Fitting._all,
    "anyOf": Fitting._any,
    "oneOf": Fitting._one,
    "not": Fitting._not,
    "if": Fitting._if,
    "$ref": Fitting._ref,
    "$dynamicRef": Fitting._dynamic_ref,
    "dependentSchemas": Fitting._dependent,
}
_OF_CHILDREN: Mapping[str, tuple[type, _Judge]] = {
    **{keyword: (dict, _children_fit(keyword)) for keyword in OF_OBJECTS},
    **{keyword: (list, _children_fit(keyword)) for keyword in OF_LISTS},
    "propertyNames": (dict, Fitting._names_fit),
    "contains": (list, Fitting._contains),
}
