"""The graphs that are saved: each node with a module and its config, and twice as many edges."""

from __future__ import annotations

from dataclasses import replace

from valkyr.graph.model import Edge, Graph, Module, Node, Position

CONFIG = '{"url":"https://example.com/items/%d","method":"POST","headers":{"accept":"application/json"}}'


def graph_of(nodes: int) -> Graph:
    """Configs as v1 has them, text of JSON. Each node leads to the next and the one behind it, the first three to one
    more."""
    made = tuple(Node(f"node-{i}", f"Step {i}", Position(i * 10.5, float(i % 7))) for i in range(nodes))
    pairs = [(i, i + step) for i in range(nodes) for step in (1, 2) if i + step < nodes]
    pairs += [(i, i + 3) for i in range(3)]
    edges = tuple(Edge(f"edge-{k}", f"node-{a}", f"node-{b}") for k, (a, b) in enumerate(pairs))
    modules = tuple(Module(f"node-{i}", "HttpRequestModule", module_data=CONFIG % i) for i in range(nodes))
    return Graph(made, edges, modules)


def with_expressions(graph: Graph) -> Graph:
    """Each config names the node before, in an expression that no other has."""

    def config_of(place: int) -> dict[str, str]:
        before = f"${{nodes['node-{place - 1}'].outputs.body.id}}" if place else "${trigger.id}"
        return {"url": f"https://example.com/items/{before}", "method": "POST"}

    modules = (replace(module, module_data=None, config=config_of(place)) for place, module in enumerate(graph.modules))
    return replace(graph, modules=tuple(modules))


def changed(graph: Graph, number: int, *, every: int) -> Graph:
    """Another label for every so manieth node, another one for each number."""
    nodes = (
        replace(node, label=f"{node.label}, edit {number}") if place % every == 0 else node
        for place, node in enumerate(graph.nodes)
    )
    return replace(graph, nodes=tuple(nodes))
