"""The laws of the three-way merge, for any graphs: versions and drafts, alike and unlike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings

from tests.unit.graph.small_graphs import DRAFTS, VERSIONS
from tests.unit.graph.test_merge import same_conflicts
from valkyr.graph.diff import Change, ChangeKind, Part, diff_graphs
from valkyr.graph.document import canonical_bytes
from valkyr.graph.merge import merge_graphs
from valkyr.graph.model import Graph
from valkyr.graph.parts import Key, equal_modules, keyed_edges, keyed_modules, keyed_nodes
from valkyr.graph.validate import validate

KEYED: dict[Part, Callable[[Graph], dict[Key, object]]] = {
    Part.NODE: lambda graph: dict(keyed_nodes(graph)),
    Part.EDGE: lambda graph: dict(keyed_edges(graph)),
    Part.MODULE: lambda graph: dict(keyed_modules(graph)),
}


@given(DRAFTS, DRAFTS)
@settings(max_examples=100, deadline=None)
def test_what_only_one_side_changed_is_what_comes_out(base: Graph, changed: Graph) -> None:
    for current, mine in ((base, changed), (changed, base), (changed, changed)):
        merge = merge_graphs(base, current, mine)
        assert not merge.conflicts
        assert merge.graph is not None
        assert canonical_bytes(merge.graph) == canonical_bytes(changed)
        assert list(merge.findings) == validate(changed)


@given(DRAFTS, DRAFTS, DRAFTS)
@settings(max_examples=100, deadline=None)
def test_conflicts_are_the_same_from_both_sides(base: Graph, current: Graph, mine: Graph) -> None:
    merge, swapped = merge_graphs(base, current, mine), merge_graphs(base, mine, current)
    assert same_conflicts(merge, swapped)
    assert merge == merge_graphs(base, current, mine)
    assert set(merge.both_moved) == set(swapped.both_moved)
    assert (merge.graph is None) is bool(merge.conflicts)
    if merge.graph is not None and swapped.graph is not None:
        assert unplaced(merge.graph) == unplaced(swapped.graph)


def unplaced(graph: Graph) -> list[str]:
    """All parts, in no order, without the places of nodes."""
    nodes = [replace(node, position=None) for node in graph.nodes]
    modules = [(module.node_id, module.class_name, sorted(module.config or {})) for module in graph.modules]
    return sorted(map(repr, [*nodes, *graph.edges, *modules, graph.settings]))


@given(VERSIONS, VERSIONS, VERSIONS)
@settings(max_examples=150, deadline=None)
def test_each_part_is_as_one_side_has_it_or_changed_by_both(base: Graph, current: Graph, mine: Graph) -> None:
    merge = merge_graphs(base, current, mine)
    if merge.graph is None:
        assert touched(base, current) & touched(base, mine) or any(
            conflict.kind.endswith("REMOVED_NODE") for conflict in merge.conflicts
        )
        return
    for part, keyed in KEYED.items():
        was, theirs, ours, merged = (keyed(graph) for graph in (base, current, mine, merge.graph))
        assert merged.keys() <= theirs.keys() | ours.keys()
        for key in was.keys() | theirs.keys() | ours.keys():
            if same(part, was.get(key), theirs.get(key)):
                assert same(part, merged.get(key), ours.get(key))
            elif same(part, was.get(key), ours.get(key)):
                assert same(part, merged.get(key), theirs.get(key))


def same(part: Part, one: object, other: object) -> bool:
    if part is Part.MODULE and one is not None and other is not None:
        return equal_modules(one, other)  # type: ignore[arg-type]
    return one == other


def touched(base: Graph, side: Graph) -> set[tuple[Part, str]]:
    """Parts that a side changed, the new names of what was renamed too."""
    diff = diff_graphs(base, side)
    return {place for change in (*diff.changes, *diff.moves) for place in places(change)}


def places(change: Change) -> set[tuple[Part, str]]:
    if change.kind is not ChangeKind.RENAMED:
        return {(change.part, change.id)}
    parts = (Part.NODE, Part.MODULE) if change.part is Part.NODE else (Part.EDGE,)
    return {(part, name) for part in parts for name in (change.old, change.new)}
