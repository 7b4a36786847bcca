"""A graph drawn in the columns of a terminal: layer by layer, each node with the edges that leave it.

However large the graph, the drawing stays a drawing: rows, nodes and edges are left out until it fits, and every place
where something is missing says how much. Linear time, plain text without colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from valkyr.graph.fields import duration_text
from valkyr.graph.layers import Layers, layers_of
from valkyr.graph.model import DEFAULT_POOL, Edge, EdgeKind, FailurePolicy, Graph, Join, Module, Node, Retry
from valkyr.graph.one_line import ELLIPSIS, cut, one_line, value_text

WIDTH = 100
MAX_LINES = 250
_NARROWEST = 20
_LONGEST_ID = 60
_LONGEST_LABEL = 40
_EVERYTHING = 10**9


@dataclass(frozen=True, slots=True)
class _Room:
    """How many layers, nodes of each layer and edges of each node are shown at most."""

    layers: int
    nodes: int
    edges: int


_ROOMS = (
    _Room(_EVERYTHING, _EVERYTHING, _EVERYTHING),
    _Room(_EVERYTHING, 50, 20),
    _Room(60, 20, 8),
    _Room(40, 8, 4),
    _Room(40, 4, 2),
    _Room(20, 2, 2),
    _Room(20, 1, 1),
)


def drawing_lines(graph: Graph, *, width: int = WIDTH, limit: int = MAX_LINES) -> list[str]:
    """The lines of the drawing, none wider than `width` columns (20 at least), and about `limit` of them at most."""
    layers = layers_of(graph)
    room = next((room for room in _ROOMS if _count_lines(layers, room) <= limit), _ROOMS[-1])
    modules: dict[str, Module] = {}
    for module in graph.modules:
        modules.setdefault(module.node_id, module)
    drawing = _Drawing(layers, modules, room)
    return [cut(line, max(width, _NARROWEST)) for line in (_title(graph, layers), *drawing.lines())]


class _Drawing:
    def __init__(self, layers: Layers, modules: dict[str, Module], room: _Room) -> None:
        self._layers, self._modules, self._room = layers, modules, room

    def lines(self) -> Iterator[str]:
        rows = self._layers.rows
        shown = _ends(len(rows), self._room.layers)
        for number, row in enumerate(rows):
            if number in shown:
                yield f"layer {number + 1}{_of(len(row))}"
                yield from self._nodes(row)
            elif number - 1 in shown:
                left_out = rows[number : number + len(rows) - len(shown)]
                nodes = sum(len(row) for row in left_out)
                yield f"{ELLIPSIS} {_count(len(left_out), 'layer')} left out, with {_count(nodes, 'node')}"
        if self._layers.isolated:
            yield f"isolated, run at the start{_of(len(self._layers.isolated))}"
            yield from self._nodes(self._layers.isolated)
        if self._layers.strays:
            yield f"edges from no node{_of(len(self._layers.strays))}"
            yield from self._edges(self._layers.strays, with_source=True)

    def _nodes(self, nodes: Sequence[Node]) -> Iterator[str]:
        for node in nodes[: self._room.nodes]:
            yield f"  {_node(node, self._modules.get(node.node_id), self._layers.incoming.get(node.node_id, 0))}"
            yield from self._edges(self._layers.outgoing.get(node.node_id, ()))
        if len(nodes) > self._room.nodes:
            yield f"  {ELLIPSIS} {_count(len(nodes) - self._room.nodes, 'node')} more in this layer"

    def _edges(self, edges: Sequence[Edge], *, with_source: bool = False) -> Iterator[str]:
        shown = edges[: self._room.edges]
        for index, edge in enumerate(shown):
            arrow = "└─▶" if index == len(edges) - 1 else "├─▶"
            source = f"{_name(edge.source)} " if with_source else ""
            yield f"    {source}{arrow} {_name(edge.target)}{self._remarks(edge)}"
        if len(edges) > len(shown):
            yield f"    └ {ELLIPSIS} {_count(len(edges) - len(shown), 'edge')} more"

    def _remarks(self, edge: Edge) -> str:
        remarks = []
        if edge.kind is not EdgeKind.SUCCESS:
            remarks.append("on failure" if edge.kind is EdgeKind.FAILURE else "always")
        rows = self._layers.row_of
        if edge.target not in rows:
            remarks.append("(no such node)")
        elif edge.source == edge.target:
            remarks.append("(to itself)")
        elif rows.get(edge.source, -1) >= rows[edge.target]:
            remarks.append("(in a cycle)")
        if edge.condition:
            remarks.append(f"if {one_line(edge.condition)}")
        return "".join(f"  {remark}" for remark in remarks)


def _title(graph: Graph, layers: Layers) -> str:
    said = (
        f"{_count(len(graph.nodes), 'node')}, {_count(len(graph.edges), 'edge')}, {_count(len(layers.rows), 'layer')}"
    )
    if layers.repeated:
        said += f", {layers.repeated:,} with an id that another has"
    settings = graph.settings
    if settings.failure_policy is not FailurePolicy.FINISH_BRANCHES:
        said += f"; {settings.failure_policy.value}"
    if settings.timeout is not None:
        said += f"; timeout {duration_text(settings.timeout)}"
    return f"{said}; {_retry(settings.default_retry)}" if settings.default_retry else said


def _node(node: Node, module: Module | None, incoming: int) -> str:
    """`●` a node that runs a module, `○` one that only passes through."""
    said = [f"{'●' if module else '○'} {_name(node.node_id)}"]
    if node.label not in ("", node.node_id):
        said.append(f'"{cut(one_line(node.label), _LONGEST_LABEL)}"')
    if module is not None:
        target = f" -> {one_line(module.target)}" if module.target else ""
        said.append(f"[{one_line(module.class_name)}{target}]")
    if node.join is Join.ANY:
        said.append(f"any of {incoming}")
    elif incoming > 1:
        said.append(f"all of {incoming}")
    if node.pool != DEFAULT_POOL:
        said.append(f"pool {one_line(node.pool)}")
    if node.priority:
        said.append(f"priority {node.priority}")
    said.extend(_limits(node))
    return "  ".join(said)


def _limits(node: Node) -> Iterator[str]:
    if node.timeout is not None:
        yield f"timeout {duration_text(node.timeout)}"
    if node.deadline is not None:
        yield f"deadline {duration_text(node.deadline)}"
    if node.retry is not None:
        yield _retry(node.retry)


def _retry(retry: Retry) -> str:
    return "own back-off" if retry.max_attempts is None else f"{_count(retry.max_attempts, 'attempt')}"


def _name(node_id: str) -> str:
    return cut(one_line(node_id), _LONGEST_ID) if node_id.strip() else value_text(node_id)


def _count_lines(layers: Layers, room: _Room) -> int:
    """How many lines a drawing has in such a room."""
    shown = _ends(len(layers.rows), room.layers)
    rows = [row for number, row in enumerate(layers.rows) if number in shown]
    lines = 1 + len(rows) + (len(rows) < len(layers.rows))
    for row in (*rows, layers.isolated):
        lines += min(len(row), room.nodes + 1)
        lines += sum(min(len(layers.outgoing.get(node.node_id, ())), room.edges + 1) for node in row[: room.nodes])
    return lines + min(len(layers.strays), room.edges + 1)


def _ends(count: int, room: int) -> range | set[int]:
    """Which of so many are shown: the first three quarters of the room, and the last quarter."""
    if count <= room:
        return range(count)
    last = room // 4
    return {*range(room - last), *range(count - last, count)}


def _of(count: int) -> str:
    return f"  ({count:,})" if count > 1 else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
