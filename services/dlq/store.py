"""The tables as the use cases see them. Driver errors stop in the database underneath."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Row, Table

from services.chassis.database import Database
from services.chassis.engine import Connection
from services.chassis.example.query import Query, fetch
from services.dlq import examples, queries, tables
from services.dlq.model import (
    AnsweredRequest,
    AuditEvent,
    Filters,
    Intent,
    IntentState,
    Key,
    Letter,
    Operator,
    Refused,
    Resolution,
    Resolved,
    RunKey,
    Settlement,
)
from services.dlq.planning import KnownLetter, NewLetter, OpenIntent, requeues_before

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class FoundLetters:
    """Letters, and the rows that they were made of."""

    rows: Sequence[Any]
    letters: Sequence[Letter]


class Store:
    """Transactions of the dead letter queue, and what needs one of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commits at the end of the block; any exception rolls back."""
        async with self._database.transaction() as connection:
            yield Transaction(connection)

    async def in_transaction(self, work: Callable[[Transaction], Awaitable[_Result]]) -> _Result:
        """Runs `work` in a transaction, again from its start after a deadlock or a serialization failure."""
        return await self._database.in_transaction(lambda connection: work(Transaction(connection)))

    async def find_letters(self, namespace: str, query: Query, filters: Filters) -> FoundLetters:
        """A page and one more, if there is one; without what is heavy."""
        scope, values = ["l.namespace = $1::text"], [namespace, *filters.values()]
        for number, (name, wanted) in enumerate(filters.items(), 2):
            kind = "uuid" if name.endswith("_id") else "text"
            scope.append(
                f"l.{name} = " + (f"${number}::{kind}" if isinstance(wanted, str) else f"ANY(${number}::{kind}[])")
            )
        statement = query.statement(examples.COLUMNS, examples.ROWS, " AND ".join(scope), values)
        async with self._database.listing() as connection:
            rows = await fetch(connection, statement)
        return FoundLetters(rows, [_letter(row) for row in rows])

    async def prune_requests(self, kept: timedelta, limit: int) -> int:
        """Forgets up to `limit` requests that were answered longer than `kept` ago; how many there were."""
        async with self.transaction() as tx:
            return await tx.prune_requests(kept, limit)


class Transaction:
    """The statements of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_runs(self, runs: Sequence[RunKey]) -> None:
        """Whoever stores events of the same run waits until the end: a letter and its resolution may come at once, each
        unseen by the other."""
        numbers = sorted({zlib.crc32("/".join(run).encode()) % queries.LOCKS for run in runs})
        await self._connection.execute(queries.take_locks(numbers))

    async def known_letters(self, runs: Sequence[RunKey]) -> list[KnownLetter]:
        """All letters of the runs, locked."""
        namespaces, ids = _columns(runs)
        rows = await self._connection.execute(queries.lock_letters_of_runs(namespaces, ids))
        return [_known(row) for row in rows]

    async def early_resolutions(self, runs: Sequence[RunKey]) -> list[Resolved]:
        namespaces, ids = _columns(runs)
        rows = await self._connection.execute(queries.select_early_resolutions(namespaces, ids))
        return [
            Resolved(
                namespace=row.namespace,
                run_id=row.run_id,
                execution_id=row.execution_id,
                quarantine_number=row.quarantine_number,
                resolution=Resolution(row.resolution),
                resolved_by=row.resolved_by_name,
                reason=row.reason,
                resolved_at=row.resolved_at,
            )
            for row in rows
        ]

    async def insert_letters(self, letters: Sequence[NewLetter], sender: Operator) -> None:
        """`sender` is who brought them."""
        await self._insert(tables.dead_letter_queue, [_letter_row(letter, sender) for letter in letters])

    async def settle_letters(self, settlements: Sequence[Settlement]) -> set[str]:
        """Resolves those that are PENDING still, and says which these were."""
        if not settlements:
            return set()
        arrays = queries.row_arrays(tables.dead_letter_queue, [_settlement_row(one) for one in settlements])
        return {row.id for row in await self._connection.execute(queries.settle_letters(), arrays)}

    async def link_letters(self, links: Sequence[tuple[KnownLetter, str]]) -> None:
        """Each letter to the one before it."""
        if links:
            rows = [{"namespace": one.key[0], "id": one.id, "previous_id": previous} for one, previous in links]
            arrays = queries.row_arrays(tables.dead_letter_queue, rows)
            await self._connection.execute(queries.link_letters(), arrays)

    async def end_intents(self, ended: Sequence[tuple[str, str, IntentState, str]]) -> None:
        """Each a namespace, an id, what it becomes, and why."""
        if ended:
            names = ("namespace", "id", "state", "problem")
            rows = [dict(zip(names, one, strict=True)) for one in ended]
            await self._connection.execute(queries.end_intents(), queries.row_arrays(tables.resolution_intent, rows))

    async def insert_early_resolutions(self, resolutions: Sequence[Resolved]) -> None:
        rows = [
            {
                "namespace": one.namespace,
                "run_id": one.run_id,
                "quarantine_number": one.quarantine_number,
                "execution_id": one.execution_id,
                "resolution": str(one.resolution),
                "resolved_by_name": one.resolved_by,
                "reason": one.reason,
                "resolved_at": one.resolved_at,
            }
            for one in resolutions
        ]
        await self._insert(tables.early_resolution, rows)

    async def delete_early_resolutions(self, keys: Sequence[Key]) -> None:
        if keys:
            names = ("namespace", "run_id", "quarantine_number")
            rows = [dict(zip(names, key, strict=True)) for key in keys]
            arrays = queries.row_arrays(tables.early_resolution, rows)
            await self._connection.execute(queries.delete_early_resolutions(), arrays)

    async def insert_audit_events(self, events: Sequence[AuditEvent]) -> None:
        await self._insert(tables.audit_event, [_event_row(event) for event in events])

    async def find_letter(self, namespace: str, letter_id: str) -> Letter | None:
        row = (await self._connection.execute(queries.select_letter(namespace, letter_id))).first()
        return None if row is None else _letter(row._asdict())

    async def lock_letter(self, namespace: str, letter_id: str) -> Letter | None:
        """Without what is heavy; locked until the end."""
        row = (await self._connection.execute(queries.lock_letter(namespace, letter_id))).first()
        return None if row is None else _letter(row._asdict())

    async def now(self) -> datetime:
        """By the database's clock."""
        moment: datetime = (await self._connection.execute(queries.select_now())).scalar_one()
        return moment

    async def request_resolution(self, namespace: str, letter_id: str, resolution: Resolution, intent_id: str) -> bool:
        """False if the letter is resolved, or another's intent is open."""
        statement = queries.request_resolution(namespace, letter_id, str(resolution), intent_id)
        return (await self._connection.execute(statement)).first() is not None

    async def withdraw_intent(self, intent: Intent) -> None:
        """The letter is open to others again."""
        await self._connection.execute(queries.withdraw_intent(intent.namespace, intent.letter_id, intent.id))

    async def insert_intent(self, intent: Intent, *, due_in: timedelta) -> None:
        """The loop looks after it once `due_in` has passed."""
        values = {
            "namespace": intent.namespace,
            "id": intent.id,
            "dead_letter_id": intent.letter_id,
            "resolution": str(intent.resolution),
            "content": intent.content,
            "request_hash": intent.request_hash,
            "reason": intent.reason,
            "principal_id": intent.operator.principal_id,
            "principal_name": intent.operator.principal,
            "traceparent": intent.operator.traceparent,
        }
        await self._connection.execute(queries.insert_intent(values, due_in=due_in))

    async def find_intent(self, namespace: str, intent_id: str) -> Intent | None:
        row = (await self._connection.execute(queries.select_intent(namespace, intent_id))).first()
        return None if row is None else _intent(row)

    async def postpone_intent(self, intent: Intent, delay: timedelta) -> None:
        await self._connection.execute(queries.postpone_intent(intent.namespace, intent.id, delay))

    async def claim_due_intents(self, limit: int, lease: timedelta) -> list[Intent]:
        """Open intents whose time has come; nobody else gets them within `lease`."""
        claimed = (await self._connection.execute(queries.claim_due_intents(limit, lease))).all()
        if not claimed:
            return []
        namespaces, ids = _columns([(row.namespace, row.id) for row in claimed])
        return [_intent(row) for row in await self._connection.execute(queries.select_intents(namespaces, ids))]

    async def next_due(self) -> timedelta | None:
        """Until the next open intent is due; None if there is none."""
        due: timedelta | None = (await self._connection.execute(queries.select_next_due())).scalar()
        return due

    async def find_request(
        self, namespace: str, method: str, request_id: str, kept: timedelta
    ) -> AnsweredRequest | None:
        statement = queries.select_request(namespace, method, request_id, kept)
        row = (await self._connection.execute(statement)).first()
        intent = None if row is None else await self.find_intent(namespace, row.intent_id)
        return None if row is None or intent is None else AnsweredRequest(row.request_hash, intent)

    async def insert_request(self, method: str, request_id: str, intent: Intent, kept: timedelta) -> bool:
        """False if another transaction was first with the same request id."""
        values = {
            "namespace": intent.namespace,
            "method": method,
            "request_id": request_id,
            "request_hash": intent.request_hash,
            "intent_id": intent.id,
        }
        return (await self._connection.execute(queries.insert_request(values, kept))).first() is not None

    async def forget_request(self, intent: Intent) -> None:
        """What was refused may be asked for again with the same request id."""
        await self._connection.execute(queries.forget_request(intent.namespace, intent.id))

    async def prune_requests(self, kept: timedelta, limit: int) -> int:
        return int((await self._connection.execute(queries.delete_old_requests(kept, limit))).rowcount)

    async def _insert(self, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            await self._connection.execute(queries.insert_rows(table, tuple(rows[0])), queries.row_arrays(table, rows))


def _columns(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _known(row: Row[Any]) -> KnownLetter:
    intent = None
    if row.intent_id is not None:
        intent = OpenIntent(row.intent_id, Resolution(row.intent_resolution), row.intent_principal, row.intent_reason)
    key = (row.namespace, row.run_id, row.quarantine_number)
    return KnownLetter(key, row.id, Resolution(row.resolution), row.previous_id, intent)


def _letter(row: Mapping[str, Any]) -> Letter:
    return Letter(
        namespace=row["namespace"],
        id=row["id"],
        run_id=row["run_id"],
        execution_id=row["execution_id"],
        quarantine_number=row["quarantine_number"],
        task_id=row["task_id"],
        node_id=row["node_id"],
        workflow_id=row["workflow_id"],
        version=row["version"],
        class_name=row["class_name"],
        failure_type=row["failure_type"] or "",
        failure_reason=row["failure_reason"] or "",
        error_type=row["error_type"],
        attempts=row["attempts"],
        target=row["target"],
        episode_id=row["episode_id"],
        traceparent=row["traceparent"],
        trace_id=row["trace_id"],
        quarantined_at=row["quarantined_at"],
        idempotency_key=row["idempotency_key"],
        resolution=Resolution(row["resolution"]),
        requeue_count=row["requeue_count"],
        previous_id=row["previous_id"],
        reviewed_by=row["reviewed_by_name"],
        notes=row["notes"] or "",
        resolved_at=row["resolved_at"],
        resolved_by=row["resolved_by_name"],
        resolution_reason=row["resolution_reason"],
        requested_resolution=None if row["requested_resolution"] is None else Resolution(row["requested_resolution"]),
        intent_id=row["intent_id"],
        inputs=row.get("original_inputs"),
        config=row.get("original_config"),
        stack_traces=row.get("stack_traces", "[]"),
        refused=_refused(row) if row.get("refused_resolution") else None,
    )


def _refused(row: Mapping[str, Any]) -> Refused:
    return Refused(Resolution(row["refused_resolution"]), row["refused_to"], row["refused_because"], row["refused_at"])


def _intent(row: Row[Any]) -> Intent:
    return Intent(
        namespace=row.namespace,
        id=row.id,
        letter_id=row.dead_letter_id,
        resolution=Resolution(row.resolution),
        state=IntentState(row.state),
        content=row.content,
        reason=row.reason,
        request_hash=row.request_hash,
        operator=Operator(row.principal_name, row.principal_id, row.traceparent),
        requested_at=row.created_date,
        run_id=row.run_id,
        execution_id=row.execution_id,
        quarantine_number=row.quarantine_number,
        letter_traceparent=row.letter_traceparent,
        target=row.target,
        tries=row.tries,
    )


def _letter_row(letter: NewLetter, sender: Operator) -> dict[str, Any]:
    what = letter.quarantined
    return {
        "namespace": what.namespace,
        "id": letter.id,
        "run_id": what.run_id,
        "execution_id": what.execution_id,
        "quarantine_number": what.quarantine_number,
        "task_id": what.task_id,
        "node_id": what.node_id,
        "workflow_id": what.workflow_id,
        "version": what.version,
        "class_name": what.class_name,
        "failure_type": what.failure_type,
        "failure_reason": what.failure_reason,
        "error_type": what.error_type,
        "original_inputs": what.inputs,
        "original_config": what.config,
        "attempts": what.attempts,
        "stack_traces": what.stack_traces,
        "target": what.target,
        "episode_id": what.episode_id,
        "traceparent": what.traceparent,
        "trace_id": what.trace_id,
        "quarantined_at": what.quarantined_at,
        "idempotency_key": what.idempotency_key,
        "previous_id": letter.previous_id,
        "requeue_count": requeues_before(what.quarantine_number),
        "created_by": sender.principal_id,
        "created_by_name": sender.principal,
        "last_modified_by": sender.principal_id,
        "last_modified_by_name": sender.principal,
    }


def _settlement_row(one: Settlement) -> dict[str, Any]:
    return {
        "namespace": one.namespace,
        "id": one.letter_id,
        "resolution": str(one.resolution),
        "resolved_by": one.operator.principal_id,
        "resolved_by_name": one.operator.principal,
        "resolution_reason": one.reason,
        "resolved_at": one.resolved_at,
        "intent_id": one.intent_id,
    }


def _event_row(event: AuditEvent) -> dict[str, Any]:
    return {
        "namespace": event.namespace,
        "id": event.id,
        "dead_letter_id": event.letter_id,
        "action": event.action,
        "from_resolution": None if event.from_resolution is None else str(event.from_resolution),
        "to_resolution": str(event.to_resolution),
        "principal_id": event.operator.principal_id,
        "principal_name": event.operator.principal,
        "reason": event.reason,
        "detail": event.detail,
        "trace_id": event.trace_id,
    }
