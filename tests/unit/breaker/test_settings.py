"""The settings of the breaker: v1's names and defaults, and bounds."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from services.breaker.model.policy import OnUnavailable, Policy
from services.breaker.settings import BreakerSettings
from services.chassis.settings import SettingsError, load_settings

URL = {"VALKYR_DATABASE_URL": "postgresql://valkyr@localhost/valkyr"}


def load(**environ: str) -> BreakerSettings:
    return load_settings(BreakerSettings, section="breaker", environ={**URL, **environ})


def test_the_defaults_are_those_of_v1() -> None:
    settings = load()
    assert settings.enabled
    assert settings.policy() == Policy(5, timedelta(seconds=30), 2, 2, OnUnavailable.ALLOW)
    assert settings.server.port == 50053


def test_yaml_and_environment_give_the_policy(tmp_path: Path) -> None:
    file = tmp_path / "valkyr.yaml"
    file.write_text(
        "breaker: {enabled: false, failure-threshold: 7, timeout-duration: PT5S, half-open-success-threshold: 3,"
        " half-open-permits: 4, on-unavailable: DENY}"
    )
    settings = load(VALKYR_CONFIG=str(file), VALKYR_BREAKER__FAILURE_THRESHOLD="8")
    assert not settings.enabled
    assert settings.policy() == Policy(8, timedelta(seconds=5), 4, 3, OnUnavailable.DENY)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("FAILURE_THRESHOLD", "0", "breaker.failure-threshold"),
        ("HALF_OPEN_PERMITS", "0", "breaker.half-open-permits"),
        ("TIMEOUT_DURATION", "5 s", "breaker.timeout-duration"),
        ("TIMEOUT_DURATION", "PT0S", "PT0.1S"),
        ("ON_UNAVAILABLE", "perhaps", "'ALLOW' or 'DENY'"),
        ("RETENTION__RECOVERED", "P6D", "takes at least P7D"),
        ("RETENTION__HISTORY", "P1D", "takes at least P7D"),
        ("TRESHOLD", "1", "breaker.treshold"),
    ],
)
def test_a_wrong_setting_is_named(key: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(**{f"VALKYR_BREAKER__{key}": value})
