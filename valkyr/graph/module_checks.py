"""Checks of modules: one per node, data that is a JSON object within limits, and fitting the module's schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from valkyr.graph.depths import is_deeper
from valkyr.graph.fields import shown
from valkyr.graph.findings import Code, Finding, finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Graph, Module
from valkyr.graph.references import ReferenceCheck
from valkyr.graph.schemas import ConfigSchema, Steps, TooManySteps, compile_schema
from valkyr.graph.shape import Shape
from valkyr.graph.structure import unknown_node

MAX_SCHEMA_ERRORS = 10
"""Per module: an array of ten thousand wrong items is one mistake, not ten thousand findings."""

MAX_STEPS = 200_000
"""Of holding one config against its schema; a usual one takes some dozens."""
MAX_STEPS_OF_GRAPH = 1_500_000
"""Less than a second of the slowest there are; a usual graph of ten thousand nodes takes a third of it."""

Catalogue = Mapping[str, ConfigSchema | Mapping[str, Any] | None]
"""Class names, and what their configs have to fit: None for any object. A mapping is a schema that is trusted."""


class ModuleCheck:
    """Checks the modules of one graph against a catalogue of class names and JSON schemas, or without one."""

    def __init__(self, shape: Shape, references: ReferenceCheck, limits: Limits, catalogue: Catalogue | None) -> None:
        self._shape = shape
        self._references = references
        self._limits = limits
        self._catalogue = catalogue
        self._schemas: dict[str, ConfigSchema] = {}
        self._steps = MAX_STEPS_OF_GRAPH

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
            if text.count("{") + text.count("[") > self._limits.json_depth and is_deeper(
                value, self._limits.json_depth
            ):
                yield self._over(path, "moduleData", None, self._limits.json_depth, "levels", module)
                return
            if "\\u0000" in text and _holds_nul(value):
                yield _bad_data(path, "moduleData holds \\u0000 (NUL), which cannot be stored", "remove it", module)
        yield from self._against_schema(module, value, path, None if text is None else text.encode(), templates=False)

    def _of_config(self, module: Module, config: Mapping[str, Any], path: str) -> Iterator[Finding]:
        """`config`: strings in it may be expressions."""
        path = f"{path}.config"
        if is_deeper(config, self._limits.json_depth):
            yield self._over(path, "config", None, self._limits.json_depth, "levels", module)
            return
        text = orjson.dumps(config)
        if len(text) > self._limits.config_bytes:
            yield self._over(path, "config", len(text), self._limits.config_bytes, "bytes", module)
            return
        yield from self._references.of_config(config, module.node_id, path)
        yield from self._against_schema(module, config, path, text, templates=True)

    def _against_schema(
        self, module: Module, value: Any, path: str, text: bytes | None, *, templates: bool
    ) -> Iterator[Finding]:
        schema = self._schema_of(module.class_name)
        if schema is None:
            return
        allowed = min(MAX_STEPS, self._steps)
        steps = Steps(allowed)
        try:
            misfits = schema.misfits(value, text, steps, most=MAX_SCHEMA_ERRORS, templates=templates)
        except TooManySteps:
            yield self._too_many_steps(module, path)
            return
        finally:
            self._steps -= allowed - max(0, steps.left)
        for misfit in misfits:
            place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in misfit.place)
            where = f"{place.removeprefix('.')}: " if place else ""
            message = f"does not fit {module.class_name}: {where}{misfit.message}"
            yield _bad_data(f"{path}{place}" if templates else path, message, "see the module's schema", module)

    def _schema_of(self, class_name: str) -> ConfigSchema | None:
        schema = (self._catalogue or {}).get(class_name)
        if schema is None or isinstance(schema, ConfigSchema):
            return schema
        compiled = self._schemas.get(class_name)
        if compiled is None:
            compiled = self._schemas[class_name] = compile_schema(schema, trusted=True)
        return compiled

    def _too_many_steps(self, module: Module, path: str) -> Finding:
        return finding(
            Code.LIMIT_EXCEEDED,
            path,
            f"holding the config of node {shown(module.node_id)} against the schema of {shown(module.class_name)} takes"
            f" more than {MAX_STEPS:,} steps, or all configs of the graph more than {MAX_STEPS_OF_GRAPH:,}",
            "make the schema simpler, with fewer alternatives inside alternatives, or the config smaller",
            node_ids=(module.node_id,),
        )

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
