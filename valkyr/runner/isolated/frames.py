"""What a runner and a child process say to each other: JSON with bytes behind it, in frames of bounded length. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

MAX_ANSWER = 2 * 1024 * 1024
"""Of a frame from a child: outputs of 1 MiB, or a failure with its traceback, and room to spare."""

MAX_ORDER = 64 * 1024 * 1024
"""Of a frame to a child: inputs, config and settings."""

_SIZES = struct.Struct("!II")


class Kind(StrEnum):
    """SET_UP, TRUST, RUN and CANCEL go to the child, the others come from it."""

    SET_UP = "SET_UP"
    TRUST = "TRUST"
    RUN = "RUN"
    CANCEL = "CANCEL"
    READY = "READY"
    UNFIT = "UNFIT"
    LOG = "LOG"
    PROGRESS = "PROGRESS"
    ENDED = "ENDED"


class BrokenFrame(Exception):
    """What came is no frame of ours."""


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    fields: Mapping[str, Any]
    body: bytes = b""

    def encoded(self) -> bytes:
        head = orjson.dumps({**self.fields, "kind": self.kind})
        return b"".join((_SIZES.pack(len(head), len(self.body)), head, self.body))


class FrameReader:
    """Bytes in, whole frames out. BrokenFrame for a frame of over `limit` bytes, before it has come, or of no JSON."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[Frame]:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _SIZES.size:
            head, body = _SIZES.unpack_from(buffer)
            if head + body > self._limit:
                raise BrokenFrame(f"a frame of {head + body} bytes, and {self._limit} are allowed")
            end = _SIZES.size + head + body
            if len(buffer) < end:
                return
            text, rest = bytes(buffer[_SIZES.size : _SIZES.size + head]), bytes(buffer[_SIZES.size + head : end])
            del buffer[:end]
            yield _frame(text, rest)


def _frame(head: bytes, body: bytes) -> Frame:
    try:
        fields = orjson.loads(head)
        return Frame(Kind(fields.pop("kind")), fields, body)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BrokenFrame("a frame that cannot be read") from None
