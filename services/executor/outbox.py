"""Relays quarantines and their resolutions to the DLQ. I15: a row is deleted when the DLQ has answered, not before.

Any replica may relay: the DLQ takes each (run, quarantine number) once, and the order per run is that of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import orjson

from services.executor.compiled import CompiledConfig
from services.executor.facts import ExecutionCache, Known
from services.executor.gateways import DlqGateway, Told
from services.executor.inputs import INPUTS_LIMIT, make_inputs, needed_results, results_by_node
from services.executor.model import AttemptView, ExecutionFacts, Letter, OutboxRow, StoredResult, run_id
from services.executor.store.outbox import delete_outbox, read_outbox, refuse_outbox
from services.executor.store.progress import RunKey, read_results
from services.executor.store.reads import read_attempts, read_facts
from services.executor.store.session import Session
from valkyr.errors import DeadlineExceeded, Internal, Overloaded, Unavailable, ValkyrError
from valkyr.flow.joins import Gate, taken_edges
from valkyr.flow.plan import Template
from valkyr.telemetry import get_logger

log = get_logger(__name__)

BATCH = 100
MAX_BATCH_BYTES = 8 * 1024 * 1024
FIRST_ATTEMPTS = 10
LAST_ATTEMPTS = 90
STACK_TRACES = 20
"""Of one letter."""

AWAY = (Unavailable, DeadlineExceeded, Overloaded, Internal)
"""What says nothing about the entries themselves: they are sent again as they are."""
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
            try:
                told = await self._tell(await self._entries(rows))
            except ValkyrError as error:
                return self._note_away(error)
            self._note_back()
            await self._forget(told)
            if not told.accepted and not told.refused:
                return self._pause

    async def _tell(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        """Where the DLQ will not have them together, each alone: one that it never will have holds up no other."""
        try:
            return await self._dlq.tell(entries)
        except AWAY:
            raise
        except ValkyrError as error:
            if len(entries) == 1:
                return Told([], {_id_of(entries[0]): f"{error.reason}: {error}"})
            log.warning("outbox.batch_refused", entries=len(entries), reason=error.reason, error=str(error))
        accepted: list[int] = []
        refused: dict[int, str] = {}
        for entry in entries:
            told = await self._tell([entry])
            accepted += told.accepted
            refused |= told.refused
        return Told(accepted, refused)

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
            attempts = await read_attempts(connection, sorted({(row.execution_id, row.run_id) for row in failed}))
            results = await read_results(connection, sorted(_sources(failed, known)))
            unplanned = {row.execution_id for row in failed} - known.keys()
            facts = {fact.id: fact for fact in await read_facts(connection, unplanned)} if unplanned else {}
        entries: list[OutboxRow | Letter] = []
        size = 0
        for row in rows:
            entry: OutboxRow | Letter = row
            if row.kind == "QUARANTINED":
                told = _told(row, attempts.get(row.run_id, ()))
                if row.execution_id in known:
                    entry = _letter(row, known[row.execution_id], told, results)
                else:
                    entry = _letter_without_plan(row, facts[row.execution_id], told)
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
    row: OutboxRow, known: Known, attempts: Sequence[AttemptView], results: Mapping[RunKey, StoredResult]
) -> Letter:
    """Inputs and config as the last attempt had them: both follow from rows that do not change."""
    plan = known.version.plan
    node = plan.nodes[row.node_index]
    inputs, config, problem = make_inputs(
        plan,
        known.facts,
        node,
        taken=_taken(row, node.incoming),
        ready_revision=row.ready_revision or 1,
        result_of=results_by_node(row.execution_id, results),
        replaced=row.inputs,
    )
    if len(inputs) > INPUTS_LIMIT:
        inputs = orjson.dumps({"omitted": problem})
    return _made(row, known.facts, attempts, inputs=inputs, config=_as_saved(node.config) if problem else config)


def _letter_without_plan(row: OutboxRow, facts: ExecutionFacts, attempts: Sequence[AttemptView]) -> Letter:
    """Its graph cannot be planned any more: what is known is told."""
    return _made(row, facts, attempts, inputs=(row.inputs or "null").encode(), config=b"null")


def _made(
    row: OutboxRow, facts: ExecutionFacts, attempts: Sequence[AttemptView], *, inputs: bytes, config: bytes
) -> Letter:
    return Letter(
        row=row,
        workflow_id=facts.workflow_id,
        version=facts.version,
        inputs=inputs,
        config=config,
        attempts=attempts,
        traceparent=row.traceparent or facts.traceparent,
    )


def _id_of(entry: OutboxRow | Letter) -> int:
    return entry.row.id if isinstance(entry, Letter) else entry.id


def _told(row: OutboxRow, attempts: Sequence[AttemptView]) -> list[AttemptView]:
    """Those of this quarantine and before it: of many the first and the last ones, stack traces of the last ones only.
    So any letter fits into one message."""
    ended = [attempt for attempt in attempts if attempt.attempt <= row.attempt]
    if len(ended) > FIRST_ATTEMPTS + LAST_ATTEMPTS:
        ended = [*ended[:FIRST_ATTEMPTS], *ended[-LAST_ATTEMPTS:]]
    traceless = [replace(attempt, stack_trace="") for attempt in ended[:-STACK_TRACES]]
    return [*traceless, *ended[-STACK_TRACES:]]


def _as_saved(config: Template) -> bytes:
    """The config with its expressions, where they could not be resolved."""
    return config.source if isinstance(config, CompiledConfig) else b"null"
