"""Pauses and resumes of executions, and who asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.executor import queries_pausing as queries
from services.executor.store.progress import request_ids, storable
from valkyr.flow.effects import Intervention
from valkyr.flow.events import PauseExecution, ResumeExecution
from valkyr.flow.facts import Asked
from valkyr.flow.pauses import kind_of


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """What is READY again: the most urgent rank of what can be leased, None if nothing; whether control nodes are."""

    rank: int | None
    control: bool


async def pause_runs(tx: Any, executions: Sequence[UUID]) -> None:
    """What is READY, or held back by a breaker, is PARKED by the pause. The executions are locked, and all else of the
    transaction is written."""
    if executions:
        await tx.execute(queries.PAUSE_RUNS, executions)


async def resume_runs(tx: Any, executions: Sequence[UUID]) -> BroughtBack:
    """What the pause had parked is READY again, not before its `retry_after`."""
    if not executions:
        return BroughtBack(None, control=False)
    row = await tx.fetchrow(queries.RESUME_RUNS, executions)
    return BroughtBack(row[0], row[1])


async def read_asked(
    tx: Any, events: Sequence[tuple[str, PauseExecution | ResumeExecution]]
) -> Mapping[str, Mapping[tuple[str, str], Asked]]:
    """What the request_ids of pauses and resumes, given with their namespaces, were used for before: by namespace, and
    there by kind and id."""
    keys = [(space, kind_of(event), event.request.request_id) for space, event in events if event.request.request_id]
    if not keys:
        return {}
    asked: dict[str, dict[tuple[str, str], Asked]] = {}
    for row in await tx.fetch(queries.READ_ASKED, *zip(*keys, strict=True)):
        asked.setdefault(row[0], {})[row[1], row[2]] = Asked(row[3], row[4])
    return asked


async def insert_interventions(tx: Any, interventions: Sequence[Intervention]) -> None:
    """RequestIdReused for a request_id that another execution's call has taken since it was looked for."""
    rows = [
        (
            i.namespace,
            i.execution_id,
            i.kind,
            i.request.principal,
            storable(i.request.reason) or None,
            i.request.request_id,
            i.request.hash if i.request.request_id else None,
            i.took_effect,
        )
        for i in interventions
    ]
    if rows:
        with request_ids():
            await tx.execute(queries.INSERT_INTERVENTIONS, *zip(*rows, strict=True))


async def forget_requests(connection: Any, kept: timedelta, limit: int) -> int:
    """Request ids that are older than `kept`, and with them what changed nothing; how many there were."""
    forgotten: int = await connection.fetchval(queries.FORGET_REQUESTS, kept, limit)
    return forgotten
