"""Logs: events with fields and the trace's ids, as JSON or as readable lines; secrets masked, control characters
escaped."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
import structlog
from opentelemetry import trace

_MASKED_KEYS = frozenset({"authorization", "cookie", "set-cookie", "password", "secret", "token", "dsn", "api_key"})
_DSN_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^@\s/]+@")


class Lines(Protocol):
    """Where rendered events go, from any thread."""

    @property
    def is_terminal(self) -> bool: ...

    def put(self, line: str) -> None: ...


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Logs events with fields: `log.info("run.leased", run_id=...)`. Before `configure` they go to the standard
    library's logging: by default only warnings, to stderr."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure_logs(logs: Lines, *, level: str, console: bool) -> None:
    """Events of structlog and records of the standard library end in `logs`."""
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

    def __init__(self, name: str, logs: Lines) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = logs.put


class _Forwarded(logging.Handler):
    """What libraries log by the standard library, in the same shape."""

    def __init__(self, logs: Lines, shared: list[Any], render: Any) -> None:
        super().__init__()
        processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, render]
        self.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.put(self.format(record))


def log_by_standard_library() -> None:
    """For somebody else's process, before or without `configure`."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.getLogger().handlers[:] = _handlers_of_others()


def _handlers_of_others() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if not isinstance(handler, _Forwarded)]


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
