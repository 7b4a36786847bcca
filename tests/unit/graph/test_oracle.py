"""The validator says of any graph what networkx says of it. `make campaign-graphs` asks about a hundred thousand."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_chain
from tests.unit.graph.oracle import Case, a_case, disagreements, drawn_case
from valkyr.graph.document import graph_from_document
from valkyr.graph.findings import Code
from valkyr.graph.model import Edge, Graph, Node
from valkyr.graph.validate import validate

FOLDER = Path(__file__).parents[2] / "data" / "graphs"
FILES = sorted(path.name for path in FOLDER.glob("*-*.json"))
MANY = 500


@pytest.mark.parametrize("first", range(1, 2_000, MANY))
def test_two_thousand_drawn_graphs(first: int) -> None:
    for seed in range(first, first + MANY):
        case = drawn_case(seed)
        assert disagreements(case) == [], f"seed {seed}: {case.graph}"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small ones, which shrink."""
    ids = draw(st.lists(st.sampled_from("abcdef"), max_size=7))
    ends = st.sampled_from("abcdefg")
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=14))
    names = st.lists(ends, min_size=1, max_size=1)

    def places(count: int) -> st.SearchStrategy[dict[int, list[str]]]:
        return st.dictionaries(st.integers(0, count - 1), names, max_size=2) if count else st.just({})

    return a_case(ids, pairs, conditions=draw(places(len(pairs))), configs=draw(places(len(set(ids)))))


@settings(max_examples=200)
@given(cases())
def test_small_graphs_of_any_shape(case: Case) -> None:
    assert disagreements(case) == []


@pytest.mark.parametrize("file", FILES, ids=[name.removesuffix(".json") for name in FILES])
def test_real_graphs_in_which_every_node_names_another(file: str) -> None:
    graph = graph_from_document(orjson.loads((FOLDER / file).read_bytes()))
    ids = [node.node_id for node in graph.nodes]
    every = len(set(ids))
    case = a_case(
        ids,
        [(edge.source, edge.target) for edge in graph.edges],
        conditions={},
        configs={number: [ids[-1 - number]] for number in range(every) if "'" not in ids[-1 - number]},
    )
    assert every == 0 or case.configs
    assert disagreements(case) == []


def large(graph: Graph) -> list[str]:
    return disagreements(Case(graph, {}, {}), asked=20)


def numbered(size: int, pairs: list[tuple[int, int]]) -> Graph:
    """Without modules."""
    edges = tuple(Edge(f"{source}-{target}", f"n{source}", f"n{target}") for source, target in pairs)
    return Graph(tuple(Node(f"n{number}") for number in range(size)), edges)


def is_said_of(graph: Graph) -> set[str]:
    return {found.code for found in validate(graph)} - {Code.MISSING_MODULE}


def test_a_chain_of_ten_thousand() -> None:
    assert large(a_chain(10_000)) == []


def test_a_cycle_of_ten_thousand() -> None:
    graph = numbered(10_000, [(number, (number + 1) % 10_000) for number in range(10_000)])
    assert is_said_of(graph) == {Code.CYCLE}
    (found,) = [found for found in validate(graph) if found.code == Code.CYCLE]
    assert found.node_ids == tuple(node.node_id for node in graph.nodes)


def test_five_thousand_cycles_of_two() -> None:
    graph = numbered(10_000, [(number, number ^ 1) for number in range(10_000)])
    cycles = [found.node_ids for found in validate(graph) if found.code == Code.CYCLE]
    assert cycles == [(f"n{number}", f"n{number + 1}") for number in range(0, 10_000, 2)]


@pytest.mark.parametrize(("left", "right"), [(250, 200), (5, 10_000 - 5), (5_000, 10)])
def test_complete_bipartite_graphs_of_fifty_thousand_edges(left: int, right: int) -> None:
    graph = numbered(left + right, [(i, left + j) for i in range(left) for j in range(right)])
    assert is_said_of(graph) == set()
    back = Graph(graph.nodes, (*graph.edges[:-1], Edge("back", f"n{left}", "n0")))
    (cycle,) = [found.node_ids for found in validate(back) if found.code == Code.CYCLE]
    assert cycle == ("n0", f"n{left}")


def test_ten_thousand_nodes_with_fifty_thousand_edges_between_them() -> None:
    pairs = {(number * 7919 % 10_000, number * 104_729 % 9_973) for number in range(50_000)}
    forward = numbered(10_000, sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}))
    assert large(with_modules(forward)) == []


def with_modules(graph: Graph) -> Graph:
    """What the oracle takes: a module for every node."""
    return a_case(
        [node.node_id for node in graph.nodes],
        [(edge.source, edge.target) for edge in graph.edges],
        conditions={},
        configs={},
    ).graph
