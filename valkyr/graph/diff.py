"""What differs between two graphs, part by part: added, removed and changed fields; where nodes stand is kept apart.

Lists are compared by id: their order is nothing that runs, and only told as `reordered`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

import orjson

from valkyr.errors import Difference
from valkyr.graph.depths import is_deeper
from valkyr.graph.document import graph_to_document
from valkyr.graph.fields import MAX_READABLE_DEPTH
from valkyr.graph.model import Graph

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class ChangeKind(StrEnum):
    ADDED = "ADDED"
    REMOVED = "REMOVED"
    CHANGED = "CHANGED"
    MOVED = "MOVED"


class Part(StrEnum):
    NODE = "NODE"
    EDGE = "EDGE"
    MODULE = "MODULE"
    SETTINGS = "SETTINGS"


class Absent(Enum):
    """No value, where null is one."""

    ABSENT = "ABSENT"


ABSENT = Absent.ABSENT
_COLLECTIONS = {Part.NODE: ("nodes", "nodeId"), Part.EDGE: ("edges", "edgeId"), Part.MODULE: ("modules", "nodeId")}


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a part, or of one of its fields.

    `id` is a node id, an edge id, or the node id of a module; empty for the settings. `path` is the field as in the
    document (`retry.maxAttempts`, `config.items[2].url`), empty where the whole part was added or removed; in a
    `moduleData` too. `old` and `new` are JSON values as in the document, ABSENT where there was none.
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


def diff_graphs(old: Graph, new: Graph) -> GraphDiff:
    """All that differs. Both graphs as versions are: without duplicate ids. Linear time."""
    before, after = graph_to_document(old), graph_to_document(new)
    changes: list[Change] = []
    reordered: list[Part] = []
    for part, (collection, key) in _COLLECTIONS.items():
        were = {item[key]: item for item in before.get(collection, ())}
        are = {item[key]: item for item in after.get(collection, ())}
        changes.extend(_changes(part, were, are))
        if [found for found in were if found in are] != [found for found in are if found in were]:
            reordered.append(part)
    changes.extend(_changed_fields(Part.SETTINGS, "", before.get("settings", {}), after.get("settings", {})))
    return GraphDiff(
        changes=tuple(change for change in changes if change.kind is not ChangeKind.MOVED),
        moves=tuple(change for change in changes if change.kind is ChangeKind.MOVED),
        reordered=tuple(reordered),
    )


def differences_of(diff: GraphDiff) -> Sequence[Difference]:
    """The entries as they travel, moves last: values as JSON text, none for whole parts."""
    return [
        Difference(
            kind=change.kind.value,
            part=change.part.value,
            id=change.id,
            path=change.path,
            old=_text(change.old) if change.path else None,
            new=_text(change.new) if change.path else None,
        )
        for change in (*diff.changes, *diff.moves)
    ]


def _changes(part: Part, were: Mapping[str, Any], are: Mapping[str, Any]) -> Iterator[Change]:
    for found, item in were.items():
        if found not in are:
            yield Change(ChangeKind.REMOVED, part, found, old=item)
        else:
            yield from _changed_fields(part, found, item, are[found])
    for found, item in are.items():
        if found not in were:
            yield Change(ChangeKind.ADDED, part, found, new=item)


def _changed_fields(part: Part, found: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    if _equal(old, new):
        return
    if part is Part.MODULE:
        old, new = _with_data(old, new)
    for key in _keys(old, new):
        kind = ChangeKind.MOVED if part is Part.NODE and key == "position" else ChangeKind.CHANGED
        was, is_ = old.get(key, ABSENT), new.get(key, ABSENT)
        # A position is told whole: one coordinate says little.
        fields = _fields(key, was, is_) if kind is ChangeKind.CHANGED else _leaf(key, was, is_)
        for path, before, after in fields:
            yield Change(kind, part, found, path, before, after)


def _fields(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Paths and both values of all that differs. The depth of documents is bounded, and so is the recursion."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in _keys(old, new):
            name = f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key, ensure_ascii=False)}]"
            yield from _fields(name, old.get(key, ABSENT), new.get(key, ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (was, is_) in enumerate(zip(old, new, strict=True)):
            yield from _fields(f"{path}[{index}]", was, is_)
    else:
        yield from _leaf(path, old, new)


def _leaf(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if not _equal(old, new):
        yield path, old, new


def _keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    return [*old, *(key for key in new if key not in old)]


def _equal(old: Any, new: Any) -> bool:
    """As JSON: true is not 1."""
    if old is ABSENT or new is ABSENT:
        return old is new
    return bool(old == new) and _json(old) == _json(new)


def _with_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both modules with their `moduleData` read, where both are objects that differ by more than their spelling."""
    was, is_ = _object(old.get("moduleData")), _object(new.get("moduleData"))
    if was is None or is_ is None or _equal(was, is_):
        return old, new
    return {**old, "moduleData": was}, {**new, "moduleData": is_}


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text or "null")
    except ValueError:
        return None
    return value if isinstance(value, dict) and not is_deeper(value, MAX_READABLE_DEPTH) else None


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _text(value: Any) -> str | None:
    return None if value is ABSENT else orjson.dumps(value).decode()
