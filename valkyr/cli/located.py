"""A document read from a file, which knows on which line each of its values stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Position(NamedTuple):
    """Both counted from 1."""

    line: int
    column: int


START = Position(1, 1)


class Unreadable(Exception):
    """A file that holds no document: `str(error)` says what is wrong, `position` where."""

    def __init__(self, code: str, message: str, position: Position = START, *, path: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.position = position
        self.path = path
        self.hint = hint


class LocatedDocument:
    """`value` as JSON-able values; `position_of` maps a path as findings name it (`nodes[3].nodeId`) to its place."""

    def __init__(self, source: str, value: Any, find_positions: Callable[[], Mapping[str, Position]]) -> None:
        self.source = source
        self.value = value
        self._find_positions = find_positions
        self._positions: Mapping[str, Position] | None = None

    def position_of(self, path: str) -> Position:
        """Where the value at `path` stands, or the nearest value around it."""
        if self._positions is None:
            self._positions = self._find_positions()
        while path:
            if path in self._positions:
                return self._positions[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._positions.get("", START)


def child_path(path: str, key: str | int) -> str:
    """The path of a member of a list (int) or of an object (str)."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key
