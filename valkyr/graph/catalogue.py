"""Module classes as the catalogue has them: the schema of their configs, and defaults where a node says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from valkyr.graph import fields
from valkyr.graph.model import DEFAULT_POOL, Dedupe, DedupeScope, Graph, Module, Node, Retry, Settings
from valkyr.graph.reading import Reader

_KEYS = ("className", "description", "configSchema", "pool", "target", "retry", "timeout", "dedupe")
_DEDUPE_KEYS = ("scope", "ttl")
_RETRY_KEYS = ("maxAttempts", "backoffBaseDelay", "backoffMaxDelay")


@dataclass(frozen=True, slots=True)
class CatalogueModule:
    """One class. `config_schema` is a JSON Schema 2020-12, None for any object. Empty and None are no defaults.

    `built_in`, `registered_by` and `updated_at` are the catalogue's own word.
    """

    class_name: str
    description: str = ""
    config_schema: Mapping[str, Any] | None = None
    pool: str = ""
    target: str = ""
    retry: Retry | None = None
    timeout: timedelta | None = None
    dedupe: Dedupe | None = None
    built_in: bool = False
    registered_by: str = ""
    updated_at: datetime | None = None


def with_defaults(graph: Graph, modules: Mapping[str, CatalogueModule]) -> Graph:
    """The graph with what the catalogue says where its author has said nothing; the graph itself where that is nothing.

    Of retries each field counts by itself: the node's, then the graph's for all its nodes, then the module's.
    """
    known = {module.node_id: modules[module.class_name] for module in graph.modules if module.class_name in modules}
    if not known:
        return graph
    return replace(
        graph,
        nodes=tuple(_node(node, known.get(node.node_id), graph.settings) for node in graph.nodes),
        modules=tuple(_module(module, modules.get(module.class_name)) for module in graph.modules),
    )


def said_dedupe(modules: Mapping[str, CatalogueModule], class_name: str) -> Dedupe | None:
    """What the catalogue says of equal runs of a class; no graph says anything of it."""
    module = modules.get(class_name)
    return module.dedupe if module is not None else None


def modules_from_document(document: Any) -> list[CatalogueModule]:
    """Of a file: `{"modules": [{"className": ..., "configSchema": {...}, ...}]}`, or the list alone.

    InvalidRequest names every bad path; the schemas themselves are not looked at.
    """
    problems = fields.Problems()
    if not isinstance(document, Mapping):
        document = {"modules": document}
    reader = Reader.of(document, "", problems, known=("modules",))
    found = [_from_document(Reader.of(item, path, problems, known=_KEYS)) for item, path in reader.list("modules")]
    if not found:
        problems.add("modules", "names no module; expected a list of objects with a className")
    problems.raise_if_any()
    return found


def module_from_document(document: Any, path: str) -> CatalogueModule:
    """One of them. InvalidRequest names every bad path, below `path`."""
    problems = fields.Problems()
    module = _from_document(Reader.of(document, path, problems, known=_KEYS))
    problems.raise_if_any()
    return module


def defaults_to_document(module: CatalogueModule) -> dict[str, Any]:
    """What nodes get where they say nothing, in the spelling of documents."""
    retry = module.retry or Retry()
    delays = {"backoffBaseDelay": retry.backoff_base, "backoffMaxDelay": retry.backoff_max}
    said = {key: fields.duration_text(value) for key, value in delays.items() if value is not None}
    attempts = {} if retry.max_attempts is None else {"maxAttempts": retry.max_attempts}
    document = {
        "pool": module.pool,
        "target": module.target,
        "retry": {**attempts, **said},
        "timeout": "" if module.timeout is None else fields.duration_text(module.timeout),
        "dedupe": {} if module.dedupe is None else _dedupe_to_document(module.dedupe),
    }
    return {key: value for key, value in document.items() if value}


def module_from_defaults(class_name: str, document: Mapping[str, Any]) -> CatalogueModule:
    """What `defaults_to_document` wrote. InvalidRequest."""
    problems = fields.Problems()
    module = _from_document(Reader.of({"className": class_name, **document}, "", problems, known=_KEYS))
    problems.raise_if_any()
    return module


def _node(node: Node, module: CatalogueModule | None, settings: Settings) -> Node:
    if module is None:
        return node
    return replace(
        node,
        pool=module.pool if module.pool and node.pool == DEFAULT_POOL else node.pool,
        timeout=module.timeout if node.timeout is None else node.timeout,
        retry=_retry(node.retry, settings.default_retry, module.retry) if module.retry else node.retry,
    )


def _module(module: Module, known: CatalogueModule | None) -> Module:
    return replace(module, target=known.target) if known and known.target and not module.target else module


def _retry(*said: Retry | None) -> Retry:
    retries = [retry for retry in said if retry is not None]
    return Retry(
        max_attempts=next((r.max_attempts for r in retries if r.max_attempts is not None), None),
        backoff_base=next((r.backoff_base for r in retries if r.backoff_base is not None), None),
        backoff_max=next((r.backoff_max for r in retries if r.backoff_max is not None), None),
    )


def _from_document(reader: Reader) -> CatalogueModule:
    retry = reader.child("retry", known=_RETRY_KEYS)
    dedupe = reader.child("dedupe", known=_DEDUPE_KEYS)
    return CatalogueModule(
        class_name=reader.text("className"),
        description=reader.text("description"),
        config_schema=reader.json_object("configSchema"),
        pool=reader.text("pool"),
        target=reader.text("target"),
        retry=None if retry is None else _retry_from(retry),
        timeout=reader.duration("timeout"),
        dedupe=None if dedupe is None else _dedupe_from(dedupe),
    )


def _dedupe_to_document(dedupe: Dedupe) -> dict[str, str]:
    return {"scope": dedupe.scope, "ttl": fields.duration_text(dedupe.ttl)}


def _dedupe_from(reader: Reader) -> Dedupe:
    if not reader.values.get("scope"):
        reader.problems.add(reader.path("scope"), f"is missing; takes one of {', '.join(DedupeScope)}")
    scope = reader.choice("scope", DedupeScope, DedupeScope.WORKFLOW)
    ttl = reader.duration("ttl")
    if ttl is None:
        return Dedupe(scope)
    fields.check_dedupe_ttl(ttl, reader.path("ttl"), reader.problems)
    return Dedupe(scope, ttl)


def _retry_from(reader: Reader) -> Retry:
    attempts = reader.integer("maxAttempts")
    if attempts is not None:
        fields.check_attempts(attempts, reader.path("maxAttempts"), reader.problems)
    base, most = reader.duration("backoffBaseDelay", zero=True), reader.duration("backoffMaxDelay", zero=True)
    return Retry(attempts, base, most)
