"""Settings of the executor: YAML section `executor`, variables VALKYR_EXECUTOR__...; names and defaults as in v1."""

from __future__ import annotations

import importlib
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from services.chassis.settings import Duration, Interval, RoomSettings, SettingsModel, StringList
from valkyr.duration import format_duration

MAX_CONCURRENCY = 10_000
LEAST_KEPT = timedelta(hours=1)
"""Longer than anybody repeats a call whose answer was lost: clients do so for minutes."""


def _are_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        ip_network(network)
    return networks


def _are_importable(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Imports them: one that cannot be is said with everything else that is wrong, before anything is started."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{name} cannot be imported: {why}; put its file beside the Makefile, or its folder on PYTHONPATH"
            ) from error
    return modules


def _outlives_repeats(kept: timedelta) -> timedelta:
    if kept < LEAST_KEPT:
        raise ValueError(
            f"takes at least {format_duration(LEAST_KEPT)}: a request that is repeated after it was forgotten would be"
            " carried out twice"
        )
    return kept


class ExecutionSettings(SettingsModel):
    """`enabled: false` refuses new executions; what runs goes on."""

    enabled: bool = True
    track_metrics: bool = Field(default=True, description="not acted upon yet")


class LeaseSettings(SettingsModel):
    """How long a run belongs to a runner that says nothing, and how often it says something."""

    duration: Duration = timedelta(minutes=2)
    heartbeat_interval: Duration = timedelta(seconds=2)

    @model_validator(mode="after")
    def _leaves_room_for_heartbeats(self) -> Self:
        if self.heartbeat_interval < timedelta(milliseconds=100):
            raise ValueError("heartbeat-interval is at least PT0.1S")
        if self.duration < 3 * self.heartbeat_interval:
            raise ValueError("duration is at least three heartbeat-intervals, or one lost heartbeat costs a lease")
        return self


class RetrySettings(SettingsModel):
    """Budgets and back-off. A node, its graph or its module may say otherwise about attempts and back-off."""

    max_attempts: int = Field(default=3, ge=1, le=1000, description="failures until one is final")
    max_requeues: int = Field(default=5, ge=0, le=1_000_000, description="requeues of one run without force")
    max_lost_leases: int = Field(default=5, ge=1, le=1000)
    backoff_base_ms: int = Field(default=1000, ge=0, le=3_600_000)
    backoff_max_ms: int = Field(default=30_000, ge=0, le=86_400_000)


class ReaperSettings(SettingsModel):
    """`scan-interval` is the upper bound: the reaper looks when the next lease runs out."""

    enabled: bool = True
    scan_interval: Interval = timedelta(seconds=30)


class ReachSettings(SettingsModel):
    """Where calls of graphs may go beside public addresses over TLS."""

    allow_hosts: StringList = Field(default=(), description="host or host:port, opened by name, also without TLS")
    allow_networks: Annotated[StringList, AfterValidator(_are_networks)] = Field(
        default=(), description="networks such as 10.1.0.0/16"
    )


class HttpSettings(ReachSettings):
    """Of HttpRequestModule."""


class GrpcSettings(ReachSettings):
    """Of GrpcCallModule."""


class EmailSettings(ReachSettings):
    """Of EmailModule."""

    credentials_folder: str | None = Field(
        default=None, min_length=1, description="folder with a folder for each name: username, password, host"
    )


class RunnerSettings(SettingsModel):
    """The executor's own pool of runners."""

    id: str | None = Field(default=None, max_length=200, description="unset: made once and kept in VALKYR_HOME")
    pool: str = Field(default="default", min_length=1, max_length=255)
    concurrency: int = Field(default=10, ge=0, le=MAX_CONCURRENCY, description="0: this executor runs nothing itself")
    poll_interval: Interval = Field(default=timedelta(seconds=5), description="upper bound on noticing work")
    cancel_grace: Duration = Field(default=timedelta(seconds=10), description="for what is told to stop")
    drain_grace: Duration = Field(default=timedelta(seconds=10), description="for modules that run at the end")
    unknown_as_noop: bool = Field(default=False, description="runs classes nobody knows as NoopModule")
    modules: Annotated[StringList, AfterValidator(_are_importable)] = Field(
        default=(), description="Python modules with @module functions, imported at start"
    )
    lease: LeaseSettings = LeaseSettings()
    retry: RetrySettings = RetrySettings()
    zombie_reaper: ReaperSettings = ReaperSettings()
    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    email: EmailSettings = EmailSettings()


class LimitSettings(SettingsModel):
    """How large a request may be."""

    payload_bytes: int = Field(default=1024 * 1024, ge=2, le=16 * 1024 * 1024)
    starts: int = Field(default=1_000, ge=1, le=10_000, description="executions in one StartExecutions")
    runs_per_start: int = Field(default=100_000, ge=1, le=1_000_000, description="runs of one StartExecutions in all")


class RequestSettings(SettingsModel):
    """How long requests to pause and to resume are remembered, so that a repeated one changes nothing."""

    kept: Annotated[Duration, AfterValidator(_outlives_repeats)] = timedelta(hours=24)
    prune_interval: Interval = timedelta(minutes=10)


class ExecutorSettings(RoomSettings):
    """What the executor needs to start."""

    section: ClassVar[str] = "executor"
    graph_store: str = Field(default="", description="host:port; unset: on this machine, by VALKYR_PORT_BASE")
    breaker: str = Field(default="", description="host:port; unset: on this machine, by VALKYR_PORT_BASE")
    dlq: str = Field(default="", description="host:port; unset: on this machine, by VALKYR_PORT_BASE")
    execution: ExecutionSettings = ExecutionSettings()
    runner: RunnerSettings = RunnerSettings()
    limits: LimitSettings = LimitSettings()
    requests: RequestSettings = RequestSettings()
