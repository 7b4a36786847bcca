"""What the DLQ is still to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.executor import queries
from services.executor.events import Resolution
from services.executor.model import OutboxRow, QuarantineRecord


async def read_outbox(connection: Any, limit: int) -> list[OutboxRow]:
    """In the order in which it happened; without what the DLQ has refused."""
    return [_row(row) for row in await connection.fetch(queries.SELECT_OUTBOX, limit)]


def _row(row: Any) -> OutboxRow:
    record = QuarantineRecord(
        quarantine_number=row["quarantine_number"],
        failure_type=row["failure_type"],
        error_type=row["error_type"],
        error=row["error"],
        revision=0,
        quarantined_at=row["quarantined_at"],
        resolution=Resolution(row["resolution"]),
        resolved_by=row["resolved_by"],
        resolved_at=row["resolved_at"],
        reason=row["reason"],
    )
    chosen = row["chosen_edges"]
    return OutboxRow(
        id=row["id"],
        kind=row["kind"],
        namespace=row["namespace"],
        execution_id=row["execution_id"],
        run_id=row["run_id"],
        record=record,
        attempt=row["attempt"],
        target=row["target"],
        episode_id=row["episode_id"],
        idempotency_key=row["idempotency_key"],
        inputs=row["inputs"],
        traceparent=row["traceparent"],
        task_id=row["task_id"],
        node_id=row["node_id"],
        class_name=row["class_name"],
        node_index=row["node_index"],
        excluded=tuple(row["excluded_edges"] or ()),
        chosen=tuple(chosen) if chosen else None,
        ready_revision=row["ready_revision"],
    )


async def delete_outbox(tx: Any, ids: Sequence[int]) -> None:
    """What has arrived."""
    await tx.execute(queries.DELETE_OUTBOX, list(ids))


async def refuse_outbox(tx: Any, problems: Mapping[int, str]) -> None:
    """What can never arrive stays, with why, and is not sent again."""
    await tx.execute(queries.REFUSE_OUTBOX, list(problems), list(problems.values()))
