"""The canonical document of a graph: JSON in the proto's lowerCamelCase names, defaults left out, and its hash.

Files hold the same shape beside a `workflow`: {"workflow": {...}, "nodes": [...], "edges": [...], "modules": [...],
"settings": {...}}. What is stored, hashed and compared is this document, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from valkyr.graph import fields, strict
from valkyr.graph.model import (
    DEFAULT_POOL,
    Edge,
    EdgeKind,
    FailurePolicy,
    Graph,
    Join,
    Module,
    Node,
    Position,
    Retry,
    Settings,
    WorkflowInfo,
)
from valkyr.graph.reading import Reader

_FILE_KEYS = frozenset({"workflow", "nodes", "edges", "modules", "settings", "version", "namespace", "message"})
_WORKFLOW_KEYS = frozenset(
    {
        "id",
        "namespace",
        "name",
        "description",
        "labels",
        "version",
        "contentHash",
        "createTime",
        "updateTime",
        "archived",
    }
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a file says about the save it is meant for: the namespace, and why. Empty where it says nothing."""

    namespace: str = ""
    message: str = ""


def graph_to_document(graph: Graph) -> dict[str, Any]:
    """The graph as JSON-able values. Lists keep the author's order; what is absent or a default is left out."""
    document: dict[str, Any] = {}
    if graph.nodes:
        document["nodes"] = [_node_to_document(node) for node in graph.nodes]
    if graph.edges:
        document["edges"] = [_edge_to_document(edge) for edge in graph.edges]
    if graph.modules:
        document["modules"] = [module_to_document(module) for module in graph.modules]
    settings = _settings_to_document(graph.settings)
    if settings:
        document["settings"] = settings
    return document


def graph_from_document(document: Mapping[str, Any]) -> Graph:
    """The graph of a document or file; the `workflow` beside it is not read. InvalidRequest naming every bad path."""
    problems = fields.Problems()
    root = Reader.of(document, "", problems, known=_FILE_KEYS)
    graph = Graph(
        nodes=tuple(strict.read_node(item, path, problems) for item, path in root.list("nodes")),
        edges=tuple(strict.read_edge(item, path, problems) for item, path in root.list("edges")),
        modules=tuple(strict.read_module(item, path, problems) for item, path in root.list("modules")),
        settings=strict.read_settings(root),
    )
    problems.raise_if_any()
    return graph


def graph_from_canonical(document: Mapping[str, Any]) -> Graph:
    """The graph of a document that `graph_to_document` made: not checked again, and ten times as fast."""
    settings = document.get("settings", {})
    return Graph(
        nodes=tuple([_node_from_canonical(node) for node in document.get("nodes", ())]),
        edges=tuple([_edge_from_canonical(edge) for edge in document.get("edges", ())]),
        modules=tuple([_module_from_canonical(module) for module in document.get("modules", ())]),
        settings=Settings(
            failure_policy=FailurePolicy(settings.get("failurePolicy", FailurePolicy.FINISH_BRANCHES)),
            timeout=_duration(settings.get("timeout")),
            default_retry=_retry_from_canonical(settings.get("defaultRetry")),
        ),
    )


def workflow_from_document(document: Mapping[str, Any]) -> WorkflowInfo:
    """What a file says about its workflow. `version` may stand beside it. InvalidRequest names every bad path."""
    problems = fields.Problems()
    root = Reader.of(document, "", problems, known=_FILE_KEYS)
    workflow = root.child("workflow", known=_WORKFLOW_KEYS)
    inner = workflow.integer("version") if workflow else None
    version = fields.edited_version(root.integer("version"), inner, problems)
    if workflow is None:
        problems.raise_if_any()
        return WorkflowInfo(version=version)
    labels = workflow.child("labels")
    identity = workflow.text("id")
    info = WorkflowInfo(
        id=fields.read_uuid(identity, "workflow.id", problems) if identity else None,
        name=workflow.text("name") or None,
        description=workflow.text("description"),
        labels={key: labels.text(key) for key in labels.text_keys()} if labels else {},
        version=version,
    )
    problems.raise_if_any()
    return info


def envelope_from_document(document: Mapping[str, Any]) -> Envelope:
    """The file's `namespace` (or `workflow.namespace`) and `message`. InvalidRequest names every bad path."""
    problems = fields.Problems()
    root = Reader.of(document, "", problems, known=_FILE_KEYS)
    workflow = root.child("workflow", known=_WORKFLOW_KEYS)
    outer, inner = root.text("namespace"), workflow.text("namespace") if workflow else ""
    if outer and inner and outer != inner:
        both = f"{fields.shown(outer)} differs from workflow.namespace {fields.shown(inner)}"
        problems.add("namespace", f"{both}; give one of them")
    envelope = Envelope(outer or inner, root.text("message"))
    problems.raise_if_any()
    return envelope


def canonical_bytes(graph: Graph) -> bytes:
    """The document as bytes that are equal for equal graphs: sorted keys, no spaces, UTF-8."""
    return document_bytes(graph_to_document(graph))


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a document that `graph_to_document` made."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def content_hash(graph: Graph) -> str:
    """SHA-256 of the canonical bytes, hexadecimal."""
    return hash_of(canonical_bytes(graph))


def hash_of(canonical: bytes) -> str:
    """SHA-256 of canonical bytes, hexadecimal."""
    return hashlib.sha256(canonical).hexdigest()


def _number(value: float) -> int | float:
    value = float(value)
    return int(value) if value.is_integer() and abs(value) < fields.EXACT_INTEGER else value


def _node_to_document(node: Node) -> dict[str, Any]:
    document: dict[str, Any] = {"nodeId": node.node_id}
    if node.label:
        document["label"] = node.label
    if node.position is not None:
        document["position"] = {"x": _number(node.position.x), "y": _number(node.position.y)}
    if node.retry is not None:
        document["retry"] = _retry_to_document(node.retry)
    if node.timeout is not None:
        document["timeout"] = fields.duration_text(node.timeout)
    if node.deadline is not None:
        document["deadline"] = fields.duration_text(node.deadline)
    if node.pool != DEFAULT_POOL:
        document["pool"] = node.pool
    if node.priority:
        document["priority"] = node.priority
    if node.join is not Join.ALL:
        document["join"] = node.join.value
    return document


def _edge_to_document(edge: Edge) -> dict[str, Any]:
    document: dict[str, Any] = {"edgeId": edge.edge_id, "source": edge.source, "target": edge.target}
    if edge.condition:
        document["condition"] = edge.condition
    if edge.kind is not EdgeKind.SUCCESS:
        document["kind"] = edge.kind.value
    return document


def module_to_document(module: Module) -> dict[str, Any]:
    """A module as it stands in the document: `moduleData` or `config`, whichever its author gave."""
    document: dict[str, Any] = {"nodeId": module.node_id, "className": module.class_name}
    if module.module_data is not None:
        document["moduleData"] = module.module_data
    if module.config is not None:
        document["config"] = module.config
    if module.target:
        document["target"] = module.target
    return document


def _retry_to_document(retry: Retry) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if retry.max_attempts is not None:
        document["maxAttempts"] = retry.max_attempts
    if retry.backoff_base is not None:
        document["backoffBaseDelay"] = fields.duration_text(retry.backoff_base)
    if retry.backoff_max is not None:
        document["backoffMaxDelay"] = fields.duration_text(retry.backoff_max)
    return document


def _settings_to_document(settings: Settings) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if settings.failure_policy is not FailurePolicy.FINISH_BRANCHES:
        document["failurePolicy"] = settings.failure_policy.value
    if settings.timeout is not None:
        document["timeout"] = fields.duration_text(settings.timeout)
    if settings.default_retry is not None:
        document["defaultRetry"] = _retry_to_document(settings.default_retry)
    return document


def _node_from_canonical(node: Mapping[str, Any]) -> Node:
    find = node.get
    position = find("position")
    return Node(
        node_id=node["nodeId"],
        label=find("label", ""),
        position=None if position is None else Position(float(position["x"]), float(position["y"])),
        retry=_retry_from_canonical(find("retry")),
        timeout=_duration(find("timeout")),
        deadline=_duration(find("deadline")),
        pool=find("pool", DEFAULT_POOL),
        priority=find("priority", 0),
        join=Join(node["join"]) if "join" in node else Join.ALL,
    )


def _edge_from_canonical(edge: Mapping[str, Any]) -> Edge:
    kind = EdgeKind(edge["kind"]) if "kind" in edge else EdgeKind.SUCCESS
    return Edge(edge["edgeId"], edge["source"], edge["target"], edge.get("condition", ""), kind)


def _module_from_canonical(module: Mapping[str, Any]) -> Module:
    find = module.get
    return Module(module["nodeId"], module["className"], find("moduleData"), find("config"), find("target", ""))


def _retry_from_canonical(retry: Mapping[str, Any] | None) -> Retry | None:
    if retry is None:
        return None
    base, cap = retry.get("backoffBaseDelay"), retry.get("backoffMaxDelay")
    return Retry(retry.get("maxAttempts"), _duration(base), _duration(cap))


def _duration(text: str | None) -> timedelta | None:
    """What `fields.duration_text` wrote."""
    if text is None:
        return None
    seconds, _, fraction = text.removesuffix("s").partition(".")
    return timedelta(seconds=int(seconds), microseconds=int(fraction.ljust(6, "0")))
