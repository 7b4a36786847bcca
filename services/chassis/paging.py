"""Pages of lists: sizes within bounds, and opaque tokens that belong to one query."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from valkyr.errors import InvalidRequest

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Of the messages of a page: with its token they fit into an answer."""
_HASH_BYTES = 9

Place = Sequence[str | int | None]
"""Where a page ended: the ordering columns of its last row."""


def page_size_of(request: Any) -> int:
    """`request.page_size`, 100 if it is 0. InvalidRequest if it is negative or over 1,000."""
    size: int = request.page_size
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise InvalidRequest.of_field(
            "pageSize", f"{size} is not from 1 to {MAX_PAGE_SIZE} (0 for {DEFAULT_PAGE_SIZE})"
        )
    return size or DEFAULT_PAGE_SIZE


def fitting(messages: Iterable[Any]) -> list[Any]:
    """The first of a page's messages, as many as fit into an answer, one at least."""
    fits: list[Any] = []
    size = 0
    for message in messages:
        size += message.ByteSize() + 8
        if fits and size > MAX_PAGE_BYTES:
            break
        fits.append(message)
    return fits


def page_token(request: Any, place: Place) -> str:
    """The token of the page after `place` of the list that `request` asks for."""
    return base64.urlsafe_b64encode(_hash_of(request) + orjson.dumps(list(place))).decode().rstrip("=")


def page_place(request: Any) -> list[Any] | None:
    """Where the page before ended, None for the first page. The token says nothing about types: check them.

    InvalidRequest naming pageToken if it was not given out for this very list.
    """
    token: str = request.page_token
    if not token:
        return None
    try:
        content = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        place = orjson.loads(content[_HASH_BYTES:])
    except (binascii.Error, ValueError):
        raise bad_page_token(token) from None
    if not isinstance(place, list) or content[:_HASH_BYTES] != _hash_of(request):
        raise bad_page_token(token)
    return place


def bad_page_token(token: str) -> InvalidRequest:
    """For a token that decodes, but to something that is no place in the list."""
    return InvalidRequest.of_field(
        "pageToken",
        f"{token[:64]!r} was not given out for this list; take nextPageToken of the same request's answer",
    )


def _hash_of(request: Any) -> bytes:
    """Of everything in the request but page size and token."""
    query = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_token")
    query.ClearField("page_size")
    name: str = query.DESCRIPTOR.full_name
    content: bytes = query.SerializeToString(deterministic=True)
    return hashlib.blake2b(name.encode() + b"\0" + content, digest_size=_HASH_BYTES).digest()
