"""Spans to a collector by OTLP. That it is away is said once, and once that it is back, instead of with every batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from valkyr.telemetry.logs import get_logger

EXPORT_TIMEOUT_SECONDS = 2
_log = get_logger(__name__)
_CHATTERING = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


class CollectorExporter(SpanExporter):
    """An OTLPSpanExporter to `endpoint`, http:// or https://, that reports only changes."""

    def __init__(self, endpoint: str) -> None:
        for name in _CHATTERING:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._endpoint = endpoint
        self._inner = OTLPSpanExporter(
            endpoint, insecure=not endpoint.startswith("https://"), timeout=EXPORT_TIMEOUT_SECONDS
        )
        self._away = False

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Called by the processor's thread."""
        result = self._inner.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            if away:
                _log.warning("traces.collector_lost", endpoint=self._endpoint, note="spans are dropped meanwhile")
            else:
                _log.info("traces.collector_found", endpoint=self._endpoint)
        return result

    def shutdown(self) -> None:
        """Gives up on what is being sent."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The processor flushes; nothing is kept here."""
        return self._inner.force_flush(timeout_millis)
