"""A bug that can be planted: the text that stands in a file, and what would stand there instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """`before` stands exactly once in `file`."""

    name: str
    file: str
    before: str
    after: str
