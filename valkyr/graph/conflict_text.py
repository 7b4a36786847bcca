"""Conflicts of a merge as text: a sentence each, the three values below it, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.diff_text import name_of
from valkyr.graph.one_line import ELLIPSIS, cut, one_line, value_text
from valkyr.graph.parts import ABSENT

MAX_CONFLICTS = 100
_WIDTH = 160


def conflict_lines(conflicts: Sequence[Conflict], *, limit: int = MAX_CONFLICTS) -> list[str]:
    """The lines of the first `limit` conflicts, with a last one that counts the others."""
    lines = [line for conflict in conflicts[:limit] for line in _lines(conflict)]
    if len(conflicts) > limit:
        lines.append(f"{ELLIPSIS} {len(conflicts) - limit:,} more conflicts")
    return lines


def sentence_of(conflict: Conflict) -> str:
    """What cannot both be, in a sentence."""
    what = name_of(conflict.part, conflict.id)
    remover, keeper = ("current", "mine") if conflict.current is ABSENT else ("mine", "current")
    match conflict.kind:
        case ConflictKind.BOTH_CHANGED:
            return f"{what}: both changed {one_line(conflict.path)}"
        case ConflictKind.BOTH_ADDED:
            return f"{what}: both added it, differently"
        case ConflictKind.CHANGED_AND_REMOVED:
            return f"{what}: {remover} removed what {keeper} changed"
        case ConflictKind.EDGE_TO_REMOVED_NODE:
            node_id = value_text(conflict.mine if conflict.current is ABSENT else conflict.current)
            way = "to" if conflict.path == "target" else "from"
            return f"{what}: {keeper} leads {way} node {node_id}, which {remover} removed"
        case ConflictKind.MODULE_OF_REMOVED_NODE:
            return f"{what}: {keeper} gave a module to a node that {remover} removed"


def _lines(conflict: Conflict) -> Iterator[str]:
    yield f"conflict: {cut(sentence_of(conflict), _WIDTH)}"
    for side in ("base", "current", "mine"):
        yield f"  {side:<8} {cut(value_text(getattr(conflict, side)), _WIDTH)}"
