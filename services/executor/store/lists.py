"""Lists by example: pages of executions and of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.chassis.example.query import Query, fetch
from services.executor.examples import EXECUTIONS
from services.executor.model import ExecutionView, RunView
from services.executor.queries_reading import EXECUTION_COLUMNS, RUN_COLUMNS, SHOWN_STATE
from services.executor.store.reads import executions_of, runs_of
from valkyr.flow.states import ExecutionState, RunState

CLOCK_SKEW = timedelta(days=1)
"""By how much the clock of an executor may differ from the database's before a range of times misses executions."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ExecutionScope:
    """What holds beside the example, whatever the matcher says. Empty fields do not restrict."""

    namespace: str
    ids: Sequence[UUID] = ()
    workflow_id: UUID | None = None
    states: Sequence[ExecutionState] = ()


@dataclass(frozen=True, slots=True)
class RunScope:
    """As ExecutionScope."""

    namespace: str
    execution_id: UUID | None = None
    workflow_id: UUID | None = None
    states: Sequence[RunState] = ()


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """The runs of a page and one more, if there is one; and the rows that they were made of, in the same order."""

    rows: Sequence[Any]
    runs: Sequence[RunView]


async def find_executions(connection: Any, query: Query, wanted: ExecutionScope) -> tuple[list[ExecutionView], str]:
    """A page and the next one's token; without trigger payloads, run counts and outputs."""
    stored = {*wanted.states, ExecutionState.PENDING} if ExecutionState.RUNNING in wanted.states else wanted.states
    scope, values = _scope(
        ("e.namespace = {}::text", wanted.namespace),
        ("e.id = ANY({}::uuid[])", list(wanted.ids)),
        ("e.workflow_id = {}::uuid", wanted.workflow_id),
        ("e.state = ANY({}::text[])", sorted(stored)),
        (f"{SHOWN_STATE} = ANY({{}}::text[])", list(wanted.states)),
        *_id_bounds(query),
    )
    statement = query.statement(EXECUTION_COLUMNS, "executor.workflow_execution AS e", scope, values)
    rows, next_page_token = query.page(await fetch(connection, statement))
    return await executions_of(connection, rows), next_page_token


async def find_runs(connection: Any, query: Query, wanted: RunScope) -> FoundRuns:
    """Without outputs."""
    scope, values = _scope(
        ("r.namespace = {}::text", wanted.namespace),
        ("r.execution_id = {}::uuid", wanted.execution_id),
        ("e.workflow_id = {}::uuid", wanted.workflow_id),
        ("r.state = ANY({}::text[])", list(wanted.states)),
    )
    of_execution = (
        "" if wanted.workflow_id is None else " JOIN executor.workflow_execution AS e ON e.id = r.execution_id"
    )
    rows = await fetch(connection, query.statement(RUN_COLUMNS, f"executor.run AS r{of_execution}", scope, values))
    return FoundRuns(rows, await runs_of(connection, rows))


def _id_bounds(query: Query) -> Iterator[tuple[str, UUID]]:
    """What a range of creation times says of ids, so that the key's index leads to them: there is none on the times.

    Ids begin with the clock of the executor that made them; the ranges themselves are by the database's.
    """
    for within in query.ranges:
        if within.column is EXECUTIONS.fields["createTime"]:
            if within.start is not None:
                yield "e.id >= {}::uuid", _first_id_at(within.start, -CLOCK_SKEW)
            if within.end is not None:
                yield "e.id < {}::uuid", _first_id_at(within.end, CLOCK_SKEW)


def _first_id_at(moment: datetime, later: timedelta) -> UUID:
    """Below every UUIDv7 that was made then or thereafter."""
    millis = (moment - _EPOCH + later) // timedelta(milliseconds=1)
    return UUID(int=min(max(millis, 0), 2**48 - 1) << 80)


def _scope(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    """The conditions that have a value, numbered, and their values."""
    given = [(sql, value) for sql, value in conditions if value not in (None, [])]
    return " AND ".join(sql.format(f"${i}") for i, (sql, _) in enumerate(given, 1)), [value for _, value in given]
