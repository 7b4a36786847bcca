"""Settings models, and `load_settings`: YAML and environment; everything that is wrong is named at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from valkyr.duration import format_duration, parse_duration

SECTIONS = ("database", "server", "telemetry", "graph-store", "executor", "breaker", "dlq")
TOP_LEVEL_VARIABLES: Mapping[str, str] = {
    "VALKYR_CONFIG": "path of a YAML file with settings",
    "VALKYR_DATABASE_URL": "a PostgreSQL of one's own, postgresql://user:password@host/name",
    "VALKYR_HOME": "folder of the local stack's data",
    "VALKYR_PORT_BASE": "port of the graph store; the other services have the next ones",
    "VALKYR_POSTGRES_BIN": "folder with the programs of PostgreSQL",
    "VALKYR_GRAPH_STORE": "address of the graph store, for clients",
    "VALKYR_EXECUTOR": "address of the executor, for clients",
    "VALKYR_BREAKER": "address of the breaker service, for clients",
    "VALKYR_DLQ": "address of the dead letter queue, for clients",
    "VALKYR_NAMESPACE": "namespace of clients",
    "VALKYR_PRINCIPAL": "who the client says it is",
    "VALKYR_OTLP_ENDPOINT": "collector of traces for clients, such as http://localhost:4317",
    "VALKYR_LOG_LEVEL": "of a runner's log lines: DEBUG, INFO, WARNING or ERROR",
    "VALKYR_DEBUG": "1: the command line shows tracebacks of its own bugs",
    "VALKYR_TESTS_POSTGRES": "folder of the PostgreSQL of a run of the tests",
}
"""Every variable without a section, of any process: whoever reads a new one adds it here."""
DEFAULT_PORT_BASE = 50051
PORT_OFFSETS: Mapping[str, int] = {"graph-store": 0, "executor": 1, "breaker": 2, "dlq": 3}
POSTGRES_VERSIONS = range(15, 19)
LEAST_INTERVAL = timedelta(milliseconds=100)
LONGEST_TIMEOUT = timedelta(hours=1)
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def kebab(name: str) -> str:
    """The spelling of a field in YAML."""
    return name.replace("_", "-")


def _read_duration(value: object) -> object:
    return parse_duration(value.strip()) if isinstance(value, str) else value


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta():
        raise ValueError("a duration is not negative")
    return value


def _at_least(value: timedelta) -> timedelta:
    if value < LEAST_INTERVAL:
        raise ValueError(f"takes at least {format_duration(LEAST_INTERVAL)}")
    return value


def _bounded(value: timedelta) -> timedelta:
    if not LEAST_INTERVAL <= value <= LONGEST_TIMEOUT:
        raise ValueError(f"takes {format_duration(LEAST_INTERVAL)} to {format_duration(LONGEST_TIMEOUT)}")
    return value


def _read_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    AfterValidator(_not_negative),
    PlainSerializer(format_duration, return_type=str),
]
"""ISO 8601 with days, hours, minutes and seconds: PT30S, P1DT12H. No months, years or negatives."""
Interval = Annotated[Duration, AfterValidator(_at_least)]
"""Between two looks of a loop: PT0.1S or more."""
Timeout = Annotated[Duration, AfterValidator(_bounded)]
"""PT0.1S to PT1H: PostgreSQL takes 0 for none at all, and a wait without an end is not what anybody means."""
StringList = Annotated[tuple[str, ...], BeforeValidator(_read_list)]
"""A list in YAML, comma separated in the environment."""


class SettingsModel(BaseModel):
    """Base of every settings model: kebab-case in YAML, unknown keys refused, immutable."""

    model_config = ConfigDict(
        alias_generator=kebab, populate_by_name=True, extra="forbid", frozen=True, validate_default=True
    )


class ServerSettings(SettingsModel):
    """Where and how a server listens."""

    insecure: bool = Field(default=False, description="allows addresses other than loopback, without encryption")
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535, description="0 takes any free port")
    reflection: bool = True
    max_concurrent_streams: int = Field(default=1000, ge=1, le=100_000, description="per connection")
    max_concurrent_rpcs: int = Field(default=8192, ge=1, le=1_000_000, description="of all connections")
    max_connection_age: Duration | None = Field(default=None, description="so that clients find new pods")
    drain_delay: Duration = Field(default=timedelta(), description="between NOT_SERVING and refusing calls")
    drain_grace: Duration = Field(default=timedelta(seconds=10), description="for calls in flight at the end")

    @field_validator("host")
    @classmethod
    def _is_not_open_by_mistake(cls, host: str, others: ValidationInfo) -> str:
        if host in LOOPBACK_HOSTS or others.data.get("insecure", True):
            return host
        raise ValueError(
            "can be reached from other machines, and calls are neither encrypted nor authenticated;"
            " use 127.0.0.1, or start with --insecure (server.insecure: true) to allow it"
        )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK_HOSTS


def _check_database_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("takes postgresql://user:password@host:port/name (a socket folder as ?host=/folder)")
    if "," not in parts.netloc:
        _ = parts.port  # ValueError if it is no number
    if not parts.hostname and "host" not in parse_qs(parts.query):
        raise ValueError("names no host: takes postgresql://user@host/name, or ?host=/folder for a unix socket")
    return url


class DatabaseSettings(SettingsModel):
    """The PostgreSQL of a service, 15 to 18."""

    url: Annotated[str, AfterValidator(_check_database_url)] = Field(repr=False)
    pool_size: int = Field(default=10, ge=1, le=1000, description="connections for hot statements")
    transaction_pool_size: int = Field(default=5, ge=1, le=1000, description="connections for everything else")
    reserved_pool_size: int = Field(default=4, ge=1, le=100, description="connections for heartbeats and reports")
    acquire_timeout: Timeout = timedelta(seconds=3)
    statement_timeout: Timeout = timedelta(seconds=5)
    lock_timeout: Timeout = timedelta(seconds=2)
    idle_in_transaction_timeout: Timeout = timedelta(seconds=10)
    startup_timeout: Duration = Field(default=timedelta(seconds=30), description="how long to wait for it at start")


class TelemetrySettings(SettingsModel):
    """Logs and traces."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://", description="such as http://localhost:4317")
    sample_ratio: float = Field(default=1.0, ge=0.0, le=1.0)


class RoomSettings(SettingsModel):
    """What every service has; a room's model adds its own section's fields.

    A room may override a common section within its own: `executor: {database: {pool-size: 20}}`.
    """

    section: ClassVar[str] = ""
    database: DatabaseSettings
    server: ServerSettings = ServerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    home: Path = Path(".valkyr")


class SettingsError(Exception):
    """The settings cannot be used; the text names every bad key and what it takes, `problems` has one of them each."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


def require_supported(major: int) -> None:
    """SettingsError if this major version of PostgreSQL is none that Valkyr runs on."""
    if major not in POSTGRES_VERSIONS:
        first, last = POSTGRES_VERSIONS[0], POSTGRES_VERSIONS[-1]
        raise SettingsError(f"database.url: this is PostgreSQL {major}; takes {first} to {last}")


Model = TypeVar("Model", bound=RoomSettings)


def load_settings(
    model: type[Model],
    *,
    section: str,
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
) -> Model:
    """The settings of the room `section` ("executor"), from `config_file` (or VALKYR_CONFIG) and then the environment.

    SettingsError names every bad key and every unknown variable at once.
    """
    from services.chassis.settings_sources import Sources

    return Sources(os.environ if environ is None else environ, config_file).load(model, kebab(section))
