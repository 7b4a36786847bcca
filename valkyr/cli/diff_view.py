"""How diffs and conflicts look: `-` red, `+` green, and the part they are about; colours on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from valkyr.errors import Difference, Disagreement
from valkyr.graph.conflict_text import conflict_lines
from valkyr.graph.conflicts import Conflict, conflicts_of
from valkyr.graph.diff import ChangeKind, GraphDiff, changes_of
from valkyr.graph.diff_text import diff_lines
from valkyr.graph.one_line import one_line

_HEADER = 2
_STYLES = {"-": "red", "+": "green", "@": "cyan"}
_SIDES = {"  base": "dim", "  curr": "yellow", "  mine": "green"}


def diff_text(diff: GraphDiff, *, old: str, new: str) -> list[Text]:
    """The lines of a diff, in colour. Empty without difference."""
    lines = diff_lines(diff, old=old, new=new)
    return [Text(line, "bold") for line in lines[:_HEADER]] + list(_coloured(lines[_HEADER:]))


def differences_text(differences: Sequence[Difference]) -> list[Text]:
    """The lines of a diff that an error carries; what only a newer server knows is named plainly."""
    try:
        changes = changes_of(differences)
    except ValueError:
        return [Text(one_line(f" {entry.kind} {entry.part} {entry.id} {entry.path}")) for entry in differences]
    diff = GraphDiff(
        changes=tuple(change for change in changes if change.kind is not ChangeKind.MOVED),
        moves=tuple(change for change in changes if change.kind is ChangeKind.MOVED),
    )
    return list(_coloured(diff_lines(diff)[_HEADER:]))


def conflicts_text(conflicts: Sequence[Conflict]) -> list[Text]:
    """The lines of conflicts, in colour."""
    return [_conflict_line(line) for line in conflict_lines(conflicts)]


def disagreements_text(disagreements: Sequence[Disagreement]) -> list[Text]:
    """The lines of conflicts that an error carries; what only a newer server knows is named plainly."""
    try:
        return conflicts_text(conflicts_of(disagreements))
    except ValueError:
        return [Text(one_line(f" {entry.kind} {entry.part} {entry.id} {entry.path}")) for entry in disagreements]


def drawing_text(lines: Iterable[str]) -> list[Text]:
    """A drawing of a graph, its layers set off."""
    return [Text(line, "" if line.startswith(" ") else "bold") for line in lines]


def _coloured(lines: Iterable[str]) -> Iterator[Text]:
    return (Text(line, _STYLES.get(line[:1], "")) for line in lines)


def _conflict_line(line: str) -> Text:
    return Text(line, "bold" if line.startswith("conflict") else _SIDES.get(line[:6], ""))
