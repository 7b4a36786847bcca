"""Relays quarantines and their resolutions to the DLQ. I15: a row is deleted when the DLQ has answered, not before.

Any replica may relay: the DLQ takes each (run, quarantine number) once, and the order per run is that of the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import orjson

from services.executor.facts import ExecutionCache, Known
from services.executor.gateways import DlqGateway, Told
from services.executor.model import AttemptView, Letter, OutboxRow
from services.executor.store.outbox import (
    delete_outbox,
    read_outbox,
    read_told_attempts,
    readmit_outbox,
    refuse_outbox,
)
from services.executor.store.progress import read_results
from services.executor.store.reads import read_facts
from services.executor.store.session import Session
from valkyr.errors import Internal, InvalidRequest, ValkyrError
from valkyr.flow.facts import ExecutionFacts
from valkyr.flow.ids import RunKey, run_id
from valkyr.flow.joins import Gate, taken_edges
from valkyr.flow.plan import Template
from valkyr.flow.sights import StoredResult, results_by_node
from valkyr.planning.compiled import CompiledConfig
from valkyr.planning.inputs import INPUTS_LIMIT, make_inputs, needed_results
from valkyr.telemetry import get_logger

log = get_logger(__name__)

BATCH = 100
MAX_BATCH_BYTES = 8 * 1024 * 1024
AT_ONCE = 5
"""Letters whose attempts and inputs are read together: either may be some MiB."""

ROUNDS = 3
"""So often the DLQ may fail at a batch before it is sent one by one."""

SKIPPED = timedelta(minutes=1)
"""How long what the DLQ fails at is passed over."""

FIRST_PAUSE = timedelta(milliseconds=200)
LAST_PAUSE = timedelta(seconds=10)


class Outbox:
    """One step relays until there is nothing left, or the DLQ does not answer.

    Only InvalidRequest is about the entry. Anything else says that the DLQ cannot do its work at present: entries are
    sent again as they are. If it fails at one entry (Internal), those of that run are passed over for a while.
    """

    def __init__(
        self, session: Session, cache: ExecutionCache, dlq: DlqGateway, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._cache = cache
        self._dlq = dlq
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._away = False
        self._readmitted = False
        self._failures = 0
        self._skipped: dict[UUID, float] = {}

    async def step(self) -> timedelta | None:
        """How long until it is worth trying again; None if nothing is left. That the DLQ is away is no failure."""
        await self._readmit()
        while True:
            self._skipped = {run: until for run, until in self._skipped.items() if self._clock() < until}
            async with self._session.reading() as connection:
                rows = await read_outbox(connection, BATCH, without=self._skipped)
            if not rows:
                return None
            try:
                told = await self._tell(await self._entries(rows))
            except ValkyrError as error:
                return self._note_away(error)
            if not told.accepted and not told.refused:
                return self._next_pause()
            self._note_back()
            await self._forget(told)

    async def _readmit(self) -> None:
        """What was refused is tried once more by every executor that starts: the DLQ may have come to be another."""
        if not self._readmitted:
            async with self._session.transaction() as tx:
                await readmit_outbox(tx)
            self._readmitted = True

    async def _tell(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        """Where the DLQ will not have them together, each alone: one that it never will have holds up no other."""
        try:
            told = await self._dlq.tell(entries)
        except InvalidRequest as error:
            log.warning("outbox.batch_refused", entries=len(entries), reason=error.reason, error=str(error))
        except Internal as error:
            self._failures += 1
            if self._failures < ROUNDS:
                raise
            log.warning("outbox.batch_failed", entries=len(entries), rounds=self._failures, error=str(error))
        else:
            self._failures = 0
            return told
        return await self._tell_each(entries)

    async def _tell_each(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        """One after another, those of a run in their order."""
        accepted: list[int] = []
        refused: dict[int, str] = {}
        for entry in entries:
            row = _row_of(entry)
            if row.run_id in self._skipped:
                continue
            try:
                told = await self._dlq.tell([entry])
            except InvalidRequest as error:
                refused[row.id] = f"{error.reason}: {error}"
            except Internal as error:
                self._skipped[row.run_id] = self._clock() + SKIPPED.total_seconds()
                log.error("outbox.skipped", entry=row.id, run_id=str(row.run_id), error=str(error))
            except ValkyrError:
                if not accepted and not refused:
                    raise
                break  # what was told is forgotten first
            else:
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
        return self._next_pause()

    def _next_pause(self) -> timedelta:
        pause, self._pause = self._pause, min(self._pause * 2, LAST_PAUSE)
        return pause

    def _note_back(self) -> None:
        if self._away:
            log.info("dlq.back")
        self._away, self._pause = False, FIRST_PAUSE

    async def _entries(self, rows: Sequence[OutboxRow]) -> list[OutboxRow | Letter]:
        """As many as fit into one message, at least one; read a few at a time, so that no more are in memory."""
        failed = [row for row in rows if row.kind == "QUARANTINED"]
        known = await self._cache.get_many(row.execution_id for row in failed)
        unplanned = {row.execution_id for row in failed} - known.keys()
        async with self._session.reading() as connection:
            facts = {fact.id: fact for fact in await read_facts(connection, unplanned)} if unplanned else {}
        entries: list[OutboxRow | Letter] = []
        size = 0
        for start in range(0, len(rows), AT_ONCE):
            for entry in await self._few_entries(rows[start : start + AT_ONCE], known, facts):
                size += _size_of(entry) if isinstance(entry, Letter) else 0
                if entries and size > MAX_BATCH_BYTES:
                    return entries
                entries.append(entry)
        return entries

    async def _few_entries(
        self, rows: Sequence[OutboxRow], known: Mapping[UUID, Known], facts: Mapping[UUID, ExecutionFacts]
    ) -> list[OutboxRow | Letter]:
        failed = [row for row in rows if row.kind == "QUARANTINED"]
        if not failed:
            return list(rows)
        async with self._session.reading() as connection:
            attempts = await read_told_attempts(connection, failed)
            results = await read_results(connection, sorted(_sources(failed, known)))
        entries: list[OutboxRow | Letter] = []
        for row in rows:
            if row.kind != "QUARANTINED":
                entries.append(row)
            elif row.execution_id in known:
                entries.append(_letter(row, known[row.execution_id], attempts[row.id], results))
            else:
                entries.append(_letter_without_plan(row, facts[row.execution_id], attempts[row.id]))
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


def _row_of(entry: OutboxRow | Letter) -> OutboxRow:
    return entry.row if isinstance(entry, Letter) else entry


def _as_saved(config: Template) -> bytes:
    """The config with its expressions, where they could not be resolved."""
    return config.source if isinstance(config, CompiledConfig) else b"null"
