"""Graphs for tests, said in as few words as possible: `a_graph("a -> b, a -> c")`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from valkyr.graph.model import Edge, EdgeKind, Graph, Module, Node, Settings

DEFAULT_CLASS = "NoopModule"

_ARROW = re.compile(r"\s*->\s*")


def a_graph(
    arrows: str = "",
    *,
    modules: Mapping[str, str | tuple[str, Mapping[str, Any]] | Module | None] | None = None,
    nodes: Mapping[str, Mapping[str, Any]] | None = None,
    edges: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Settings | None = None,
) -> Graph:
    """`"a -> b -> c, a -> c, lonely"`: arrows and lone nodes, separated by commas or newlines.

    Every node has a NoopModule unless `modules` says otherwise: a class name, (class name, config), a Module, or None
    for none. `nodes` and `edges` replace fields of a Node by node id, of an Edge by its arrow `"a->b"`, its edge
    id too (for the second of parallel edges `"a->b#2"`). `kind` may be given as text.
    """
    ids, pairs = _parse(arrows)
    changes = {key.replace(" ", ""): dict(value) for key, value in (edges or {}).items()}
    made_edges = [_edge(pair, index, pairs, changes) for index, pair in enumerate(pairs)]
    unused = changes.keys() - {edge.edge_id for edge in made_edges} - {_arrow_id(pair) for pair in pairs}
    if unused or (nodes or {}).keys() - set(ids):
        raise ValueError(f"no such edges {sorted(unused)} or nodes {sorted((nodes or {}).keys() - set(ids))}")
    return Graph(
        nodes=tuple(replace(Node(node_id, node_id), **(nodes or {}).get(node_id, {})) for node_id in ids),
        edges=tuple(made_edges),
        modules=tuple(_modules(ids, modules or {})),
        settings=settings or Settings(),
    )


def a_chain(length: int, *, prefix: str = "n") -> Graph:
    """`n0 -> n1 -> ...`, each with a NoopModule."""
    return a_graph(" -> ".join(f"{prefix}{index}" for index in range(length)))


def a_fan(width: int) -> Graph:
    """`start -> m0..m{width-1} -> end`."""
    return a_graph("\n".join(f"start -> m{index} -> end" for index in range(width)))


def _parse(arrows: str) -> tuple[list[str], list[tuple[str, str]]]:
    ids: dict[str, None] = {}
    pairs: list[tuple[str, str]] = []
    for statement in re.split(r"[,\n]", arrows):
        if not statement.strip():
            continue
        chain = _ARROW.split(statement.strip())
        ids.update(dict.fromkeys(chain))
        pairs.extend(itertools.pairwise(chain))
    return list(ids), pairs


def _arrow_id(pair: tuple[str, str]) -> str:
    return f"{pair[0]}->{pair[1]}"


def _edge(
    pair: tuple[str, str], index: int, pairs: list[tuple[str, str]], changes: Mapping[str, Mapping[str, Any]]
) -> Edge:
    occurrence = pairs[:index].count(pair) + 1 if len(pairs) <= 1_000 else 1
    edge_id = _arrow_id(pair) if occurrence == 1 else f"{_arrow_id(pair)}#{occurrence}"
    fields = dict(changes.get(edge_id, {}))
    if "kind" in fields:
        fields["kind"] = EdgeKind(fields["kind"])
    return replace(Edge(edge_id, *pair), **fields)


def _modules(ids: Iterable[str], modules: Mapping[str, Any]) -> Iterable[Module]:
    for node_id in [*ids, *(key for key in modules if key not in set(ids))]:
        given = modules.get(node_id, DEFAULT_CLASS)
        if isinstance(given, Module):
            yield replace(given, node_id=node_id)
        elif isinstance(given, str):
            yield Module(node_id, given)
        elif given is not None:
            yield Module(node_id, given[0], config=dict(given[1]))
