"""Checks of modules: one per node, data that is a JSON object within limits, and fitting the module's schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from valkyr.expressions import has_expressions
from valkyr.graph.fields import shown
from valkyr.graph.findings import Code, Finding, finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Graph, Module
from valkyr.graph.references import ReferenceCheck
from valkyr.graph.shape import Shape
from valkyr.graph.structure import unknown_node

MAX_SCHEMA_ERRORS = 10
"""Per module: an array of ten thousand wrong items is one mistake, not ten thousand findings."""

_WHOLE_VALUE_KEYWORDS = frozenset({"anyOf", "oneOf", "not", "contains", "const", "enum", "uniqueItems"})
"""Keywords that judge a value by its inside, so that an expression deep in it may be the reason they fail."""


class ModuleCheck:
    """Checks the modules of one graph against a catalogue of class names and JSON schemas, or without one."""

    def __init__(
        self, shape: Shape, references: ReferenceCheck, limits: Limits, catalogue: Mapping[str, Any] | None
    ) -> None:
        self._shape = shape
        self._references = references
        self._limits = limits
        self._catalogue = catalogue
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def of_graph(self, graph: Graph) -> Iterator[Finding]:
        """Every finding about modules, MISSING_MODULE included."""
        first: dict[str, int] = {}
        for index, module in enumerate(graph.modules):
            earlier = first.setdefault(module.node_id, index)
            yield from self._of_module(module, index, earlier)
        for index, node in enumerate(graph.nodes):
            if node.node_id not in first:
                yield finding(
                    Code.MISSING_MODULE,
                    f"nodes[{index}]",
                    f"node {shown(node.node_id)} has no module",
                    "it passes through without doing anything; add a module if that is not meant",
                    node_ids=(node.node_id,),
                )

    def _of_module(self, module: Module, index: int, earlier: int) -> Iterator[Finding]:
        path = f"modules[{index}]"
        if module.node_id not in self._shape.numbers:
            yield unknown_node(f"{path}.nodeId", module.node_id, self._shape)
        elif earlier != index:
            yield finding(
                Code.DUPLICATE_MODULE,
                f"{path}.nodeId",
                f"node {shown(module.node_id)} already has modules[{earlier}]",
                "a node has one module; add a node for the other",
                node_ids=(module.node_id,),
            )
        yield from self._of_class_name(module, path)
        if module.config is not None:
            yield from self._of_config(module, module.config, path)
        else:
            yield from self._of_data(module, path)

    def _of_class_name(self, module: Module, path: str) -> Iterator[Finding]:
        bounded = (
            ("className", module.class_name, self._limits.id_chars),
            ("target", module.target, self._limits.target_chars),
        )
        for name, value, limit in bounded:
            if len(value) > limit:
                yield self._over(f"{path}.{name}", name, len(value), limit, "characters", module)
        if not module.class_name:
            yield finding(
                Code.EMPTY_ID,
                f"{path}.className",
                f"the module of node {shown(module.node_id)} has no className",
                "name the module's class; for a pass-through leave the module out",
                node_ids=(module.node_id,),
            )
        elif self._catalogue is not None and module.class_name not in self._catalogue:
            yield finding(
                Code.UNKNOWN_MODULE,
                f"{path}.className",
                f"{shown(module.class_name)} is not in the catalogue of modules",
                "its config is not checked, and it waits until a runner serves it",
                node_ids=(module.node_id,),
            )

    def _of_data(self, module: Module, path: str) -> Iterator[Finding]:
        """`moduleData`: data as it is, so no expressions."""
        path = f"{path}.moduleData"
        text = module.module_data
        value: Any = {}
        if text is not None:
            size = _bytes_over(text, self._limits.config_bytes)
            if size:
                yield self._over(path, "moduleData", size, self._limits.config_bytes, "bytes", module)
                return
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield _bad_data(
                    path, f"moduleData is not JSON: {error}", "give a string that holds a JSON object", module
                )
                return
            if not isinstance(value, dict):
                kind = "an array" if isinstance(value, list) else f"the value {shown(value)}"
                yield _bad_data(path, f"moduleData is {kind}, not an object", 'wrap it: {"value": ...}', module)
                return
            if text.count("{") + text.count("[") > self._limits.json_depth and self._is_too_deep(value):
                yield self._over(path, "moduleData", None, self._limits.json_depth, "levels", module)
                return
            if "\\u0000" in text and _holds_nul(value):
                yield _bad_data(path, "moduleData holds \\u0000 (NUL), which cannot be stored", "remove it", module)
        yield from self._against_schema(module, value, path, evaluated=False)

    def _of_config(self, module: Module, config: Mapping[str, Any], path: str) -> Iterator[Finding]:
        """`config`: strings in it may be expressions."""
        path = f"{path}.config"
        if self._is_too_deep(config):
            yield self._over(path, "config", None, self._limits.json_depth, "levels", module)
            return
        size = len(orjson.dumps(config))
        if size > self._limits.config_bytes:
            yield self._over(path, "config", size, self._limits.config_bytes, "bytes", module)
            return
        yield from self._references.of_config(config, module.node_id, path)
        yield from self._against_schema(module, config, path, evaluated=True)

    def _against_schema(self, module: Module, value: Any, path: str, *, evaluated: bool) -> Iterator[Finding]:
        schema = (self._catalogue or {}).get(module.class_name)
        if schema is None:
            return
        validator = self._validators.get(module.class_name)
        if validator is None:
            validator = self._validators[module.class_name] = jsonschema_rs.validator_for(schema)
        if validator.is_valid(value):
            return
        errors: Iterable[Any] = validator.iter_errors(value)
        if evaluated:
            errors = (error for error in errors if not _excused(error, value))
        for error in islice(errors, MAX_SCHEMA_ERRORS):
            place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
            message = f"{(place.removeprefix('.') + ': ') if place else ''}{error.message[:500]}"
            yield _bad_data(
                f"{path}{place}" if evaluated else path,
                f"does not fit {module.class_name}: {message}",
                "see the module's schema",
                module,
            )

    def _is_too_deep(self, value: Any) -> bool:
        """Level by level, so that nothing recurses."""
        level = [value]
        for _ in range(self._limits.json_depth):
            level = [item for parent in level for item in _children(parent) if isinstance(item, dict | list)]
            if not level:
                return False
        return True

    def _over(self, path: str, name: str, size: int | None, limit: int, unit: str, module: Module) -> Finding:
        amount = f"has {size:,} {unit}" if size is not None else f"is nested deeper than {limit} {unit}"
        return finding(
            Code.LIMIT_EXCEEDED,
            path,
            f"{name} of node {shown(module.node_id)} {amount}; at most {limit:,} are allowed",
            "shorten it; large data belongs into storage, with its address here",
            node_ids=(module.node_id,),
        )


def _bad_data(path: str, message: str, hint: str, module: Module) -> Finding:
    return finding(
        Code.BAD_MODULE_DATA, path, f"node {shown(module.node_id)}: {message}", hint, node_ids=(module.node_id,)
    )


def _bytes_over(text: str, limit: int) -> int:
    """The size in bytes of UTF-8 if it is over the limit, else 0; most texts need no encoding to tell."""
    if len(text) * 4 <= limit:
        return 0
    size = len(text.encode())
    return size if size > limit else 0


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _holds_nul(value: Any) -> bool:
    level = [value]
    while level:
        if any(isinstance(item, str) and "\x00" in item for item in level):
            return True
        if any(isinstance(item, dict) and any("\x00" in key for key in item) for item in level):
            return True
        level = [item for parent in level if isinstance(parent, dict | list) for item in _children(parent)]
    return False


def _excused(error: Any, config: Any) -> bool:
    """Whether an error may vanish when expressions are evaluated: it is about one, or about a value that holds one."""
    value = _at(config, error.instance_path)
    if isinstance(value, str):
        return bool(has_expressions(value))
    return error.kind.name in _WHOLE_VALUE_KEYWORDS and bool(has_expressions(value))


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value
