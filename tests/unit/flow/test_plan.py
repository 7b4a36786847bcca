"""What a plan says about a graph."""

from __future__ import annotations

import pytest

from tests.builders import a_graph
from tests.unit.flow.plans import plan_of
from valkyr.flow.plan import Control, Plan


def names(plan: Plan, indexes: object) -> list[str]:
    return sorted(plan.nodes[index].node_id for index in indexes)  # type: ignore[attr-defined]


def test_edges_are_known_to_both_ends_and_parallel_ones_count_each() -> None:
    plan = plan_of(a_graph("a -> b, a -> b, b -> c, a -> c"))
    a, b, c = plan.nodes
    assert (a.outgoing, b.incoming, c.incoming) == ((0, 1, 3), (0, 1), (2, 3))
    assert [plan.edges[edge].source for edge in c.incoming] == [1, 0]
    assert (plan.roots, plan.leaves) == ((0,), (2,))


def test_nodes_keep_the_order_of_the_file_whatever_their_edges_say() -> None:
    plan = plan_of(a_graph("c -> a, a -> b"))
    assert [node.node_id for node in plan.nodes] == ["c", "a", "b"]
    assert dict(plan.index_of) == {"c": 0, "a": 1, "b": 2}


def test_control_nodes_are_those_that_the_engine_decides() -> None:
    plan = plan_of(a_graph("a -> b -> c", modules={"a": None, "b": ("Delay", {"duration": "PT1S"})}))
    assert [node.control for node in plan.nodes] == [Control.PASS_THROUGH, Control.DELAY, None]
    assert plan.control_roots == (0,)


def test_watched_are_the_sources_of_conditions_and_what_expressions_of_the_engine_refer_to() -> None:
    graph = a_graph(
        "a -> b -> c -> d -> e, x -> y",
        edges={"c->d": {"condition": "v of a"}},
        modules={"e": ("Delay", {"duration of": "b"}), "y": ("Work", {"duration of": "x"})},
    )
    plan = plan_of(graph)
    assert names(plan, plan.watched) == ["a", "b", "c"]
    assert names(plan, plan.edges[2].needs) == ["a"]
    assert names(plan, plan.nodes[plan.index_of["y"]].needs) == ["x"]


def test_a_condition_that_refers_to_its_own_source_needs_nothing_else() -> None:
    plan = plan_of(a_graph("a -> b", edges={"a->b": {"condition": "v of a"}}))
    assert (plan.edges[0].needs, names(plan, plan.watched)) == (frozenset(), ["a"])


@pytest.mark.parametrize(
    ("condition", "config", "evaluates"),
    [
        ("", {"duration": "PT1S"}, False),
        ("yes", {"duration": "PT1S"}, True),
        ("", {"duration of": "a"}, True),
    ],
)
def test_a_plan_knows_whether_carrying_on_evaluates_anything(
    condition: str, config: dict[str, str], evaluates: bool
) -> None:
    graph = a_graph("a -> b", edges={"a->b": {"condition": condition}}, modules={"b": ("Delay", config)})
    assert plan_of(graph).evaluates is evaluates


def test_a_graph_that_is_not_valid_has_no_plan() -> None:
    graph = a_graph("a -> b", edges={"a->b": {"target": "nowhere"}})
    with pytest.raises(KeyError):
        plan_of(graph)
