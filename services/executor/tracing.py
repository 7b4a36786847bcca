"""The trace of an execution: below the call that started it, or a new one; stored, to survive restarts (I23)."""

from __future__ import annotations

import secrets

from valkyr.telemetry import current_traceparent


def traceparent_for_start() -> str:
    """The present span's, or a trace of our own, not sampled, so that every execution has a trace id."""
    return current_traceparent() or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
