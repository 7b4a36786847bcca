"""Logs and traces, set up the same for every process: one JSON object (or, on a terminal, one readable line) per event
with the trace's ids, written by a thread of its own; spans over OTLP, only if an endpoint is given."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TextIO

import structlog
from opentelemetry import trace

from valkyr.telemetry.log_queue import LogQueue
from valkyr.telemetry.logs import configure_logs, escaped, get_logger, log_by_standard_library
from valkyr.telemetry.traces import (
    attempt_span_id,
    attempt_traceparent,
    context_of,
    current_traceparent,
    install,
    parse_traceparent,
    provider_of,
    start_attempt_span,
    traceparent_of,
    tracer,
    unrecorded_attempt_span,
)

if TYPE_CHECKING:
    from valkyr.telemetry.traces import Provider

__all__ = [
    "LogFormat",
    "Telemetry",
    "attempt_span_id",
    "attempt_traceparent",
    "configure",
    "context_of",
    "current_traceparent",
    "escaped",
    "get_logger",
    "parse_traceparent",
    "reset",
    "start_attempt_span",
    "traceparent_of",
    "tracer",
    "unrecorded_attempt_span",
]

LogFormat = Literal["auto", "json", "console"]
LAST_LINES = timedelta(milliseconds=200)
EXIT_BOUND = timedelta(seconds=3)
"""An exit waits at most so long for a collector that does not answer."""

_processes: list[Telemetry] = []

if not structlog.is_configured():
    log_by_standard_library()


@dataclass(slots=True)
class Telemetry:
    """What `configure` set up; `shutdown` flushes it."""

    provider: Provider
    logs: LogQueue
    _done: bool = field(default=False, repr=False)

    def shutdown(self, timeout: timedelta = EXIT_BOUND) -> None:
        """Sends the last spans and writes the last lines; returns within `timeout` whatever collector and stdout do."""
        if self._done:
            return
        self._done = True
        deadline = time.monotonic() + timeout.total_seconds()
        sender = threading.Thread(target=self.provider.shutdown, name="otlp-exit", daemon=True)
        sender.start()
        sender.join(timeout.total_seconds() - LAST_LINES.total_seconds())
        self.logs.close(max(LAST_LINES, timedelta(seconds=deadline - time.monotonic())))


def configure(
    service_name: str,
    *,
    log_level: str = "INFO",
    log_format: LogFormat = "auto",
    otlp_endpoint: str | None = None,
    sample_ratio: float = 1.0,
    stream: TextIO | None = None,
) -> Telemetry:
    """Sets up this process; a second call replaces the first. `stream` is stdout by default.

    `otlp_endpoint` is a URL such as http://localhost:4317. Without it spans have ids but are recorded nowhere.
    """
    while _processes:
        _processes.pop().shutdown()
    stream = stream or sys.stdout
    logs = LogQueue(stream)
    configure_logs(logs, level=log_level, console=log_format == "console" or (log_format == "auto" and stream.isatty()))
    provider = provider_of(service_name, otlp_endpoint=otlp_endpoint, sample_ratio=sample_ratio)
    install(provider)
    telemetry = Telemetry(provider, logs)
    _processes.append(telemetry)
    return telemetry


def reset() -> None:
    """Undoes `configure`: events go where the process's own logging goes, spans nowhere. For tests."""
    while _processes:
        _processes.pop().shutdown()
    install(trace.NoOpTracerProvider())
    log_by_standard_library()
