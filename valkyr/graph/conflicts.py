"""What two people cannot both have: the typed conflicts of a merge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from valkyr.errors import Disagreement
from valkyr.graph.parts import ABSENT, Part, json_text, value_of_text


class ConflictKind(StrEnum):
    BOTH_CHANGED = "BOTH_CHANGED"
    """The same field, differently. A field that one of them took away has no value on that side."""
    BOTH_ADDED = "BOTH_ADDED"
    """The same id, for parts that differ."""
    CHANGED_AND_REMOVED = "CHANGED_AND_REMOVED"
    """One changed what the other removed."""
    EDGE_TO_REMOVED_NODE = "EDGE_TO_REMOVED_NODE"
    """One drew an edge from or to a node that the other removed; `path` is `source` or `target`."""
    MODULE_OF_REMOVED_NODE = "MODULE_OF_REMOVED_NODE"
    """One gave a module to a node that the other removed."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Where the current graph and mine do not go together.

    `part`, `id` and `path` as in a Change: `path` is empty where whole parts are meant. `base`, `current` and `mine`
    are the JSON values of that place, ABSENT on the side that removed it or never had it.
    """

    kind: ConflictKind
    part: Part
    id: str
    path: str = ""
    base: Any = ABSENT
    current: Any = ABSENT
    mine: Any = ABSENT


def disagreements_of(conflicts: Iterable[Conflict]) -> Sequence[Disagreement]:
    """The conflicts as an error carries them: values as JSON text."""
    return [
        Disagreement(
            kind=conflict.kind.value,
            part=conflict.part.value,
            id=conflict.id,
            path=conflict.path,
            base=json_text(conflict.base),
            current=json_text(conflict.current),
            mine=json_text(conflict.mine),
        )
        for conflict in conflicts
    ]


def conflicts_of(disagreements: Iterable[Disagreement]) -> Sequence[Conflict]:
    """The conflicts as they came: a value that was cut on its way, and is no JSON any more, is a text.

    ValueError for a kind that only a newer server has.
    """
    return [
        Conflict(
            kind=ConflictKind(entry.kind),
            part=Part(entry.part),
            id=entry.id,
            path=entry.path,
            base=value_of_text(entry.base),
            current=value_of_text(entry.current),
            mine=value_of_text(entry.mine),
        )
        for entry in disagreements
    ]
