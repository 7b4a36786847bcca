"""Span ids for a TracerProvider: random, but for a span whose id was chosen before it was started."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from valkyr.telemetry.traces import chosen_span_id


class ChosenOrRandomIds(RandomIdGenerator):
    """Asked once for each span, within `start_span`."""

    def generate_span_id(self) -> int:
        return chosen_span_id.get() or super().generate_span_id()
