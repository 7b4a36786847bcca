"""What the edges of a graph make of its nodes: order, cycles, ancestors. Iterative and linear, whatever the shape."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from valkyr.graph.model import Edge, Node


@dataclass(frozen=True, slots=True)
class Shape:
    """Nodes by number, in file order; of repeated ids the first counts. Dangling edges and self-loops are left out.

    `order` holds the nodes that no cycle reaches, each after its predecessors; `components` the others, grouped into
    strongly connected components, each after those it depends on. A component of one node lies behind a cycle, in none.
    """

    numbers: Mapping[str, int]
    successors: Sequence[Sequence[int]]
    order: Sequence[int]
    components: Sequence[Sequence[int]]

    def cycles(self) -> Iterator[list[int]]:
        """One cycle per strongly connected component, in file order: the shortest through its first node."""
        circular = [sorted(component) for component in self.components if len(component) > 1]
        for component in sorted(circular):
            yield _shortest_cycle(component, self.successors)

    def ancestors(self) -> list[int]:
        """For each node the set of its ancestors, as the bits of an integer. In a cycle all are ancestors of all."""
        found = [0] * len(self.numbers)
        for node in self.order:
            _hand_on([node], found[node] | 1 << node, found, self.successors)
        for component in self.components:
            ancestors = 0
            for node in component:
                ancestors |= found[node] | 1 << node
            if len(component) > 1:
                for node in component:
                    found[node] = ancestors
            _hand_on(component, ancestors, found, self.successors)
        return found


def shape_of(nodes: Sequence[Node], edges: Sequence[Edge]) -> Shape:
    """The shape of any graph, also of one with errors. O(nodes + edges)."""
    numbers: dict[str, int] = {}
    for node in nodes:
        numbers.setdefault(node.node_id, len(numbers))
    successors: list[list[int]] = [[] for _ in numbers]
    unmet = [0] * len(numbers)
    find = numbers.get
    for edge in edges:
        source, target = find(edge.source), find(edge.target)
        if source is not None and target is not None and source != target:
            successors[source].append(target)
            unmet[target] += 1
    order = _topological_order(successors, unmet)
    components: list[list[int]] = []
    if len(order) < len(numbers):
        components = _components(sorted(set(range(len(numbers))).difference(order)), successors)
    return Shape(numbers, successors, order, components)


def _topological_order(successors: Sequence[Sequence[int]], unmet: list[int]) -> list[int]:
    """Kahn's algorithm; nodes in or behind a cycle are missing from the answer. Counts `unmet`, the edges in, down."""
    order = [node for node, count in enumerate(unmet) if not count]
    for node in order:
        for successor in successors[node]:
            unmet[successor] -= 1
            if not unmet[successor]:
                order.append(successor)
    return order


def _components(nodes: Sequence[int], successors: Sequence[Sequence[int]]) -> list[list[int]]:
    """Tarjan's algorithm with a stack of iterators instead of recursion; components come predecessors first.

    `nodes` is closed under successors, since whatever lies behind a cycle cannot be ordered either.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    open_nodes: list[int] = []
    is_open: set[int] = set()
    path: list[tuple[int, Iterator[int]]] = []
    components: list[list[int]] = []

    def enter(node: int) -> None:
        index[node] = low[node] = len(index)
        open_nodes.append(node)
        is_open.add(node)
        path.append((node, iter(successors[node])))

    def leave(node: int) -> None:
        path.pop()
        if path:
            parent = path[-1][0]
            low[parent] = min(low[parent], low[node])
        if low[node] == index[node]:
            component = [open_nodes.pop()]
            while component[-1] != node:
                component.append(open_nodes.pop())
            is_open.difference_update(component)
            components.append(component)

    for root in nodes:
        if root not in index:
            enter(root)
        while path:
            node, remaining = path[-1]
            for successor in remaining:
                if successor not in index:
                    enter(successor)
                    break
                if successor in is_open:
                    low[node] = min(low[node], index[successor])
            else:
                leave(node)
    return components[::-1]


def _shortest_cycle(component: Sequence[int], successors: Sequence[Sequence[int]]) -> list[int]:
    """Breadth-first from the component's first node until an edge leads back to it."""
    first = component[0]
    members = set(component)
    came_from = {first: first}
    queue = deque([first])
    while queue:
        node = queue.popleft()
        for successor in successors[node]:
            if successor == first:
                return _path_to(node, first, came_from)
            if successor in members and successor not in came_from:
                came_from[successor] = node
                queue.append(successor)
    raise AssertionError("a strongly connected component of two nodes or more has a cycle through each of them")


def _path_to(node: int, first: int, came_from: Mapping[int, int]) -> list[int]:
    path = [node]
    while path[-1] != first:
        path.append(came_from[path[-1]])
    return path[::-1]


def _hand_on(component: Sequence[int], ancestors: int, found: list[int], successors: Sequence[Sequence[int]]) -> None:
    """What is before a component, and itself, is before whatever follows it."""
    for node in component:
        for successor in successors[node]:
            found[successor] |= ancestors
