"""How deep JSON is nested, without recursion; and the findings of configs that are nested deeper than is carried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from valkyr.graph.fields import shown
from valkyr.graph.findings import Code, Finding, finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Module

_TEXTS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested more than `levels` deep; the outermost counts. Level by level."""
    level = [value] if _holds(value) else []
    for _ in range(levels):
        level = [item for parent in level for item in _items(parent) if _holds(item)]
        if not level:
            return False
    return True


def check_depths(modules: Sequence[Module], limits: Limits) -> list[Finding]:
    """LIMIT_EXCEEDED for a `config` deeper than messages carry, and for a `moduleData` that is too deep to be parsed.

    A `moduleData` that can be parsed is judged with the rest of what is said about it.
    """
    findings = []
    for index, module in enumerate(modules):
        if module.config is not None:
            if is_deeper(module.config, limits.config_depth):
                findings.append(_too_deep(module, f"modules[{index}].config", limits.config_depth))
        elif module.module_data is not None and _cannot_be_parsed(module.module_data, limits.json_depth):
            findings.append(_too_deep(module, f"modules[{index}].moduleData", limits.json_depth))
    return findings


def _cannot_be_parsed(text: str, levels: int) -> bool:
    if text.count("{") + text.count("[") <= levels:
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _depth_of(text) > levels
    return False


def _depth_of(text: str) -> int:
    depth = deepest = 0
    for match in _TEXTS_AND_BRACKETS.finditer(text):
        if match[0] in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "}]":
            depth -= 1
    return deepest


def _too_deep(module: Module, path: str, limit: int) -> Finding:
    name = path.rpartition(".")[2]
    return finding(
        Code.LIMIT_EXCEEDED,
        path,
        f"{name} of node {shown(module.node_id)} is nested deeper than {limit} levels; at most {limit} are allowed",
        "flatten it, or put the deep part into `moduleData`, which may have 64 levels"
        if name == "config"
        else "flatten it",
        node_ids=(module.node_id,),
    )


def _holds(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value
