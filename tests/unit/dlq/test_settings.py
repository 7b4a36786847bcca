"""The section `dlq`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.chassis.settings import SettingsError, load_settings
from services.dlq.settings import DlqSettings

ENVIRONMENT = {"VALKYR_DATABASE_URL": "postgresql://valkyr@localhost/valkyr"}


def load(**variables: str) -> DlqSettings:
    return load_settings(DlqSettings, section="dlq", environ={**ENVIRONMENT, **variables})


def test_defaults() -> None:
    settings = load()
    assert (settings.max_requeues, settings.executor, settings.server.port) == (5, "", 50054)
    assert settings.requests.kept == timedelta(hours=24)


def test_variables() -> None:
    settings = load(VALKYR_DLQ__MAX_REQUEUES="0", VALKYR_DLQ__EXECUTOR="executor:50052", VALKYR_PORT_BASE="60000")
    assert (settings.max_requeues, settings.executor, settings.server.port) == (0, "executor:50052", 60003)


def test_every_wrong_key_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        load(VALKYR_DLQ__MAX_REQUEUES="many", VALKYR_DLQ__MAX_REQUEUE="5", VALKYR_DLQ__INTENTS__BACKOFF_MAX="1 m")
    assert len(caught.value.problems) == 3
