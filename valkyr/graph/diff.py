"""What differs between two graphs, part by part: added, removed, renamed, changed fields; moved nodes are kept apart.

Parts are compared by id: their order is nothing that runs, and only told as `reordered`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from valkyr.errors import Difference
from valkyr.graph.document import module_to_document
from valkyr.graph.model import Edge, Graph, Module, Node, WorkflowInfo
from valkyr.graph.parts import (
    ABSENT,
    Key,
    Part,
    edge_document,
    equal_json,
    equal_modules,
    json_text,
    keyed_edges,
    keyed_modules,
    keyed_nodes,
    keys_of,
    node_document,
    path_of,
    read_data,
    settings_document,
    value_of_text,
    workflow_document,
)
from valkyr.graph.renames import Renames, find_renames

__all__ = [
    "ABSENT",
    "Change",
    "ChangeKind",
    "GraphDiff",
    "Part",
    "changes_of",
    "diff_graphs",
    "diff_workflows",
    "differences_of",
]


class ChangeKind(StrEnum):
    ADDED = "ADDED"
    REMOVED = "REMOVED"
    CHANGED = "CHANGED"
    MOVED = "MOVED"
    RENAMED = "RENAMED"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a part, or of one of its fields.

    `id` is a node id, an edge id, or the node id of a module; empty for the settings and the workflow. `path` is the
    field as in the document (`retry.maxAttempts`, `config.items[2].url`), empty where the whole part was added or
    removed; in a `moduleData` too. `old` and `new` are JSON values as in the document, ABSENT where there was none.
    RENAMED has the old id, and both ids as the values of `nodeId` or `edgeId`: the node's modules and the ends of its
    edges went with it, and are not told apart.
    """

    kind: ChangeKind
    part: Part
    id: str
    path: str = ""
    old: Any = ABSENT
    new: Any = ABSENT


@dataclass(frozen=True, slots=True)
class GraphDiff:
    """What a graph has become. `moves` are changes of nothing but positions; `reordered` are lists in another order."""

    changes: tuple[Change, ...] = ()
    moves: tuple[Change, ...] = ()
    reordered: tuple[Part, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.moves or self.reordered)

    @property
    def is_layout(self) -> bool:
        """Whether it is all about the picture: nothing that runs has changed, and something was moved or reordered."""
        return bool(self) and not self.changes


def diff_graphs(old: Graph, new: Graph, *, workflows: tuple[WorkflowInfo, WorkflowInfo] | None = None) -> GraphDiff:
    """All that differs; of `workflows`, old and new, their names, descriptions and labels too. Linear time.

    Graphs with errors are compared as well: of parts with the same id the first with the first, and so on.
    """
    renames = find_renames(old, new)
    nodes = keyed_nodes(old), keyed_nodes(new)
    edges = keyed_edges(old), keyed_edges(new)
    modules = keyed_modules(old), keyed_modules(new)
    of_nodes = list(_node_changes(*nodes, renames))
    changes = [change for change in of_nodes if change.kind is not ChangeKind.MOVED]
    changes.extend(_edge_changes(*edges, renames))
    changes.extend(_module_changes(*modules, renames))
    if old.settings != new.settings:
        before, after = settings_document(old.settings), settings_document(new.settings)
        changes.extend(_changed_fields(Part.SETTINGS, "", before, after))
    if workflows is not None:
        changes.extend(diff_workflows(*workflows))
    compared: tuple[tuple[Part, tuple[Mapping[Key, Any], Mapping[Key, Any]], Mapping[str, str]], ...] = (
        (Part.NODE, nodes, renames.nodes),
        (Part.EDGE, edges, renames.edges),
        (Part.MODULE, modules, renames.nodes),
    )
    return GraphDiff(
        changes=tuple(changes),
        moves=tuple(change for change in of_nodes if change.kind is ChangeKind.MOVED),
        reordered=tuple(part for part, (before, after), names in compared if _is_reordered(before, after, names)),
    )


def diff_workflows(old: WorkflowInfo, new: WorkflowInfo) -> Sequence[Change]:
    """What was said otherwise beside the graph: `name`, `description`, `labels.<key>`."""
    return list(_changed_fields(Part.WORKFLOW, "", workflow_document(old), workflow_document(new)))


def differences_of(diff: GraphDiff) -> Sequence[Difference]:
    """The entries as they travel, moves last: values as JSON text, none for whole parts."""
    return [
        Difference(
            kind=change.kind.value,
            part=change.part.value,
            id=change.id,
            path=change.path,
            old=json_text(change.old) if change.path else None,
            new=json_text(change.new) if change.path else None,
        )
        for change in (*diff.changes, *diff.moves)
    ]


def changes_of(differences: Sequence[Difference]) -> Sequence[Change]:
    """The entries as they came: a value that was cut on its way, and is no JSON any more, is a text."""
    return [
        Change(
            ChangeKind(entry.kind),
            Part(entry.part),
            entry.id,
            entry.path,
            value_of_text(entry.old),
            value_of_text(entry.new),
        )
        for entry in differences
    ]


def _node_changes(old: Mapping[Key, Node], new: Mapping[Key, Node], renames: Renames) -> Iterator[Change]:
    came = set(renames.nodes.values())
    for (node_id, count), node in old.items():
        if node_id in renames.nodes:
            yield Change(ChangeKind.RENAMED, Part.NODE, node_id, "nodeId", node_id, renames.nodes[node_id])
        elif (found := new.get((node_id, count))) is None:
            yield Change(ChangeKind.REMOVED, Part.NODE, node_id, old=node_document(node))
        elif node != found:
            yield from _changed_fields(Part.NODE, node_id, node_document(node), node_document(found))
    for key, node in new.items():
        if key not in old and key[0] not in came:
            yield Change(ChangeKind.ADDED, Part.NODE, key[0], new=node_document(node))


def _edge_changes(old: Mapping[Key, Edge], new: Mapping[Key, Edge], renames: Renames) -> Iterator[Change]:
    came = set(renames.edges.values())
    for (edge_id, count), edge in old.items():
        if edge_id in renames.edges:
            yield Change(ChangeKind.RENAMED, Part.EDGE, edge_id, "edgeId", edge_id, renames.edges[edge_id])
        elif (found := new.get((edge_id, count))) is None:
            yield Change(ChangeKind.REMOVED, Part.EDGE, edge_id, old=edge_document(edge))
        elif edge != found and (renamed := renames.edge(edge)) != found:
            yield from _changed_fields(Part.EDGE, edge_id, edge_document(renamed), edge_document(found))
    for key, edge in new.items():
        if key not in old and key[0] not in came:
            yield Change(ChangeKind.ADDED, Part.EDGE, key[0], new=edge_document(edge))


def _module_changes(old: Mapping[Key, Module], new: Mapping[Key, Module], renames: Renames) -> Iterator[Change]:
    came = set(renames.nodes.values())
    for (node_id, count), module in old.items():
        if node_id in renames.nodes:
            continue
        if (found := new.get((node_id, count))) is None:
            yield Change(ChangeKind.REMOVED, Part.MODULE, node_id, old=module_to_document(module))
        elif not equal_modules(module, found):
            before, after = _with_data(module_to_document(module), module_to_document(found))
            yield from _changed_fields(Part.MODULE, node_id, before, after)
    for key, module in new.items():
        if key not in old and key[0] not in came:
            yield Change(ChangeKind.ADDED, Part.MODULE, key[0], new=module_to_document(module))


def _is_reordered(old: Mapping[Key, Any], new: Mapping[Key, Any], names: Mapping[str, str]) -> bool:
    """Whether what both have stands in another order. `names` are the new ids of what was renamed."""
    were = [(names.get(found, found), count) for found, count in old] if names else list(old)
    are = list(new)
    if were == are:
        return False
    both = set(were).intersection(new)
    return [key for key in were if key in both] != [key for key in are if key in both]


def _changed_fields(part: Part, found: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in keys_of(old, new):
        kind = ChangeKind.MOVED if part is Part.NODE and key == "position" else ChangeKind.CHANGED
        was, is_ = old.get(key, ABSENT), new.get(key, ABSENT)
        # A position is told whole: one coordinate says little.
        fields = _fields(key, was, is_) if kind is ChangeKind.CHANGED else _leaf(key, was, is_)
        for path, before, after in fields:
            yield Change(kind, part, found, path, before, after)


def _fields(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Paths and both values of all that differs. The depth of documents is bounded, and so is the recursion."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in keys_of(old, new):
            yield from _fields(path_of(path, key), old.get(key, ABSENT), new.get(key, ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, is_) in enumerate(zip(old, new, strict=True)):
            yield from _fields(f"{path}[{index}]", was, is_)
    else:
        yield from _leaf(path, old, new)


def _leaf(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if not equal_json(old, new):
        yield path, old, new


def _with_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both modules with their `moduleData` read, where both are objects that differ by more than their spelling."""
    was, is_ = read_data(old.get("moduleData")), read_data(new.get("moduleData"))
    if was is None or is_ is None or equal_json(was, is_):
        return old, new
    return {**old, "moduleData": was}, {**new, "moduleData": is_}
