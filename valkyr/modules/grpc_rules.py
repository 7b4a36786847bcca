"""What an operator sets for GrpcCallModule: which servers it may reach, and how much they may say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from valkyr.modules.reach import Reach


@dataclass(frozen=True, slots=True)
class GrpcRules(Reach):
    """`max_message_bytes` is for each direction, `max_schema_bytes` for all that reflection tells of one method.
    `ca_file`: PEM certificates to trust instead of the usual ones."""

    max_message_bytes: int = 1_000_000
    max_metadata_bytes: int = 32_768
    max_schema_bytes: int = 4_000_000
    default_timeout: timedelta = timedelta(seconds=30)
    max_timeout: timedelta = timedelta(minutes=5)
    ca_file: str | None = None
