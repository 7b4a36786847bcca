"""The three-way merge of one part, field by field. Objects are merged by their keys; lists and texts are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.depths import is_deeper
from valkyr.graph.fields import MAX_READABLE_DEPTH
from valkyr.graph.parts import ABSENT, Part, equal_json, keys_of, path_of, read_data

_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class MergedFields:
    """The document that both sides make of a part. Where they conflict it holds mine, and is not to be used.

    `both_moved` says that both moved a node, to different places: mine stands.
    """

    document: dict[str, Any]
    conflicts: list[Conflict] = field(default_factory=list)
    both_moved: bool = False


def merge_fields(
    part: Part, identity: str, *, base: Mapping[str, Any], current: Mapping[str, Any], mine: Mapping[str, Any]
) -> MergedFields:
    """What a part is with the changes of both. All three are documents of the part with that id."""
    merging = _Merging(part, identity)
    merged: dict[str, Any] = {}
    both_moved = False
    for key in keys_of(mine, current, base):
        values = tuple(side.get(key, ABSENT) for side in (base, current, mine))
        if part is Part.NODE and key == "position":
            both_moved = _agreed(*values) is None
            value = values[2] if both_moved else _settled(*values)
        elif part is Part.MODULE and key == "moduleData":
            value = merging.data(*values)
        else:
            value = merging.value(key, *values)
        if value is not ABSENT:
            merged[key] = value
    if part is Part.MODULE and "moduleData" in merged and "config" in merged and not merging.conflicts:
        # Each turned the module's data into something else: only one of both spellings can stand.
        merging.conflict("config", *(side.get("config", ABSENT) for side in (base, current, mine)))
    return MergedFields(merged, merging.conflicts, both_moved)


class _Merging:
    """Merges the values of one part, and collects where they conflict."""

    def __init__(self, part: Part, identity: str) -> None:
        self._part, self._identity = part, identity
        self.conflicts: list[Conflict] = []

    def conflict(self, path: str, base: Any, current: Any, mine: Any) -> None:
        kind = ConflictKind.BOTH_CHANGED
        self.conflicts.append(Conflict(kind, self._part, self._identity, path, base, current, mine))

    def value(self, path: str, base: Any, current: Any, mine: Any) -> Any:
        """One value. Recursion is bounded by the depth that is looked into."""
        if any(is_deeper(side, MAX_READABLE_DEPTH) for side in (current, mine)):
            return self._whole(path, base, current, mine)
        return self._looked_into(path, base, current, mine)

    def data(self, base: Any, current: Any, mine: Any) -> Any:
        """A `moduleData`: what only one of them rewrote stays as it is spelled, else the objects in it are merged."""
        if _agreed(base, current, mine) is not None:
            return _settled(base, current, mine)
        objects = [read_data(side) for side in (base, current, mine)]
        if any(found is None for found in objects) or not all(_is_exact(side) for side in (current, mine)):
            return self._whole("moduleData", base, current, mine)
        if _agreed(*objects) is not None:
            # One of them only spelled it otherwise.
            return current if equal_json(objects[0], objects[2]) and not equal_json(*objects[:2]) else mine
        return orjson.dumps(self._looked_into("moduleData", *objects)).decode()

    def _looked_into(self, path: str, base: Any, current: Any, mine: Any) -> Any:
        if base is ABSENT and isinstance(current, Mapping) and isinstance(mine, Mapping):
            base = {}
        if not all(isinstance(side, Mapping) for side in (base, current, mine)) or _agreed(base, current, mine):
            return self._whole(path, base, current, mine)
        merged = {}
        for key in keys_of(mine, current, base):
            values = (side.get(key, ABSENT) for side in (base, current, mine))
            value = self._looked_into(path_of(path, key), *values)
            if value is not ABSENT:
                merged[key] = value
        return merged

    def _whole(self, path: str, base: Any, current: Any, mine: Any) -> Any:
        if _agreed(base, current, mine) is not None:
            return _settled(base, current, mine)
        self.conflict(path, base, current, mine)
        return mine


def _agreed(base: Any, current: Any, mine: Any) -> str | None:
    """Whose value stands where not both changed it, or both did alike; None where they differ."""
    if equal_json(current, mine) or equal_json(base, current):
        return "mine"
    return "current" if equal_json(base, mine) else None


def _settled(base: Any, current: Any, mine: Any) -> Any:
    return current if _agreed(base, current, mine) == "current" else mine


def _is_exact(text: str) -> bool:
    """Whether JSON text can be read and written again without losing a digit."""
    numbers: list[bool] = []

    def of_integer(digits: str) -> int:
        numbers.append(len(digits) < 20 and -_LARGEST <= int(digits) < _LARGEST)
        return 0

    def of_fraction(digits: str) -> float:
        value = float(digits)
        numbers.append(Decimal(repr(value)) == Decimal(digits))
        return value

    json.loads(text, parse_int=of_integer, parse_float=of_fraction)
    return all(numbers)
