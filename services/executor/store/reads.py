"""What clients ask for, and what is cached: executions, runs, pinned graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.executor import queries, queries_pausing, queries_reading
from services.executor.model import AttemptView, ExecutionView, Heard, RunView
from valkyr.flow.events import Resolution
from valkyr.flow.facts import ExecutionFacts, QuarantineRecord
from valkyr.flow.states import SETTLED_EXECUTION_STATES, ExecutionState, RunState

OUTPUTS_BUDGET = 3 * 512 * 1024
"""How many bytes of outputs, as JSON, go into one answer: as protobuf they may take more than five times as much."""

MAX_BIGINT = 2**63 - 1
LAST_STACK_TRACES = 20
"""Of a run that is read alone."""


@dataclass(frozen=True, slots=True)
class PinnedGraph:
    """A version as JSON texts."""

    document: str
    task_ids: str
    content_hash: str


async def read_pinned_graph(connection: Any, key: tuple[str, UUID, int]) -> PinnedGraph | None:
    row = await connection.fetchrow(queries.READ_PINNED_GRAPH, *key)
    return None if row is None else PinnedGraph(row[0], row[1], row[2])


async def pin_graph(tx: Any, key: tuple[str, UUID, int], pinned: PinnedGraph) -> None:
    await tx.execute(queries.PIN_GRAPH, *key, pinned.content_hash, pinned.document, pinned.task_ids)


async def read_facts(connection: Any, ids: Iterable[UUID]) -> list[ExecutionFacts]:
    """What never changes of executions; unknown ids are absent."""
    rows = await connection.fetch(queries.READ_FACTS, list(ids))
    return [ExecutionFacts(r[0], r[1], r[2], r[3], r[4], (r[5] or "null").encode(), r[6]) for r in rows]


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Empty fields do not restrict. `before` is an id: only older ones; `changed_since` a mark of the feed."""

    namespace: str
    ids: Sequence[UUID] = ()
    workflow_id: UUID | None = None
    before: UUID | None = None
    changed_since: int | None = None


async def list_executions(connection: Any, wanted: ExecutionFilter, *, limit: int) -> list[ExecutionView]:
    """Newest first; without trigger payloads, run counts and outputs."""
    statement = queries_reading.list_executions(
        by_ids=bool(wanted.ids),
        by_workflow=wanted.workflow_id is not None,
        before=wanted.before is not None,
        changed_since=wanted.changed_since is not None,
    )
    given = [
        list(wanted.ids) or None,
        wanted.workflow_id,
        wanted.before,
        wanted.changed_since,
    ]
    arguments = [value for value in given if value is not None]
    return await executions_of(connection, await connection.fetch(statement, wanted.namespace, limit, *arguments))


async def read_execution(
    connection: Any, namespace: str, execution_id: UUID, leaves: Sequence[UUID], *, only_settled: bool
) -> ExecutionView | None:
    """With trigger payload, run counts and the outputs of `leaves`, as many as fit; without any of them if it is not
    settled and `only_settled`."""
    rows = await connection.fetch(
        queries_reading.READ_EXECUTION, namespace, execution_id, leaves, OUTPUTS_BUDGET, only_settled
    )
    if not rows:
        return None
    [view] = await executions_of(connection, rows)
    payload, states, counts, nodes, texts = rows[0][-5:]
    outputs = dict(zip(nodes or (), texts or (), strict=True))
    return replace(
        view,
        trigger_payload=payload,
        run_counts=dict(zip(states or (), counts or (), strict=True)),
        outputs={node: text for node, text in outputs.items() if text is not None},
        omitted_outputs=[node for node, text in outputs.items() if text is None],
    )


async def read_executions(connection: Any, ids: Sequence[UUID]) -> list[ExecutionView]:
    """Of whatever namespace, in no order, without outputs and counts; unknown ids are absent."""
    return await executions_of(connection, await connection.fetch(queries_reading.READ_EXECUTIONS, ids))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look could see: transactions before `top`, but for those that were `open`. `oldest_open` is the first of
    them, or `top`."""

    oldest_open: int
    top: int
    open: Sequence[int]


async def changes_since(connection: Any, seen: Snapshot | None) -> tuple[list[Heard], Snapshot]:
    """What is seen now and was not then, nothing if there was no look before; and what is seen now."""
    top, still_open = (MAX_BIGINT, ()) if seen is None else (seen.top, seen.open)
    rows = await connection.fetch(queries_reading.CHANGES_SINCE, top, still_open)
    heard = [Heard(row[0], row[1], row[2] in SETTLED_EXECUTION_STATES) for row in rows if row[0] is not None]
    return heard, Snapshot(rows[0][3], rows[0][4], rows[0][5])


async def executions_of(connection: Any, rows: Sequence[Any]) -> list[ExecutionView]:
    """Of rows with EXECUTION_COLUMNS, in their order."""
    views = [_execution(row) for row in rows]
    paused = [view.id for view in views if view.state is ExecutionState.PAUSED]
    if not paused:
        return views
    pauses = {row[0]: row[1:4] for row in await connection.fetch(queries_pausing.READ_PAUSES, paused)}
    return [_with_pause(view, *pauses[view.id]) if view.id in pauses else view for view in views]


def _with_pause(view: ExecutionView, principal: str, reason: str | None, at: datetime) -> ExecutionView:
    return replace(view, paused_by=principal, pause_reason=reason or "", paused_at=at)


def _execution(row: Any) -> ExecutionView:
    return ExecutionView(
        id=row["id"],
        namespace=row["namespace"],
        workflow_id=row["workflow_id"],
        version=row["version"],
        state=ExecutionState(row["state"]),
        revision=row["revision"],
        priority=row["priority"],
        trigger_type=row["trigger_type"],
        trigger_payload=None,
        created_at=row["created_date"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        trace_id=row["trace_id"],
        created_by=row["created_by_name"],
        modified_at=row["last_modified_date"],
        deadline=row["deadline"],
        cancel_requested=row["cancel_requested"],
        cancelled_by=row["ended_by"] or "",
        cancel_reason=row["ended_reason"] or "",
    )


async def count_runs(connection: Any, ids: Iterable[UUID]) -> dict[UUID, dict[str, int]]:
    """Runs by state, of each execution."""
    counts: dict[UUID, dict[str, int]] = {}
    for row in await connection.fetch(queries_reading.COUNT_RUNS, list(ids)):
        counts.setdefault(row[0], {})[row[1]] = row[2]
    return counts


@dataclass(frozen=True, slots=True)
class StoredOutputs:
    """JSON text; None where it did not fit."""

    execution_id: UUID
    node_id: str
    run_id: UUID
    text: str | None


async def read_outputs(
    connection: Any, keys: Sequence[tuple[UUID, UUID]], *, budget: int = OUTPUTS_BUDGET
) -> list[StoredOutputs]:
    """Outputs of those of the named runs that ended in SUCCESS, as many as fit into `budget` bytes."""
    if not keys:
        return []
    rows = await connection.fetch(queries_reading.READ_OUTPUTS, *zip(*keys, strict=True), budget)
    return [StoredOutputs(row[0], row[1], row[2], row[3]) for row in rows]


async def read_run(
    connection: Any, namespace: str, execution_id: UUID, *, run: UUID | None = None, node_id: str | None = None
) -> RunView | None:
    """By its id, or by its node's: the node's own run then, no item of a map. Without outputs."""
    statement = queries_reading.read_run(by_node=run is None)
    rows = await connection.fetch(statement, namespace, execution_id, node_id if run is None else run)
    return (await runs_of(connection, rows))[0] if rows else None


async def runs_of(connection: Any, rows: Sequence[Any]) -> list[RunView]:
    """Of rows with RUN_COLUMNS, in their order; with attempts and quarantines, without outputs."""
    keys = [(row["execution_id"], row["id"]) for row in rows]
    attempts = await read_attempts(connection, keys)
    letters = [(row["execution_id"], row["id"]) for row in rows if row["quarantine_number"]]
    quarantines = await read_quarantines(connection, letters)
    return [_run(row, attempts.get(row["id"], []), quarantines.get(row["id"], [])) for row in rows]


async def read_attempts(connection: Any, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, list[AttemptView]]:
    """The last attempts of each run that did not succeed, oldest first; without stack traces."""
    attempts: dict[UUID, list[AttemptView]] = {}
    if keys:
        for row in await connection.fetch(
            queries_reading.READ_ATTEMPTS, *zip(*keys, strict=True), queries_reading.LAST_ATTEMPTS
        ):
            view = AttemptView(row[1], row[2], row[3] or "", row[4], row[5], row[6] or "")
            attempts.setdefault(row[0], []).append(view)
    return attempts


async def read_stack_traces(connection: Any, key: tuple[UUID, UUID]) -> dict[int, str]:
    """By attempt: those of the last attempts of a run that left one."""
    rows = await connection.fetch(queries_reading.READ_STACK_TRACES, *key, LAST_STACK_TRACES)
    return {row[0]: row[1] for row in rows}


async def read_quarantines(connection: Any, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, list[QuarantineRecord]]:
    """All quarantines of runs, by run, oldest first."""
    found: dict[UUID, list[QuarantineRecord]] = {}
    if keys:
        for row in await connection.fetch(queries.READ_QUARANTINES, *zip(*keys, strict=True)):
            found.setdefault(row[0], []).append(_quarantine(row))
    return found


def _quarantine(row: Any) -> QuarantineRecord:
    return QuarantineRecord(
        quarantine_number=row["quarantine_number"],
        failure_type=row["failure_type"],
        error_type=row["error_type"],
        error=row["error"],
        revision=row["revision"],
        quarantined_at=row["quarantined_at"],
        resolution=Resolution(row["resolution"]),
        resolved_by=row["resolved_by"],
        resolved_at=row["resolved_at"],
        reason=row["reason"],
        request_id=row["request_id"],
        request_hash=row["request_hash"],
        resolution_traceparent=row["resolution_traceparent"],
    )


async def find_resolution(
    connection: Any, namespace: str, resolution: Resolution, request_id: str
) -> tuple[UUID, UUID, bytes] | None:
    """(execution, run, hash of the request) of what a request_id resolved before."""
    row = await connection.fetchrow(queries.FIND_RESOLUTION, namespace, resolution, request_id)
    return None if row is None else (row[0], row[1], row[2])


async def find_cancel(connection: Any, namespace: str, request_id: str) -> tuple[UUID, bytes] | None:
    """(execution, hash of the request) of what a request_id cancelled before."""
    row = await connection.fetchrow(queries.FIND_CANCEL, namespace, request_id)
    return None if row is None else (row[0], row[1])


def _run(row: Any, earlier: list[AttemptView], quarantines: list[QuarantineRecord]) -> RunView:
    return RunView(
        id=row["id"],
        execution_id=row["execution_id"],
        node_id=row["node_id"],
        map_index=row["map_index"],
        task_id=row["task_id"],
        state=RunState(row["state"]),
        parked_by=row["parked_by"],
        attempt=row["attempt"],
        target=row["target"],
        pool=row["pool"],
        class_name=row["class_name"],
        outputs=None,
        error=row["error"],
        error_type=row["error_type"],
        leased_by=row["leased_by"],
        lease_until=row["lease_until"],
        heartbeat_at=row["heartbeat_at"],
        retry_after=row["retry_after"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        duration_ms=row["duration_ms"],
        cost_tokens=None if row["cost_tokens"] is None else float(row["cost_tokens"]),
        idempotency_key=row["idempotency_key"],
        quarantine_number=row["quarantine_number"],
        inputs=row["inputs"],
        episode_id=row["episode_id"],
        deadline=row["deadline"],
        failures=row["failures"],
        lost_leases=row["lost_leases"],
        parked_at=row["parked_at"],
        parked_for=timedelta(milliseconds=row["parked_ms"]),
        reused_from=(row["reused_execution_id"], row["reused_run_id"]) if row["reused_run_id"] else None,
        quarantines=quarantines,
        attempts=[*earlier, *_present_attempt(row, earlier)],
    )


def _present_attempt(row: Any, earlier: Sequence[AttemptView]) -> list[AttemptView]:
    """The attempt that stands in the run itself: the running one, or the one that succeeded."""
    outcomes = {RunState.LEASED: "RUNNING", RunState.SUCCESS: "SUCCESS"}
    outcome = outcomes.get(RunState(row["state"]))
    if outcome is None or row["attempt"] == 0 or (earlier and earlier[-1].attempt == row["attempt"]):
        return []  # of a run that was fixed, the last attempt had failed
    runner = row["runner_id"] or ""
    return [AttemptView(row["attempt"], outcome, runner, row["started_at"], row["finished_at"], "")]


async def database_now(connection: Any) -> datetime:
    """The clock that decides."""
    now: datetime = await connection.fetchval("SELECT now()")
    return now
