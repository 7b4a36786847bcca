"""What a schema is made of: its subschemas, what their references lead to, their patterns. Nothing outside is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import jsonschema_rs

from valkyr.graph.schemas.fits import key_of
from valkyr.graph.schemas.patterns import BadPattern, Pattern, compile_pattern

DRAFT = "https://json-schema.org/draft/2020-12/schema"

MAX_PATTERN_BYTES = 512 * 1024
"""Of all compiled patterns of a schema: 64 ordinary ones (a UUID's, a date's), 16 like `^[a-z0-9-]{1,63}$`, or one of
the largest."""

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
ONE = ("not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames")
ONE_UNEVALUATED = ("unevaluatedItems", "unevaluatedProperties", "contentSchema")
LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("properties", "patternProperties", "$defs", "dependentSchemas", "definitions")


class BadSchema(Exception):
    """Not a schema that can be used: `path` says where in it, `str(error)` what is wrong and what to do."""

    def __init__(self, path: str, description: str, *, over_limit: bool = False) -> None:
        super().__init__(description)
        self.path = path
        self.over_limit = over_limit


@dataclass(slots=True)
class Parts:
    """By `id` of the subschema that holds the reference. All of them belong to one schema, which is kept."""

    refs: dict[int, Any] = field(default_factory=dict)
    dynamic: dict[int, list[Any]] = field(default_factory=dict)
    patterns: dict[str, Pattern] = field(default_factory=dict)
    options: dict[int, frozenset[Any]] = field(default_factory=dict)
    """What an `enum` takes, by `key_of`."""

    @property
    def pattern_bytes(self) -> int:
        """About what the compiled patterns take."""
        return sum(pattern.size for pattern in self.patterns.values())


@dataclass(frozen=True, slots=True)
class _Reference:
    keyword: str
    holder: dict[str, Any]
    base: str
    path: str


def parts_of(root: dict[str, Any]) -> Parts:
    """BadSchema for a reference that leads nowhere or to another document, for what is no pattern, and for too many."""
    return _Walk(root).whole()


def check_words(schema: dict[str, Any], path: str) -> None:
    """Against the schema of schemas, which does not look behind references. BadSchema."""
    try:
        jsonschema_rs.meta.validate({key: value for key, value in schema.items() if key != "$schema"})
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        if place.endswith(".type"):
            raise BadSchema(path + place, f"{error.instance!r:.200} is no type; takes {', '.join(TYPES)}") from None
        raise BadSchema(path + place, error.message[:300]) from None


def subschemas(schema: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(keyword, path below the schema, subschema) of each, one level deep."""
    for keyword in (*ONE, *ONE_UNEVALUATED):
        if keyword in schema:
            yield keyword, f".{keyword}", schema[keyword]
    for keyword in LISTED:
        for index, item in enumerate(schema.get(keyword, ())):
            yield keyword, f".{keyword}[{index}]", item
    for keyword in NAMED:
        named = schema.get(keyword)
        for name, item in named.items() if isinstance(named, dict) else ():
            yield keyword, f".{keyword}.{name}", item


class _Walk:
    """Without recursion: the stack holds what is still to be looked at."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._parts = Parts()
        self._resources: dict[str, dict[str, Any]] = {"": root}
        self._anchors: dict[tuple[str, str], dict[str, Any]] = {}
        self._dynamic_anchors: dict[str, list[dict[str, Any]]] = {}
        self._references: list[_Reference] = []
        self._seen: set[int] = set()

    def whole(self) -> Parts:
        check_words(self._root, "")
        self._look_at(self._root, "", "")
        done = 0
        while done < len(self._references):
            reference = self._references[done]
            done += 1
            target, base = self._target_of(reference)
            if reference.keyword == "$ref":
                self._parts.refs[id(reference.holder)] = target
            else:
                named = self._dynamic_anchors.get(reference.holder["$dynamicRef"].rpartition("#")[2], [])
                self._parts.dynamic[id(reference.holder)] = [target, *(item for item in named if item is not target)]
            if id(target) not in self._seen and isinstance(target, dict):
                check_words(target, f"{reference.path}.{reference.keyword}")
            self._look_at(target, base, f"{reference.path}.{reference.keyword}")
        return self._parts

    def _look_at(self, schema: Any, base: str, path: str) -> None:
        pending = [(schema, base, path)]
        while pending:
            item, base, path = pending.pop()
            if id(item) in self._seen or isinstance(item, bool):
                continue
            if not isinstance(item, dict):
                raise BadSchema(path, "what a schema is expected at is neither an object nor true or false")
            self._seen.add(id(item))
            base = self._enter(item, base, path)
            pending.extend((inner, base, path + step) for _, step, inner in subschemas(item))

    def _enter(self, schema: dict[str, Any], base: str, path: str) -> str:
        """Notes what the schema is called by, and what it refers to; the base of what is in it."""
        if schema.get("$schema", DRAFT).rstrip("#") != DRAFT:
            raise BadSchema(f"{path}.$schema", f"{schema['$schema'][:200]!r} is not the dialect {DRAFT}; write in that")
        if isinstance(schema.get("$id"), str):
            try:
                base = urldefrag(urljoin(base, schema["$id"]))[0]
            except ValueError as error:
                raise BadSchema(f"{path}.$id", f"{schema['$id'][:200]!r} is no URI: {error}") from None
            self._resources.setdefault(base, schema)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if keyword in schema:
                self._anchors.setdefault((base, schema[keyword]), schema)
        if "$dynamicAnchor" in schema:
            self._dynamic_anchors.setdefault(schema["$dynamicAnchor"], []).append(schema)
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in schema:
                self._references.append(_Reference(keyword, schema, base, path))
        if "enum" in schema:
            self._parts.options[id(schema["enum"])] = frozenset(map(key_of, schema["enum"]))
        if "pattern" in schema:
            self._add_pattern(schema["pattern"], f"{path}.pattern")
        for text in schema.get("patternProperties", ()):
            self._add_pattern(text, f"{path}.patternProperties.{text}")
        return base

    def _add_pattern(self, text: str, path: str) -> None:
        if text in self._parts.patterns:
            return
        try:
            self._parts.patterns[text] = compile_pattern(text)
        except BadPattern as error:
            raise BadSchema(path, str(error)) from None
        size = self._parts.pattern_bytes
        if size > MAX_PATTERN_BYTES:
            raise BadSchema(
                path,
                f"with this one the {len(self._parts.patterns)} patterns of the schema take about {size:,} bytes"
                f" compiled; at most {MAX_PATTERN_BYTES:,} are allowed; use fewer, or with fewer repeats",
                over_limit=True,
            )

    def _target_of(self, reference: _Reference) -> tuple[Any, str]:
        """What is referred to, and its base."""
        said = reference.holder[reference.keyword]
        path = f"{reference.path}.{reference.keyword}"
        try:
            uri, fragment = urldefrag(urljoin(reference.base, said))
        except ValueError as error:
            raise BadSchema(path, f"{said[:200]!r} is no URI: {error}") from None
        resource = self._resources.get(uri)
        if resource is None:
            raise BadSchema(
                path,
                f"{said[:200]!r} refers to another document, which is not read; put what it holds into `$defs`, and"
                " refer to that as '#/$defs/NAME'",
                over_limit=True,
            )
        fragment = unquote(fragment)
        found = _at(resource, fragment) if fragment[:1] in ("", "/") else self._anchors.get((uri, fragment))
        if not isinstance(found, dict | bool):
            raise BadSchema(path, f"{said[:200]!r} leads to nothing in this schema")
        return found, uri


def _at(resource: Any, pointer: str) -> Any:
    """The value at a JSON pointer; None if there is none."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(resource, dict) and name in resource:
            resource = resource[name]
        elif isinstance(resource, list) and name.isdecimal() and int(name[:9]) < len(resource):
            resource = resource[int(name[:9])]
        else:
            return None
    return resource
