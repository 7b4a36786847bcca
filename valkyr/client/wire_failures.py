"""Protobuf answers of the breaker service and the dead letter queue -> results of the SDK, and nothing else."""

from __future__ import annotations

from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.client.failures import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    DeadLetter,
    DeadLetterType,
    OnUnavailable,
    RefusedResolution,
    Resolution,
)
from valkyr.client.json_values import json_of
from valkyr.client.results import Attempt
from valkyr.client.wire import known, time_of

_BREAKER_STATES: dict[int, BreakerState] = {
    breaker_pb2.Breaker.State.Value(state.value): state for state in BreakerState
}
_ON_UNAVAILABLE: dict[int, OnUnavailable] = {
    breaker_pb2.Policy.OnUnavailable.Value(choice.value): choice for choice in OnUnavailable
}
_RESOLUTIONS: dict[int, Resolution] = {
    dlq_pb2.DeadLetter.Resolution.Value(resolution.value): resolution for resolution in Resolution
}
_TYPES: dict[int, DeadLetterType] = {dlq_pb2.DeadLetter.FailureType.Value(kind.value): kind for kind in DeadLetterType}


def breaker_of(message: breaker_pb2.Breaker) -> Breaker:
    return Breaker(
        namespace=message.namespace,
        target=message.target,
        state=known(_BREAKER_STATES, message.state),
        failure_count=message.failure_count,
        success_count=message.success_count,
        opened_at=time_of(message, "opened_time"),
        next_retry_at=time_of(message, "next_retry_time"),
        last_failure_at=time_of(message, "last_failure_time"),
        generation=message.generation,
        forced=message.forced,
        policy=_policy_of(message.policy) if message.HasField("policy") else None,
        episode_id=message.episode_id,
        updated_at=time_of(message, "update_time"),
        permits_in_flight=message.permits_in_flight,
    )


def dead_letter_of(message: dlq_pb2.DeadLetter) -> DeadLetter:
    requested = message.requested_resolution
    return DeadLetter(
        id=message.id,
        namespace=message.namespace,
        run_id=message.run_id,
        execution_id=message.execution_id,
        task_id=message.task_id,
        node_id=message.node_id,
        workflow_id=message.workflow_id,
        version=message.version,
        class_name=message.class_name,
        quarantine_number=message.quarantine_number,
        failure_type=known(_TYPES, message.failure_type) if message.failure_type else None,
        failure_reason=message.failure_reason,
        error_type=message.error_type,
        original_inputs=json_of(message.original_inputs) if message.HasField("original_inputs") else None,
        original_config=json_of(message.original_config) if message.HasField("original_config") else None,
        attempts=tuple(_attempt_of(attempt) for attempt in message.attempts),
        target=message.target,
        episode_id=message.episode_id,
        trace_id=message.trace_id,
        traceparent=message.traceparent,
        quarantined_at=time_of(message, "quarantined_time"),
        resolution=known(_RESOLUTIONS, message.resolution),
        requested_resolution=known(_RESOLUTIONS, requested) if requested else None,
        resolved_by=message.resolved_by,
        resolved_at=time_of(message, "resolved_time"),
        resolution_reason=message.resolution_reason,
        reviewed_by=message.reviewed_by,
        notes=message.notes,
        requeue_count=message.requeue_count,
        previous_id=message.previous_id,
        idempotency_key=message.idempotency_key,
        refused=_refused_of(message.refused) if message.HasField("refused") else None,
        resolved_here=message.resolved_here,
    )


def _refused_of(message: dlq_pb2.DeadLetter.Refused) -> RefusedResolution:
    return RefusedResolution(
        resolution=known(_RESOLUTIONS, message.resolution),
        requested_by=message.requested_by,
        problem=message.problem,
        refused_at=time_of(message, "refused_time"),
    )


def breaker_state_to_wire(state: BreakerState) -> breaker_pb2.Breaker.State.ValueType:
    return breaker_pb2.Breaker.State.Value(state.value)


def resolution_to_wire(resolution: Resolution) -> dlq_pb2.DeadLetter.Resolution.ValueType:
    return dlq_pb2.DeadLetter.Resolution.Value(resolution.value)


def dead_letter_type_to_wire(kind: DeadLetterType) -> dlq_pb2.DeadLetter.FailureType.ValueType:
    return dlq_pb2.DeadLetter.FailureType.Value(kind.value)


def _policy_of(message: breaker_pb2.Policy) -> BreakerPolicy:
    return BreakerPolicy(
        failure_threshold=message.failure_threshold,
        timeout_duration=message.timeout_duration.ToTimedelta(),
        half_open_permits=message.half_open_permits,
        half_open_success_threshold=message.half_open_success_threshold,
        on_unavailable=known(_ON_UNAVAILABLE, message.on_unavailable) if message.on_unavailable else None,
    )


def _attempt_of(message: dlq_pb2.Attempt) -> Attempt:
    return Attempt(
        attempt=message.attempt,
        outcome=message.outcome,
        runner_id=message.runner_id,
        started_at=time_of(message, "start_time"),
        finished_at=time_of(message, "finish_time"),
        error=message.error,
        stack_trace=message.stack_trace,
    )
