"""Pages of lists: sizes within bounds, and tokens that say where the next page begins."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson

from valkyr.errors import InvalidRequest

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000


def page_size_of(given: int) -> int:
    """The size asked for, 100 if none was. InvalidRequest if negative or over 1,000."""
    if not 0 <= given <= MAX_PAGE_SIZE:
        raise InvalidRequest.of_field(
            "pageSize", f"{given} is out of range; at most {MAX_PAGE_SIZE:,}, or 0 for {DEFAULT_PAGE_SIZE}"
        )
    return given or DEFAULT_PAGE_SIZE


def version_token(version: int) -> str:
    """The page after this version."""
    return _encode(["version", version])


def read_version_token(token: str) -> int | None:
    """The version that the page before ended with, None for the first page. InvalidRequest."""
    match _decode(token):
        case None:
            return None
        case ["version", int(version)]:
            return version
        case _:
            raise _bad_token(token)


def workflow_token(created_at: datetime, workflow_id: str) -> str:
    """The page after this workflow."""
    return _encode(["workflow", created_at.astimezone(UTC).isoformat(), workflow_id])


def read_workflow_token(token: str) -> tuple[datetime, str] | None:
    """The workflow that the page before ended with, None for the first page. InvalidRequest."""
    match _decode(token):
        case None:
            return None
        case ["workflow", str(created_at), str(workflow_id)]:
            try:
                return datetime.fromisoformat(created_at).astimezone(UTC), str(uuid.UUID(workflow_id))
            except (ValueError, OverflowError):
                raise _bad_token(token) from None
        case _:
            raise _bad_token(token)


def _encode(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _decode(token: str) -> Any:
    if not token:
        return None
    try:
        return orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        raise _bad_token(token) from None


def _bad_token(token: str) -> InvalidRequest:
    return InvalidRequest.of_field(
        "pageToken", f"{token[:64]!r} was not given out by this list; take next_page_token of the page before"
    )
