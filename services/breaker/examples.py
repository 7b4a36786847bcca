"""What breakers can be asked for by example: the JSON shape of a breaker as columns. What a reader sees is matched."""

from __future__ import annotations

from services.breaker.model.states import State
from services.chassis.example.resource import Field, Resource, Unsearchable, boolean, enum, integer, text, time, uuid

_FIELDS: dict[str, Field] = {
    "namespace": text("b.namespace", nullable=False),
    "target": text("b.target", nullable=False),
    "state": enum("b.state", State, nullable=False, orderable=True),
    "failureCount": integer("b.failure_count", nullable=False, orderable=True),
    "successCount": integer("b.success_count", nullable=False),
    "openedTime": time("b.opened_at", orderable=True),
    "nextRetryTime": time("b.next_retry_at", orderable=True),
    "lastFailureTime": time("b.last_failure_at", orderable=True),
    "generation": integer("b.generation", nullable=False, orderable=True),
    "forced": boolean("b.forced", nullable=False),
    "policy": Unsearchable("it is the same for all"),
    "episodeId": uuid("b.episode_id"),
    "updateTime": time("b.last_modified_date", nullable=False, orderable=True),
    "permitsInFlight": integer("f.permits", nullable=False),
}
_SWITCHED_OFF: dict[str, Field] = {
    "state": enum("'CLOSED'::text", State, nullable=False, orderable=True),
    "openedTime": time("NULL::timestamptz", orderable=True),
    "nextRetryTime": time("NULL::timestamptz", orderable=True),
    "forced": boolean("false", nullable=False),
    "permitsInFlight": integer("0", nullable=False),
}

BREAKERS = Resource("breaker", _FIELDS, key=("target",), default_order="target")

SWITCHED_OFF = Resource("breaker", {**_FIELDS, **_SWITCHED_OFF}, key=("target",), default_order="target")
"""While the setting `breaker.enabled` is false: every breaker is shown CLOSED."""
