"""The order of what a merge keeps. Nothing that runs depends on it; people who read the file do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from valkyr.graph.parts import Key


def merged_order(base: Sequence[Key], current: Sequence[Key], mine: Sequence[Key], kept: Collection[Key]) -> list[Key]:
    """The keys of `kept`: in the order of the side that reordered, mine if both did or neither.

    What only the other side has stands behind what it stood behind there.
    """
    only_current = _is_reordered(base, current) and not _is_reordered(base, mine)
    first, second = (current, mine) if only_current else (mine, current)
    backbone = dict.fromkeys(key for key in first if key in kept)
    behind: defaultdict[Key | None, list[Key]] = defaultdict(list)
    anchor: Key | None = None
    for key in second:
        if key in backbone:
            anchor = key
        elif key in kept:
            behind[anchor].append(key)
    return list(_woven(backbone, behind))


def _woven(backbone: Iterable[Key], behind: defaultdict[Key | None, list[Key]]) -> Iterable[Key]:
    yield from behind.get(None, ())
    for key in backbone:
        yield key
        yield from behind.get(key, ())


def _is_reordered(base: Sequence[Key], side: Sequence[Key]) -> bool:
    both = set(base).intersection(side)
    return [key for key in base if key in both] != [key for key in side if key in both]
