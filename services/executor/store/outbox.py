"""What the DLQ is still to be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from services.executor import queries, queries_reading
from services.executor.model import AttemptView, OutboxRow
from valkyr.flow.events import Resolution
from valkyr.flow.facts import QuarantineRecord

FIRST_ATTEMPTS = 10
LAST_ATTEMPTS = 90
STACK_TRACES = 20
"""Of one letter, of the last attempts."""


async def read_outbox(connection: Any, limit: int, *, without: Iterable[UUID] = ()) -> list[OutboxRow]:
    """In the order in which it happened; without what the DLQ has refused, and without some runs."""
    return [_row(row) for row in await connection.fetch(queries.SELECT_OUTBOX, limit, list(without))]


async def read_told_attempts(connection: Any, rows: Sequence[OutboxRow]) -> dict[int, list[AttemptView]]:
    """By the id of the row: the attempts that burnt something up to its quarantine, oldest first. Of many the first and
    the last ones, stack traces of the last ones only: so any letter fits into one message."""
    told: dict[int, list[AttemptView]] = {row.id: [] for row in rows}
    if rows:
        keys = [(row.execution_id, row.run_id, row.attempt) for row in rows]
        limits = (FIRST_ATTEMPTS, LAST_ATTEMPTS, STACK_TRACES)
        for found in await connection.fetch(queries_reading.READ_TOLD_ATTEMPTS, *zip(*keys, strict=True), *limits):
            view = AttemptView(found[1], found[2], found[3] or "", found[4], found[5], found[6] or "", found[7] or "")
            told[rows[found[0] - 1].id].append(view)
    return told


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
    """What was refused stays, with why, and is not sent again."""
    await tx.execute(queries.REFUSE_OUTBOX, list(problems), list(problems.values()))


async def readmit_outbox(tx: Any) -> None:
    """What was refused is sent again."""
    await tx.execute(queries.READMIT_OUTBOX)
