"""What the texts of options mean: durations, moments, JSON values."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from valkyr.cli.graph_files import STDIN, read_document
from valkyr.cli.located import Unreadable
from valkyr.duration import parse_duration
from valkyr.errors import InvalidRequest

JSON_METAVAR = "JSON|@FILE|-"
_DATE = re.compile(r"[12][0-9]{7}")
"""20260301 is a day, and not so many seconds."""


def read_duration(text: str) -> timedelta:
    """30, 30s, 2m, 1h, 7d or ISO 8601 such as PT1M30S; for options, so a bad one is a usage error."""
    plain = text.strip().lower()
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(plain[-1:], 0)
    number = plain[:-1] if unit else plain
    if number.replace(".", "", 1).isdecimal():
        return timedelta(seconds=float(number) * (unit or 1))
    try:
        return parse_duration(text.strip().upper())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no duration; say 30s, 2m, 1h or PT1M30S") from None


def read_moment(text: str) -> datetime:
    """A time with its zone such as 2026-03-01T18:00:00Z, or how long from now (2h); a bad one is a usage error."""
    if not _DATE.fullmatch(text.strip()):
        with suppress(typer.BadParameter, OverflowError):
            return datetime.now(UTC) + read_duration(text)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        hint = "say how long from now (30m, 2h), or a time such as 2026-03-01T18:00:00Z"
        raise typer.BadParameter(f"{text[:40]!r} is no time; {hint}") from None
    if when.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone; say {text.strip()}Z for UTC, or {text.strip()}+01:00")
    return when


def read_past_moment(text: str) -> datetime:
    """How long ago (2h, 7d), or a time such as 2026-03-01 or 2026-03-01T18:00:00Z, UTC without a zone; a bad one is a
    usage error."""
    if not _DATE.fullmatch(text.strip()):
        with suppress(typer.BadParameter, OverflowError):
            return datetime.now(UTC) - read_duration(text)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        hint = "say how long ago (30m, 2h, 7d), or a time such as 2026-03-01 or 2026-03-01T18:00:00Z"
        raise typer.BadParameter(f"{text[:40]!r} is no time; {hint}") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def read_json_value(text: str, option: str) -> Any:
    """The JSON value that JSON, @FILE or - (standard input) means. InvalidRequest naming `option` for anything else."""
    if text == STDIN or text.startswith("@"):
        name = text if text == STDIN else text[1:]
        try:
            return read_document(name).value
        except Unreadable as error:
            where = f"{name}:{error.position.line}:{error.position.column}"
            raise InvalidRequest.of_field(option, f"{where}: {error}", hint=error.hint) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "give JSON such as '{\"order\": 17}', or @FILE"
        raise InvalidRequest.of_field(option, f"{text[:60]!r} is not JSON: {error}", hint=hint) from None
