"""ISO 8601 durations."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from valkyr.duration import ISO_8601_PATTERN, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", 0),
        ("PT30S", 30),
        ("PT1.5S", 1.5),
        ("PT0.000001S", 0.000001),
        ("PT0,5S", 0.5),
        ("PT2M", 120),
        ("PT1H30M", 5400),
        ("P1D", 86400),
        ("P1DT12H", 129600),
        ("P3660D", 3660 * 86400),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert re.search(ISO_8601_PATTERN, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "P", "PT", "P1DT", "30", "30s", "PT30", "P1M", "P1Y", "P1W", "-PT1S", "PT-1S", "+PT1S", "PT1S ", "pt1s"),
        *("P3661D", "PT999999999H", "P999999D", "PT1M1H", "PT1.S", "PT.5S", "PT1.5M", "PT٣S", "P1DT1H1H"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_duration(text)
    assert bool(re.search(ISO_8601_PATTERN, text)) == ("longer than" in str(refused.value)), (
        "schemas agree but for the bound"
    )


@pytest.mark.parametrize("text", ["PT0S", "PT1M30S", "P1DT0.25S", "PT1H", "P2D", "PT0.000001S", "P1DT1H1M1.5S"])
def test_what_was_written_is_read_back(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


def test_a_negative_duration_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))
