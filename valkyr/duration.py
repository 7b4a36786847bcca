"""ISO 8601 durations, bounded: days, hours, minutes and seconds; no months, years or negatives."""

from __future__ import annotations

import re
from datetime import timedelta

MAX_DURATION = timedelta(days=3660)

ISO_8601_PATTERN = (
    r"^P(?=[0-9T])(?:[0-9]{1,6}D)?"
    r"(?:T(?=[0-9])(?:[0-9]{1,9}H)?(?:[0-9]{1,9}M)?(?:[0-9]{1,12}(?:[.,][0-9]{1,9})?S)?)?$"
)
"""What `parse_duration` reads, for JSON Schemas; only the bound of MAX_DURATION cannot be said there."""

_ISO_8601 = re.compile(
    r"P(?:(?P<days>[0-9]{1,6})D)?"
    r"(?:T(?=[0-9])(?:(?P<hours>[0-9]{1,9})H)?(?:(?P<minutes>[0-9]{1,9})M)?(?:(?P<seconds>[0-9]{1,12}(?:[.,][0-9]{1,9})?)S)?)?"
)


def parse_duration(text: str) -> timedelta:
    """`PT30S`, `PT1H30M`, `P1DT0.25S` as a timedelta, to the microsecond.

    ValueError, saying what it takes, for anything else and for more than 3660 days.
    """
    match = _ISO_8601.fullmatch(text)
    if match is None or all(part is None for part in match.groups()):
        raise ValueError(
            f"{text[:64]!r} is no duration: write ISO 8601 with days, hours, minutes, seconds, such as PT30S or P1DT12H"
        )
    days, hours, minutes, seconds = match.groups()
    whole, _, fraction = (seconds or "0").replace(",", ".").partition(".")
    try:
        duration = timedelta(
            days=int(days or 0),
            hours=int(hours or 0),
            minutes=int(minutes or 0),
            seconds=int(whole),
            microseconds=int((fraction + "000000")[:6]),
        )
    except OverflowError:
        duration = timedelta.max
    if duration > MAX_DURATION:
        raise ValueError(f"{text[:64]!r} is longer than {MAX_DURATION.days} days")
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest ISO 8601 spelling, as `parse_duration` reads it: `PT0S`, `PT1M30S`.

    ValueError if negative.
    """
    if duration < timedelta(0):
        raise ValueError(f"{duration} is negative: ISO 8601 durations here are not")
    hours, rest = divmod(duration.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{duration.microseconds:06d}".rstrip("0") if duration.microseconds else ""
    time = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    time += f"{seconds}{fraction}S" if seconds or fraction else ""
    days = f"{duration.days}D" if duration.days else ""
    return "P" + days + (f"T{time}" if time else "") if days or time else "PT0S"
