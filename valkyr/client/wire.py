"""Protobuf answers -> results of the SDK, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from valkyr.api.executor.v1 import executor_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.json_values import json_object_of, json_of
from valkyr.client.results import (
    Attempt,
    Execution,
    Quarantine,
    ReusedRun,
    Run,
    SavedGraph,
    StoredGraph,
    TriggerType,
    Workflow,
    WorkflowVersion,
)
from valkyr.errors import InvalidRequest, UnknownMethod
from valkyr.flow.states import ExecutionState, RunState
from valkyr.rpc.graphs import finding_from_proto, graph_from_proto

_Enum = TypeVar("_Enum", bound=StrEnum)

_EXECUTION_STATES: dict[int, ExecutionState] = {
    executor_pb2.Execution.State.Value(state.value): state for state in ExecutionState
}
_RUN_STATES: dict[int, RunState] = {executor_pb2.Run.State.Value(state.value): state for state in RunState}
_TRIGGER_TYPES: dict[int, TriggerType] = {
    executor_pb2.Execution.TriggerType.Value(kind.value): kind for kind in TriggerType
}


def workflow_of(message: graph_pb2.Workflow) -> Workflow:
    return Workflow(
        id=message.id,
        namespace=message.namespace,
        name=message.name,
        description=message.description,
        labels=dict(message.labels),
        version=message.version,
        content_hash=message.content_hash,
        created_at=time_of(message, "create_time"),
        updated_at=time_of(message, "update_time"),
        archived=message.archived,
    )


def stored_graph_of(message: graph_pb2.Graph) -> StoredGraph:
    return StoredGraph(workflow_of(message.workflow), graph_from_proto(message)[1])


def saved_graph_of(message: graph_pb2.SaveGraphResponse) -> SavedGraph:
    return SavedGraph(
        workflow=workflow_of(message.workflow),
        graph=graph_from_proto(message)[1],
        node_id_to_task_id=dict(message.node_id_to_task_id),
        edge_id_to_connection_id=dict(message.edge_id_to_connection_id),
        module_id_mapping=dict(message.module_id_mapping),
        warnings=tuple(finding_from_proto(finding) for finding in message.warnings),
        unchanged=message.unchanged,
    )


def version_of(message: graph_pb2.Version) -> WorkflowVersion:
    return WorkflowVersion(
        version=message.version,
        content_hash=message.content_hash,
        created_at=time_of(message, "create_time"),
        author=message.author,
        message=message.message,
        node_count=message.node_count,
        edge_count=message.edge_count,
        layout=message.layout,
        restored_from=message.restored_from,
    )


def execution_of(message: executor_pb2.Execution) -> Execution:
    return Execution(
        id=message.id,
        namespace=message.namespace,
        workflow_id=message.workflow_id,
        version=message.version,
        state=known(_EXECUTION_STATES, message.state),
        trigger_type=known(_TRIGGER_TYPES, message.trigger_type) if message.trigger_type else None,
        trigger_payload=json_of(message.trigger_payload) if message.HasField("trigger_payload") else None,
        outputs=json_object_of(message.outputs) if message.HasField("outputs") else {},
        created_at=time_of(message, "create_time"),
        started_at=time_of(message, "start_time"),
        finished_at=time_of(message, "finish_time"),
        error_message=message.error_message,
        error_type=message.error_type,
        run_counts=dict(message.run_counts),
        revision=message.revision,
        priority=message.priority,
        trace_id=message.trace_id,
        created_by=message.created_by,
        deadline=time_of(message, "deadline"),
        cancel_requested=message.cancel_requested,
        cancelled_by=message.cancelled_by,
        cancel_reason=message.cancel_reason,
        paused_by=message.paused_by,
        pause_reason=message.pause_reason,
        paused_at=time_of(message, "pause_time"),
    )


def run_of(message: executor_pb2.Run) -> Run:
    return Run(
        id=message.id,
        execution_id=message.execution_id,
        node_id=message.node_id,
        map_index=message.map_index,
        task_id=message.task_id,
        state=known(_RUN_STATES, message.state),
        parked_by=message.parked_by,
        attempt=message.attempt,
        target=message.target,
        pool=message.pool,
        class_name=message.class_name,
        outputs=json_of(message.outputs) if message.HasField("outputs") else None,
        error=message.error,
        error_type=message.error_type,
        leased_by=message.leased_by,
        lease_until=time_of(message, "lease_until"),
        heartbeat_at=time_of(message, "heartbeat_time"),
        retry_after=time_of(message, "retry_after"),
        started_at=time_of(message, "start_time"),
        finished_at=time_of(message, "finish_time"),
        duration_ms=message.duration_ms,
        cost_tokens=message.cost_tokens,
        idempotency_key=message.idempotency_key,
        quarantine_number=message.quarantine_number,
        attempts=tuple(_attempt_of(attempt) for attempt in message.attempts),
        inputs=json_of(message.inputs) if message.HasField("inputs") else None,
        episode_id=message.episode_id,
        deadline=time_of(message, "deadline"),
        failures=message.failures,
        lost_leases=message.lost_leases,
        parked_at=time_of(message, "parked_time"),
        parked_duration=message.parked_duration.ToTimedelta(),
        reused_from=_reused_of(message.reused_from) if message.HasField("reused_from") else None,
        quarantines=tuple(_quarantine_of(quarantine) for quarantine in message.quarantines),
    )


def timestamp(when: datetime, *, path: str) -> Timestamp:
    """A time that a request names. InvalidRequest for one without a zone, which could mean any hour."""
    if when.tzinfo is None:
        hint = "give it one, such as datetime.now(UTC) + timedelta(hours=1)"
        raise InvalidRequest.of_field(path, f"{when.isoformat()} has no time zone; {hint}", hint=hint)
    stamp = Timestamp()
    stamp.FromDatetime(when.astimezone(UTC))
    return stamp


def trigger_type_to_wire(trigger_type: TriggerType) -> executor_pb2.Execution.TriggerType.ValueType:
    return executor_pb2.Execution.TriggerType.Value(trigger_type.value)


def _reused_of(message: executor_pb2.ReusedRun) -> ReusedRun:
    return ReusedRun(message.execution_id, message.run_id)


def _quarantine_of(message: executor_pb2.Quarantine) -> Quarantine:
    return Quarantine(
        quarantine_number=message.quarantine_number,
        failure_type=message.failure_type,
        error_type=message.error_type,
        error=message.error,
        quarantined_at=time_of(message, "quarantine_time"),
        resolution=message.resolution,
        resolved_by=message.resolved_by,
        resolved_at=time_of(message, "resolved_time"),
        reason=message.reason,
        resolution_trace_id=message.resolution_trace_id,
    )


def _attempt_of(message: executor_pb2.Attempt) -> Attempt:
    return Attempt(
        attempt=message.attempt,
        outcome=message.outcome,
        runner_id=message.runner_id,
        started_at=time_of(message, "start_time"),
        finished_at=time_of(message, "finish_time"),
        error=message.error,
        stack_trace=message.stack_trace,
    )


def time_of(message: Message, field: str) -> datetime | None:
    """The timestamp in `field`; None where it is absent."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return datetime.fromtimestamp(timestamp.seconds, UTC).replace(microsecond=timestamp.nanos // 1_000)


def known(kinds: Mapping[int, _Enum], number: int) -> _Enum:
    """The member that `number` stands for. UnknownMethod where a newer server knows more of them."""
    try:
        return kinds[number]
    except KeyError:
        what = next(iter(kinds.values())).__class__.__name__
        hint = "upgrade valkyr to the version of the server"
        raise UnknownMethod(f"the server answered the {what} {number}, which is unknown here", hint=hint) from None
