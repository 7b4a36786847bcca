"""Logs and traces, set up the same for every process: one JSON object (or, on a terminal, one readable line) per event
with the trace's ids, written by a thread of its own; spans over OTLP, only if an endpoint is given."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TextIO

import orjson
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from valkyr.logqueue import LogQueue

LogFormat = Literal["auto", "json", "console"]
LAST_LINES = timedelta(milliseconds=200)
EXIT_BOUND = timedelta(seconds=3)
"""An exit waits at most so long for a collector that does not answer."""

_MASKED_KEYS = frozenset({"authorization", "cookie", "set-cookie", "password", "secret", "token", "dsn", "api_key"})
_DSN_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^@\s/]+@")
_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
_processes: list[Telemetry] = []


@dataclass(slots=True)
class Telemetry:
    """What `configure` set up; `shutdown` flushes it."""

    provider: TracerProvider
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
    _configure_logs(
        logs, level=log_level, console=log_format == "console" or (log_format == "auto" and stream.isatty())
    )
    provider = _provider(service_name, otlp_endpoint=otlp_endpoint, sample_ratio=sample_ratio)
    _install(provider)
    telemetry = Telemetry(provider, logs)
    _processes.append(telemetry)
    return telemetry


def reset() -> None:
    """Undoes `configure`: events go where the process's own logging goes, spans nowhere. For tests."""
    while _processes:
        _processes.pop().shutdown()
    _install(trace.NoOpTracerProvider())
    _log_by_standard_library()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Logs events with fields: `log.info("run.leased", run_id=...)`. Before `configure` they go to the standard
    library's logging: by default only warnings, to stderr."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def tracer() -> trace.Tracer:
    """The tracer of this process; its spans are nothing before `configure`."""
    return _Proxy.provider.get_tracer("valkyr")


def traceparent_of(context: SpanContext) -> str:
    """W3C traceparent, "" for a context that is not valid."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"


def parse_traceparent(text: str) -> SpanContext | None:
    """The span context that a W3C traceparent (version 00) names; None if it is malformed or all zero."""
    match = _TRACEPARENT.match(text)
    if match is None:
        return None
    context = SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[3], 16) & 1),
    )
    return context if context.is_valid else None


def context_of(traceparent: str) -> Context:
    """A context to start spans in: below what the traceparent names, or the root of a new trace."""
    parent = parse_traceparent(traceparent)
    return Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context())


def current_traceparent() -> str:
    """Of the current span, "" outside of any."""
    return traceparent_of(trace.get_current_span().get_span_context())


class _Proxy:
    """Where `tracer` looks. OpenTelemetry lets its global provider be set once; tests set up several."""

    provider: trace.TracerProvider = trace.NoOpTracerProvider()


def _install(provider: trace.TracerProvider) -> None:
    _Proxy.provider = provider


def _provider(service_name: str, *, otlp_endpoint: str | None, sample_ratio: float) -> TracerProvider:
    sampler: Sampler = ParentBased(TraceIdRatioBased(sample_ratio)) if otlp_endpoint else ALWAYS_OFF
    resource = Resource({"service.name": service_name})
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    if otlp_endpoint:
        # Imported here: it costs some megabytes, and most processes on a desk have no collector.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(otlp_endpoint, insecure=not otlp_endpoint.startswith("https://"), timeout=2)
        provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=16384, schedule_delay_millis=1000, export_timeout_millis=2000)
        )
    return provider


def _configure_logs(logs: LogQueue, *, level: str, console: bool) -> None:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_trace_ids,
        structlog.processors.format_exc_info,
        _mask_and_escape,
    ]
    render = (
        structlog.dev.ConsoleRenderer(colors=logs.is_terminal, timestamp_key="time", sort_keys=False)
        if console
        else _as_json
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="valkyr": _Sink(name, logs),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [*_handlers_of_others(), _Forwarded(logs, shared, render)]
    root.setLevel(level)


class _Sink:
    """Where structlog's own events end."""

    __slots__ = ("critical", "debug", "error", "info", "name", "warning")

    def __init__(self, name: str, logs: LogQueue) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = logs.put


class _Forwarded(logging.Handler):
    """What libraries log by the standard library, in the same shape."""

    def __init__(self, logs: LogQueue, shared: list[Any], render: Any) -> None:
        super().__init__()
        processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, render]
        self.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.put(self.format(record))


def _log_by_standard_library() -> None:
    """For somebody else's process, before or without `configure`."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.getLogger().handlers[:] = _handlers_of_others()


def _handlers_of_others() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if not isinstance(handler, _Forwarded)]


if not structlog.is_configured():
    _log_by_standard_library()


def _add_trace_ids(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _mask_and_escape(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Secrets become ***; what could forge a line or drive a terminal is shown escaped."""
    for key, value in event.items():
        if key.lower() in _MASKED_KEYS:
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = escaped(value, keep_newlines=key == "exception")
    return event


def escaped(text: str, *, keep_newlines: bool = False) -> str:
    """Control characters, line separators and bidi marks as backslash escapes; passwords in URLs as ***."""
    if "://" in text:
        text = _DSN_PASSWORD.sub(r"\1***@", text)
    if text.isprintable():
        return text
    kept = "\n" if keep_newlines else ""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text
    )


def _as_json(_logger: Any, _method: str, event: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return orjson.dumps({key: escaped(repr(value)) for key, value in event.items()}).decode()
