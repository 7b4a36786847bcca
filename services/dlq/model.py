"""The dead letter queue's values. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

NewId = Callable[[], str]
Key = tuple[str, str, int]
"""Namespace, run, quarantine number: what names a quarantine everywhere."""
RunKey = tuple[str, str]


class Resolution(StrEnum):
    """Of a letter. PENDING is left once, for one of the others."""

    PENDING = "PENDING"
    REQUEUED = "REQUEUED"
    FIXED = "FIXED"
    DISCARDED = "DISCARDED"


class IntentState(StrEnum):
    """OPEN: the executor's answer is outstanding. DONE: it did it. REFUSED: it did not. LOST: somebody came first."""

    OPEN = "OPEN"
    DONE = "DONE"
    REFUSED = "REFUSED"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Operator:
    """Who resolves, and in which trace. `principal_id` is the name where that is a UUID."""

    principal: str
    principal_id: str | None = None
    traceparent: str = ""


def operator_of(principal: str, traceparent: str = "") -> Operator:
    try:
        return Operator(principal, str(uuid.UUID(principal)), traceparent)
    except ValueError:
        return Operator(principal, None, traceparent)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A run failed for good. `inputs`, `config`, `attempts` and `stack_traces` are JSON texts."""

    namespace: str
    run_id: str
    execution_id: str
    quarantine_number: int
    task_id: str | None = None
    node_id: str = ""
    workflow_id: str | None = None
    version: int = 0
    class_name: str = ""
    failure_type: str = ""
    failure_reason: str = ""
    error_type: str = ""
    inputs: str | None = None
    config: str | None = None
    attempts: str = "[]"
    stack_traces: str = "[]"
    target: str = ""
    episode_id: str = ""
    traceparent: str = ""
    trace_id: str = ""
    quarantined_at: datetime | None = None
    idempotency_key: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.run_id, self.quarantine_number


@dataclass(frozen=True, slots=True)
class Resolved:
    """A quarantine was resolved at the executor."""

    namespace: str
    run_id: str
    execution_id: str
    quarantine_number: int
    resolution: Resolution
    resolved_by: str
    reason: str = ""
    resolved_at: datetime | None = None

    @property
    def key(self) -> Key:
        return self.namespace, self.run_id, self.quarantine_number


Event = Quarantined | Resolved
Filters = Mapping[str, str | list[str]]
"""Of a list: a column of letters -> what it is to be, or any of several."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A resolution that the executor would not do: `problem` is its reason and its sentence."""

    resolution: Resolution
    requested_by: str
    problem: str
    refused_at: datetime


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. What is heavy, `refused` too, is None or empty where letters are listed.

    `intent_id` names the intent that is open or has resolved it; None where that was done at the executor directly.
    """

    namespace: str
    id: str
    run_id: str
    execution_id: str
    quarantine_number: int
    task_id: str | None
    node_id: str
    workflow_id: str | None
    version: int
    class_name: str
    failure_type: str
    failure_reason: str
    error_type: str
    attempts: str
    target: str
    episode_id: str
    traceparent: str
    trace_id: str
    quarantined_at: datetime
    idempotency_key: str
    resolution: Resolution
    requeue_count: int
    previous_id: str | None = None
    reviewed_by: str = ""
    notes: str = ""
    resolved_at: datetime | None = None
    resolved_by: str = ""
    resolution_reason: str = ""
    requested_resolution: Resolution | None = None
    intent_id: str | None = None
    inputs: str | None = None
    config: str | None = None
    stack_traces: str = "[]"
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class ResolveCommand:
    """A call of an operator. `content` is JSON: `inputs`, `newKey` and `deadline`, or `outputs`, or nothing."""

    namespace: str
    letter_id: str
    resolution: Resolution
    content: str
    reason: str
    request_hash: bytes
    operator: Operator
    request_id: str = ""
    force: bool = False
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A resolution that was asked for, with what its execution needs of the letter. `tries` counts the calls so far."""

    namespace: str
    id: str
    letter_id: str
    resolution: Resolution
    state: IntentState
    content: str
    reason: str
    request_hash: bytes
    operator: Operator
    requested_at: datetime
    run_id: str
    execution_id: str
    quarantine_number: int
    letter_traceparent: str
    target: str
    tries: int = 1

    @property
    def request_id(self) -> str:
        """For the executor: the same for every try, so that it is done once."""
        return f"{self.letter_id}:{self.resolution}"


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """What a `request_id` led to."""

    request_hash: bytes
    intent: Intent


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened to a letter."""

    id: str
    namespace: str
    letter_id: str
    action: str
    operator: Operator
    to_resolution: Resolution
    from_resolution: Resolution | None = None
    reason: str = ""
    detail: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a letter is resolved; `resolved_at` None for now, `intent_id` of the intent that may have done it."""

    namespace: str
    letter_id: str
    resolution: Resolution
    operator: Operator
    reason: str
    resolved_at: datetime | None = None
    intent_id: str | None = None
