"""Order, cycles and ancestors, held against networkx."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_chain, a_graph
from valkyr.graph.findings import Code
from valkyr.graph.model import Edge, Graph, Node
from valkyr.graph.shape import shape_of
from valkyr.graph.validate import validate

SIZES = st.integers(1, 12)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any small directed graph, with self-loops, parallel and dangling edges."""
    size = draw(SIZES)
    ends = st.integers(0, size)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=3 * size))
    return Graph(
        nodes=tuple(Node(f"n{number}") for number in range(size)),
        edges=tuple(Edge(f"e{k}", f"n{a}", f"n{b}") for k, (a, b) in enumerate(pairs)),
    )


def oracle(graph: Graph) -> nx.DiGraph:
    """Without self-loops and dangling edges, as a Shape."""
    ids = {node.node_id for node in graph.nodes}
    made = nx.DiGraph()
    made.add_nodes_from(node.node_id for node in graph.nodes)
    made.add_edges_from(
        (e.source, e.target) for e in graph.edges if {e.source, e.target} <= ids and e.source != e.target
    )
    return made


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_every_strongly_connected_component_has_its_shortest_cycle(graph: Graph) -> None:
    check_cycles(graph)


@pytest.mark.parametrize("seed", range(40))
def test_the_cycles_of_dense_graphs_are_the_shortest_too(seed: int) -> None:
    dense = nx.gnp_random_graph(14, 0.1 + seed / 200, seed=seed, directed=True)
    edges = (Edge(f"{a}-{b}", f"n{a}", f"n{b}") for a, b in dense.edges)
    check_cycles(Graph(tuple(Node(f"n{number}") for number in dense.nodes), tuple(edges)))


def check_cycles(graph: Graph) -> None:
    expected = oracle(graph)
    components = [component for component in nx.strongly_connected_components(expected) if len(component) > 1]
    found = [finding.node_ids for finding in validate(graph) if finding.code == Code.CYCLE]
    assert len(found) == len(components)
    for component in components:
        first = next(node.node_id for node in graph.nodes if node.node_id in component)
        (cycle,) = [ids for ids in found if set(ids) <= component]
        assert cycle[0] == first
        assert all(expected.has_edge(a, b) for a, b in zip(cycle, (*cycle[1:], first), strict=True))
        back = [nx.shortest_path_length(expected, successor, first) for successor in expected.successors(first)
                if nx.has_path(expected, successor, first)]  # fmt: skip
        assert len(cycle) == min(back) + 1


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_a_graph_without_cycle_or_self_loop_is_acyclic_and_ordered(graph: Graph) -> None:
    expected = oracle(graph)
    shape = shape_of(graph.nodes, graph.edges)
    place = {node: position for position, node in enumerate(shape.order)}
    assert (len(shape.order) == len(graph.nodes)) == nx.is_directed_acyclic_graph(expected)
    for node in shape.order:
        assert all(place[node] < place[successor] for successor in shape.successors[node] if successor in place)


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_ancestors_are_those_of_networkx(graph: Graph) -> None:
    expected = oracle(graph)
    shape = shape_of(graph.nodes, graph.edges)
    ids = list(shape.numbers)
    for number, bits in enumerate(shape.ancestors()):
        ancestors = set(nx.ancestors(expected, ids[number]))
        if any(
            ids[number] in component and len(component) > 1 for component in nx.strongly_connected_components(expected)
        ):
            ancestors.add(ids[number])
        assert {ids[other] for other in range(len(ids)) if bits >> other & 1} == ancestors


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_orphans_dangling_and_parallel_edges_are_counted_right(graph: Graph) -> None:
    ids = {node.node_id for node in graph.nodes}
    touched = {end for edge in graph.edges for end in (edge.source, edge.target)}
    codes = [finding.code for finding in validate(graph)]
    assert codes.count(Code.ORPHAN_NODE) == (len(ids - touched) if len(ids) > 1 else 0)
    assert codes.count(Code.UNKNOWN_NODE) == sum((e.source not in ids) + (e.target not in ids) for e in graph.edges)
    assert codes.count(Code.PARALLEL_EDGE) == len(graph.edges) - len({(e.source, e.target) for e in graph.edges})


def test_a_chain_of_ten_thousand_recurses_nowhere() -> None:
    chain = a_chain(10_000)
    assert validate(chain) == []
    assert shape_of(chain.nodes, chain.edges).ancestors()[-1].bit_count() == 9_999


def test_fifty_thousand_edges_between_two_sides_are_fine_and_so_is_their_cycle() -> None:
    sides = Graph(
        nodes=tuple(Node(f"{side}{i}") for side in "ab" for i in range(250)),
        edges=tuple(Edge(f"{i}-{j}", f"a{i}", f"b{j}") for i in range(250) for j in range(200)),
    )
    assert [found for found in validate(sides) if found.is_error] == []
    back = Graph(sides.nodes, (*sides.edges[:-1], Edge("back", "b0", "a0")))
    (found,) = [found for found in validate(back) if found.is_error]
    assert found.node_ids == ("a0", "b0")


def test_a_node_behind_a_cycle_is_in_none() -> None:
    shape = shape_of(*_parts("a -> b -> a, b -> c -> d"))
    assert [len(component) for component in shape.components] == [2, 1, 1]
    assert list(shape.cycles()) == [[0, 1]]


def _parts(arrows: str) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    graph = a_graph(arrows)
    return graph.nodes, graph.edges
