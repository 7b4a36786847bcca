"""A diff as text that looks like one: a hunk of `-` and `+` lines for each part, a line per value, no colours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from valkyr.graph.diff import ABSENT, Change, ChangeKind, GraphDiff, Part
from valkyr.graph.one_line import ELLIPSIS, one_line, value_text
from valkyr.graph.parts import path_of, read_data

MAX_LINES = 2_000
MAX_VALUE = 160
_MAX_MOVES = 20
_MAX_TEXT_LINES = 400
_CONTEXT = 30
_LISTS = {Part.NODE: "nodes", Part.EDGE: "edges", Part.MODULE: "modules"}


def diff_lines(diff: GraphDiff, *, old: str = "old", new: str = "new", limit: int = MAX_LINES) -> list[str]:
    """The lines, about `limit` of them at most, with a last one that says what was left out. Empty without difference.

    The first character of each says what it is, as in any diff: `-`, `+`, `@`, or a blank.
    """
    if not diff:
        return []
    lines = [f"--- {one_line(old)}", f"+++ {one_line(new)}"]
    hunks = [list(group) for _, group in groupby(diff.changes, key=lambda change: (change.part, change.id))]
    for index, hunk in enumerate(hunks):
        if len(lines) >= limit:
            left_out = sum(len(hunk) for hunk in hunks[index:])
            lines.append(f" {ELLIPSIS} {_count(left_out, 'change')} more, in {_count(len(hunks) - index, 'part')}")
            break
        lines.extend(_hunk(hunk))
    lines.extend(_moves(diff.moves))
    if diff.reordered:
        lines.append(f"@@ {', '.join(_LISTS[part] for part in diff.reordered)}: in another order @@")
    return lines


def name_of(part: Part, identity: str) -> str:
    """What a part is called in a sentence: `node charge`, `the settings`."""
    match part:
        case Part.SETTINGS | Part.WORKFLOW:
            return f"the {part.value.lower()}"
        case Part.MODULE:
            return f"module of {one_line(identity) or '(empty)'}"
        case _:
            return f"{part.value.lower()} {one_line(identity) or '(empty)'}"


def _hunk(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        if change.kind is ChangeKind.RENAMED:
            yield f"@@ {name_of(change.part, change.id)} renamed @@"
            yield from _sides(change.path, change.old, change.new)
        elif change.kind in (ChangeKind.ADDED, ChangeKind.REMOVED):
            sign, whole = ("+", change.new) if change.kind is ChangeKind.ADDED else ("-", change.old)
            yield f"@@ {name_of(change.part, change.id)} {change.kind.value.lower()} @@"
            yield from (f"{sign}{one_line(path)}: {_cut(value_text(value))}" for path, value in _fields_of(whole))
    changed = [change for change in changes if change.kind is ChangeKind.CHANGED]
    if changed:
        yield f"@@ {name_of(changed[0].part, changed[0].id)} @@"
        for change in changed:
            yield from _sides(change.path, change.old, change.new)


def _fields_of(whole: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a part, the keys of a config each by itself. Nothing where the part did not travel."""
    if whole is ABSENT:
        return
    for key, value in whole.items():
        inner = read_data(value) if key == "moduleData" else value
        if key in ("config", "moduleData") and isinstance(inner, Mapping) and inner:
            yield from ((path_of(key, name), item) for name, item in inner.items())
        else:
            yield key, value


def _sides(path: str, old: Any, new: Any) -> Iterator[str]:
    where = one_line(path)
    if isinstance(old, str) and isinstance(new, str) and "\n" in old and "\n" in new:
        before, after = old.splitlines(), new.splitlines()
        if max(len(before), len(after)) <= _MAX_TEXT_LINES and before != after:
            yield f" {where}:"
            yield from _text_lines(before, after)
            return
    before_text, after_text = _cut_both(value_text(old), value_text(new))
    if old is not ABSENT:
        yield f"-{where}: {before_text}"
    if new is not ABSENT:
        yield f"+{where}: {after_text}"


def _text_lines(old: Sequence[str], new: Sequence[str]) -> Iterable[str]:
    """The lines of a text of several, with what stands around those that differ."""
    for line in list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]:
        if not line.startswith("@"):
            yield f"{line[0]}  {_cut(one_line(line[1:]))}"
        elif not line.startswith(("@@ -1 ", "@@ -1,")):
            yield f"   {ELLIPSIS}"


def _moves(moves: Sequence[Change]) -> Iterator[str]:
    if not moves:
        return
    yield f"@@ layout: {_count(len(moves), 'node')} moved @@"
    for change in moves[:_MAX_MOVES]:
        yield f" {one_line(change.id)}: {_place(change.old)} -> {_place(change.new)}"
    if len(moves) > _MAX_MOVES:
        yield f" {ELLIPSIS} {_count(len(moves) - _MAX_MOVES, 'node')} more"


def _place(position: Any) -> str:
    return f"({position['x']}, {position['y']})" if isinstance(position, Mapping) else "nowhere"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}{ELLIPSIS} ({len(text) - MAX_VALUE:,} more)"


def _cut_both(old: str, new: str) -> tuple[str, str]:
    """Long values without what they begin with alike, so that the difference is within what is shown."""
    if max(len(old), len(new)) > MAX_VALUE:
        same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        if same > 2 * _CONTEXT:
            old, new = (ELLIPSIS + text[same - _CONTEXT :] for text in (old, new))
    return _cut(old), _cut(new)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
