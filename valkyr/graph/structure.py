"""Checks of nodes and edges: ids, limits, dangling and parallel edges, self-loops, cycles, orphans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from valkyr.graph.fields import shown
from valkyr.graph.findings import Code, Finding, finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Edge, Graph
from valkyr.graph.shape import Shape

MAX_WRITTEN_OUT = 50
"""A longer cycle is written with its middle left out; its node ids are in the finding all the same."""


def check_counts(graph: Graph, limits: Limits) -> list[Finding]:
    """Too many nodes, edges or modules. If so nothing else is looked at, so that cost is bounded."""
    counted = (
        ("nodes", len(graph.nodes), limits.nodes),
        ("edges", len(graph.edges), limits.edges),
        ("modules", len(graph.modules), limits.nodes),
    )
    return [
        finding(
            Code.LIMIT_EXCEEDED,
            name,
            f"the graph has {count:,} {name}; at most {limit:,} are allowed",
            "split it into several workflows; nothing else was checked",
        )
        for name, count, limit in counted
        if count > limit
    ]


def check_nodes(graph: Graph, limits: Limits) -> Iterable[Finding]:
    """EMPTY_GRAPH, EMPTY_ID, DUPLICATE_NODE_ID, and the limits of ids, labels and pools."""
    if not graph.nodes:
        yield finding(
            Code.EMPTY_GRAPH, "nodes", "the graph has no nodes", "add a node; as it is there is nothing to run"
        )
    ids = [node.node_id for node in graph.nodes]
    yield from _check_ids(ids, "nodes", "nodeId", limits)
    yield from _duplicates(ids, "nodes", "nodeId", Code.DUPLICATE_NODE_ID)
    for index, node in enumerate(graph.nodes):
        if len(node.label) > limits.label_chars:
            yield _too_long(f"nodes[{index}].label", len(node.label), limits.label_chars, "characters", ids[index])
        if len(node.pool) > limits.id_chars:
            yield _too_long(f"nodes[{index}].pool", len(node.pool), limits.id_chars, "characters", ids[index])


def check_edges(graph: Graph, shape: Shape, limits: Limits) -> Iterable[Finding]:
    """EMPTY_ID, DUPLICATE_EDGE_ID, UNKNOWN_NODE, SELF_LOOP and PARALLEL_EDGE."""
    ids = [edge.edge_id for edge in graph.edges]
    yield from _check_ids(ids, "edges", "edgeId", limits)
    yield from _duplicates(ids, "edges", "edgeId", Code.DUPLICATE_EDGE_ID)
    known = shape.numbers
    for index, edge in enumerate(graph.edges):
        if edge.source not in known:
            yield unknown_node(f"edges[{index}].source", edge.source, shape, edge_ids=(edge.edge_id,))
        if edge.target not in known:
            yield unknown_node(f"edges[{index}].target", edge.target, shape, edge_ids=(edge.edge_id,))
        if edge.source == edge.target and edge.source in known:
            yield finding(
                Code.SELF_LOOP,
                f"edges[{index}]",
                f"edge {shown(edge.edge_id)} leads from {shown(edge.source)} to itself",
                "remove the edge; repetition is retried attempts or a map, not an arrow back",
                node_ids=(edge.source,),
                edge_ids=(edge.edge_id,),
            )
    yield from _parallel_edges(graph.edges)


def check_cycles(graph: Graph, shape: Shape) -> Iterable[Finding]:
    """CYCLE: one short cycle for every strongly connected component."""
    if len(shape.order) == len(shape.numbers):
        return
    ids = list(shape.numbers)
    positions: dict[tuple[str, str], int] = {}
    for index, edge in enumerate(graph.edges):
        positions.setdefault((edge.source, edge.target), index)
    for cycle in shape.cycles():
        nodes = [ids[number] for number in cycle]
        arrows = [positions[pair] for pair in zip(nodes, [*nodes[1:], nodes[0]], strict=True)]
        yield finding(
            Code.CYCLE,
            f"edges[{arrows[-1]}]",
            f"the graph has a cycle: {_written_out([*nodes, nodes[0]])}",
            f"remove one of its {len(arrows)} edges; a graph runs from its start to its end without turning back",
            node_ids=tuple(nodes),
            edge_ids=tuple(graph.edges[arrow].edge_id for arrow in arrows),
        )


def check_orphans(graph: Graph) -> Iterable[Finding]:
    """ORPHAN_NODE: a node without edges, in a graph of more than one node."""
    if len(graph.nodes) < 2:
        return
    touched = {edge.source for edge in graph.edges}
    touched.update(edge.target for edge in graph.edges)
    for index, node in enumerate(graph.nodes):
        if node.node_id not in touched:
            yield finding(
                Code.ORPHAN_NODE,
                f"nodes[{index}]",
                f"node {shown(node.node_id)} has no edges",
                "it runs at the start, beside everything else; connect it if that is not meant",
                node_ids=(node.node_id,),
            )


def unknown_node(path: str, node_id: str, shape: Shape, *, edge_ids: tuple[str, ...] = ()) -> Finding:
    """UNKNOWN_NODE, with the id that differs only in case or in spaces around it as a hint."""
    near = _near(node_id, shape)
    return finding(
        Code.UNKNOWN_NODE,
        path,
        f"there is no node {shown(node_id)}",
        f"did you mean {shown(near)}? Ids are case-sensitive and never trimmed"
        if near is not None
        else "add the node, or name one that is there",
        node_ids=(node_id,),
        edge_ids=edge_ids,
    )


def _near(node_id: str, shape: Shape) -> str | None:
    for candidate in (node_id.strip(), node_id.lower(), node_id.upper(), node_id.strip().lower()):
        if candidate in shape.numbers:
            return candidate
    return None


def _check_ids(ids: Sequence[str], kind: str, name: str, limits: Limits) -> Iterable[Finding]:
    for index, value in enumerate(ids):
        if not value:
            yield finding(Code.EMPTY_ID, f"{kind}[{index}].{name}", f"{name} is empty", "give it an id of its own")
        elif len(value) > limits.id_chars:
            yield _too_long(f"{kind}[{index}].{name}", len(value), limits.id_chars, "characters", value)


def _too_long(path: str, size: int, limit: int, unit: str, owner: str) -> Finding:
    return finding(
        Code.LIMIT_EXCEEDED,
        path,
        f"{path.rpartition('.')[2]} of {shown(owner)} has {size:,} {unit}; at most {limit:,} are allowed",
        "shorten it",
    )


def _duplicates(ids: Sequence[str], kind: str, name: str, code: Code) -> Iterable[Finding]:
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for index, value in enumerate(ids):
        if value and first.setdefault(value, index) != index:
            yield finding(
                code,
                f"{kind}[{index}].{name}",
                f"{name} {shown(value)} is already that of {kind}[{first[value]}]",
                "give each its own id",
                node_ids=(value,) if kind == "nodes" else (),
                edge_ids=(value,) if kind == "edges" else (),
            )


def _parallel_edges(edges: Sequence[Edge]) -> Iterable[Finding]:
    pairs = [(edge.source, edge.target) for edge in edges]
    if len(set(pairs)) == len(pairs):
        return
    first: dict[tuple[str, str], int] = {}
    for index, pair in enumerate(pairs):
        earlier = first.setdefault(pair, index)
        if earlier != index:
            yield finding(
                Code.PARALLEL_EDGE,
                f"edges[{index}]",
                f"edges[{earlier}] already leads from {shown(pair[0])} to {shown(pair[1])}",
                "both count for the join; remove one if that is not meant",
                node_ids=pair,
                edge_ids=(edges[earlier].edge_id, edges[index].edge_id),
            )


def _written_out(ids: Sequence[str]) -> str:
    names = [value if len(value) <= 200 else value[:200] + "…" for value in ids]
    if len(names) > MAX_WRITTEN_OUT + 1:
        left_out = len(names) - MAX_WRITTEN_OUT
        names = [*names[: MAX_WRITTEN_OUT // 2], f"({left_out} more)", *names[-MAX_WRITTEN_OUT // 2 :]]
    return " -> ".join(names)
