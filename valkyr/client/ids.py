"""Ids that the caller's side makes."""

from __future__ import annotations

import uuid_utils


def new_request_id() -> str:
    """A UUIDv7: sorts by time, and makes a call safe to repeat."""
    return str(uuid_utils.uuid7())
