"""Reads the parts of a document strictly: every key known, every value of its type, every problem with its path."""

from __future__ import annotations

from typing import Any

from valkyr.graph import fields
from valkyr.graph.configs import one_of_both
from valkyr.graph.model import (
    DEFAULT_POOL,
    Edge,
    EdgeKind,
    FailurePolicy,
    Join,
    Module,
    Node,
    Position,
    Retry,
    Settings,
)
from valkyr.graph.reading import Reader

_NODE_KEYS = frozenset(
    {"nodeId", "label", "position", "retry", "timeout", "deadline", "pool", "priority", "join", "taskId"}
)
_EDGE_KEYS = frozenset({"edgeId", "source", "target", "condition", "kind", "connectionId"})
_MODULE_KEYS = frozenset({"nodeId", "className", "moduleData", "config", "target", "moduleId"})
_RETRY_KEYS = frozenset({"maxAttempts", "backoffBaseDelay", "backoffMaxDelay"})
_SETTINGS_KEYS = frozenset({"failurePolicy", "timeout", "defaultRetry"})


def read_node(item: Any, path: str, problems: fields.Problems) -> Node:
    """An item of `nodes`."""
    node = Reader.of(item, path, problems, known=_NODE_KEYS)
    priority = node.integer("priority") or 0
    fields.check_priority(priority, node.path("priority"), problems)
    return Node(
        node_id=node.text("nodeId"),
        label=node.text("label"),
        position=_read_position(node),
        retry=_read_retry(node, "retry"),
        timeout=node.duration("timeout"),
        deadline=node.duration("deadline"),
        pool=node.text("pool") or DEFAULT_POOL,
        priority=priority,
        join=node.choice("join", Join, Join.ALL),
    )


def _read_position(node: Reader) -> Position | None:
    position = node.child("position", known=frozenset({"x", "y"}))
    return None if position is None else Position(position.number("x"), position.number("y"))


def read_edge(item: Any, path: str, problems: fields.Problems) -> Edge:
    """An item of `edges`."""
    edge = Reader.of(item, path, problems, known=_EDGE_KEYS)
    return Edge(
        edge_id=edge.text("edgeId"),
        source=edge.text("source"),
        target=edge.text("target"),
        condition=edge.text("condition"),
        kind=edge.choice("kind", EdgeKind, EdgeKind.SUCCESS),
    )


def read_module(item: Any, path: str, problems: fields.Problems) -> Module:
    """An item of `modules`; given both `moduleData` and `config`, they have to mean the same."""
    module = Reader.of(item, path, problems, known=_MODULE_KEYS)
    module_data = module.text("moduleData", hint="write an object as `config` instead") or None
    config = module.json_object("config")
    module_data, config = one_of_both(module_data, config, path, problems)
    return Module(
        node_id=module.text("nodeId"),
        class_name=module.text("className"),
        module_data=module_data,
        config=config,
        target=module.text("target"),
    )


def _read_retry(parent: Reader, key: str) -> Retry | None:
    retry = parent.child(key, known=_RETRY_KEYS)
    if retry is None:
        return None
    attempts = retry.integer("maxAttempts")
    if attempts is not None:
        fields.check_attempts(attempts, retry.path("maxAttempts"), retry.problems)
    return Retry(
        max_attempts=attempts,
        backoff_base=retry.duration("backoffBaseDelay", zero=True),
        backoff_max=retry.duration("backoffMaxDelay", zero=True),
    )


def read_settings(root: Reader) -> Settings:
    """The settings of a document, the defaults if it has none."""
    settings = root.child("settings", known=_SETTINGS_KEYS)
    if settings is None:
        return Settings()
    return Settings(
        failure_policy=settings.choice("failurePolicy", FailurePolicy, FailurePolicy.FINISH_BRANCHES),
        timeout=settings.duration("timeout"),
        default_retry=_read_retry(settings, "defaultRetry"),
    )
