"""Settings of the dead letter queue: YAML section `dlq`, variables VALKYR_DLQ__..."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from services.chassis.settings import Duration, Interval, RoomSettings, SettingsModel, Timeout


class RequestSettings(SettingsModel):
    """How long answered requests are remembered, so that a repeated one gets the first answer."""

    kept: Duration = timedelta(hours=24)
    prune_interval: Interval = timedelta(minutes=10)


class IntentSettings(SettingsModel):
    """How a resolution is carried out that the executor has not answered yet.

    A call to the executor ends before the ten seconds that a client waits, so that one that hangs is UNAVAILABLE."""

    call_timeout: Timeout = Field(default=timedelta(seconds=5), description="of one call to the executor")
    poll_interval: Interval = Field(default=timedelta(seconds=10), description="upper bound on noticing a due one")
    backoff_base: Interval = timedelta(seconds=1)
    backoff_max: Interval = timedelta(minutes=1)


class DlqSettings(RoomSettings):
    """What the dead letter queue needs to start."""

    section: ClassVar[str] = "dlq"
    executor: str = Field(default="", description="host:port; unset: on this machine, by VALKYR_PORT_BASE")
    max_requeues: int = Field(default=5, ge=0, le=1_000_000, description="then a requeue needs `force`")
    requests: RequestSettings = RequestSettings()
    intents: IntentSettings = IntentSettings()
