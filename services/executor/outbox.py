"""Relays quarantines and their resolutions to the DLQ. I15: a row is deleted when the DLQ has answered, not before.

Any replica may relay: the DLQ takes each (run, quarantine number) once, and the order per run is that of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from services.executor.compiled import CompiledConfig
from services.executor.facts import ExecutionCache, Known
from services.executor.gateways import DlqGateway, Told
from services.executor.inputs import make_inputs, needed_results, results_by_node
from services.executor.model import AttemptView, Letter, OutboxRow, StoredResult, run_id
from services.executor.store.outbox import delete_outbox, read_outbox, refuse_outbox
from services.executor.store.progress import RunKey, read_results
from services.executor.store.reads import read_attempts
from services.executor.store.session import Session
from valkyr.errors import ValkyrError
from valkyr.flow.joins import Gate, taken_edges
from valkyr.flow.plan import Template
from valkyr.telemetry import get_logger

log = get_logger(__name__)

BATCH = 100
MAX_BATCH_BYTES = 8 * 1024 * 1024
STACK_TRACES = 20
"""Of one letter: its last attempts' ones."""
FIRST_PAUSE = timedelta(milliseconds=200)
LAST_PAUSE = timedelta(seconds=10)


class Outbox:
    """One step relays until there is nothing left, or the DLQ does not answer."""

    def __init__(self, session: Session, cache: ExecutionCache, dlq: DlqGateway) -> None:
        self._session = session
        self._cache = cache
        self._dlq = dlq
        self._pause = FIRST_PAUSE
        self._away = False

    async def step(self) -> timedelta | None:
        """How long until it is worth trying again; None if nothing is left. That the DLQ is away is no failure."""
        while True:
            async with self._session.reading() as connection:
                rows = await read_outbox(connection, BATCH)
            if not rows:
                return None
            entries = await self._entries(rows)
            try:
                told = await self._dlq.tell(entries)
            except ValkyrError as error:
                return self._note_away(error)
            self._note_back()
            await self._forget(told)
            if not told.accepted and not told.refused:
                return self._pause

    async def _forget(self, told: Told) -> None:
        async with self._session.transaction() as tx:
            await delete_outbox(tx, told.accepted)
            if told.refused:
                await refuse_outbox(tx, told.refused)
        for entry, problem in told.refused.items():
            log.critical("outbox.refused", entry=entry, problem=problem)

    def _note_away(self, error: ValkyrError) -> timedelta:
        if not self._away:
            log.warning("dlq.away", error=str(error), reason=error.reason)
        self._away = True
        pause, self._pause = self._pause, min(self._pause * 2, LAST_PAUSE)
        return pause

    def _note_back(self) -> None:
        if self._away:
            log.info("dlq.back")
        self._away, self._pause = False, FIRST_PAUSE

    async def _entries(self, rows: Sequence[OutboxRow]) -> list[OutboxRow | Letter]:
        """As many as fit into one message, at least one."""
        failed = [row for row in rows if row.kind == "QUARANTINED"]
        known = await self._cache.get_many(row.execution_id for row in failed)
        async with self._session.reading() as connection:
            attempts = await read_attempts(connection, [(row.execution_id, row.run_id) for row in failed])
            results = await read_results(connection, sorted(_sources(failed, known)))
        entries: list[OutboxRow | Letter] = []
        size = 0
        for row in rows:
            entry: OutboxRow | Letter = row
            if row.kind == "QUARANTINED":
                entry = _letter(row, known.get(row.execution_id), attempts.get(row.run_id, ()), results)
                size += _size_of(entry)
            if entries and size > MAX_BATCH_BYTES:
                break
            entries.append(entry)
        return entries


def _size_of(letter: Letter) -> int:
    """About as many bytes as it takes on the wire."""
    told = sum(2 * (len(attempt.error) + len(attempt.stack_trace)) + 200 for attempt in letter.attempts)
    return len(letter.inputs) + len(letter.config) + 2 * len(letter.row.record.error or "") + told


def _sources(rows: Sequence[OutboxRow], known: Mapping[UUID, Known]) -> set[RunKey]:
    """The runs whose outcomes were inputs of these."""
    keys: set[RunKey] = set()
    for row in rows:
        if row.execution_id in known:
            plan = known[row.execution_id].version.plan
            node = plan.nodes[row.node_index]
            needed = needed_results(plan, node, _taken(row, node.incoming))
            keys.update((row.execution_id, run_id(row.execution_id, source)) for source in needed)
    return keys


def _taken(row: OutboxRow, incoming: tuple[int, ...]) -> tuple[int, ...]:
    return taken_edges(incoming, Gate(0, excluded=row.excluded, chosen=row.chosen))


def _letter(
    row: OutboxRow,
    known: Known | None,
    attempts: Sequence[AttemptView],
    results: Mapping[RunKey, StoredResult],
) -> Letter:
    """Inputs and config as the last attempt had them: both follow from rows that do not change."""
    if known is None:
        # Its graph cannot be planned any more: what is known is told.
        return Letter(row, "", "", UUID(int=0), 0, b"null", b"null", attempts, row.traceparent or "")
    facts, plan = known.facts, known.version.plan
    node = plan.nodes[row.node_index]
    inputs, config, problem = make_inputs(
        plan,
        facts,
        node,
        taken=_taken(row, node.incoming),
        ready_revision=row.ready_revision or 1,
        result_of=results_by_node(row.execution_id, results),
        replaced=row.inputs,
    )
    return Letter(
        row=row,
        node_id=node.node_id,
        class_name=node.class_name,
        workflow_id=facts.workflow_id,
        version=facts.version,
        inputs=inputs,
        config=_as_saved(node.config) if problem else config,
        attempts=_told([attempt for attempt in attempts if attempt.attempt <= row.attempt]),
        traceparent=row.traceparent or facts.traceparent,
    )


def _told(attempts: Sequence[AttemptView]) -> list[AttemptView]:
    """All of them, but stack traces of the last ones only: so that any letter fits into one message."""
    traceless = [replace(attempt, stack_trace="") for attempt in attempts[:-STACK_TRACES]]
    return [*traceless, *attempts[-STACK_TRACES:]]


def _as_saved(config: Template) -> bytes:
    """The config with its expressions, where they could not be resolved."""
    return config.source if isinstance(config, CompiledConfig) else b"null"
