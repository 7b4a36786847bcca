"""An append-only history of every transition of every run, written by a trigger, and what must hold of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import asyncpg

from services.executor.model import run_id
from valkyr.graph.model import Graph

TERMINAL = frozenset({"SUCCESS", "FAILED", "SKIPPED", "CANCELLED"})
INSTALL = """
CREATE SCHEMA history;
CREATE TABLE history.event (
    n bigserial PRIMARY KEY, execution_id uuid, run_id uuid, was text, state text, epoch int, attempt int,
    lost_leases int, unmet int, tx text DEFAULT pg_current_xact_id()::text);
CREATE FUNCTION history.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history.event (execution_id, run_id, was, state, epoch, attempt, lost_leases, unmet)
    VALUES (NEW.execution_id, NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.epoch,
        NEW.attempt, NEW.lost_leases, NEW.unmet);
    RETURN NULL;
END $$;
CREATE TRIGGER noted_insert AFTER INSERT ON executor.run FOR EACH ROW EXECUTE FUNCTION history.note();
CREATE TRIGGER noted_update AFTER UPDATE ON executor.run FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.epoch <> NEW.epoch) EXECUTE FUNCTION history.note();
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One transition; `was` is None for the first. Ordered by `n`; `tx` names the transaction."""

    n: int
    execution_id: UUID
    run_id: UUID
    was: str | None
    state: str
    epoch: int
    attempt: int
    lost_leases: int
    unmet: int
    tx: str


async def install(connection: asyncpg.Connection) -> None:
    """From now on every transition is noted."""
    await connection.execute(INSTALL)


async def read(connection: asyncpg.Connection, execution_id: str) -> list[Event]:
    """The history of one execution."""
    rows = await connection.fetch("SELECT * FROM history.event WHERE execution_id = $1 ORDER BY n", UUID(execution_id))
    return [Event(*row) for row in rows]


def violations(events: Sequence[Event], execution_id: str, graph: Graph) -> list[str]:
    """What of the checks C1 to C5 and C8 does not hold for an execution that succeeded; empty if all is well."""
    by_run: dict[UUID, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event.run_id].append(event)
    ids = {node.node_id: run_id(UUID(execution_id), index) for index, node in enumerate(graph.nodes)}
    found = [f"{name}: never settled" for name, key in ids.items() if by_run[key][-1].state not in TERMINAL]
    for name, key in ids.items():
        found += [f"{name}: {problem}" for problem in _of_one_run(by_run[key])]
    return found + list(_out_of_order(by_run, ids, graph))


def _of_one_run(events: Sequence[Event]) -> Iterable[str]:
    terminal = [event for event in events if event.state in TERMINAL]
    if len(terminal) != 1 or terminal[0] is not events[-1]:
        yield f"C2: {len(terminal)} terminal transitions, the last event is {events[-1].state}"
    if sum(event.was == "PENDING" for event in events) > 1:
        yield "C8: left PENDING more than once"
    for before, after in pairwise(events):
        lease_taken = after.state == "LEASED"
        # Lost, or given back because the answer to its COMMIT was lost and nobody holds it: neither was a report.
        lease_ended = after.was == "LEASED" and after.state == "READY"
        if after.was != before.state:
            yield f"C3: {before.state} was followed by a transition from {after.was}"
        if after.epoch - before.epoch != lease_taken + lease_ended:
            yield f"C3: the epoch went from {before.epoch} to {after.epoch} with {after.was} -> {after.state}"
        if lease_taken and before.state == "LEASED":
            yield "C4: leased while it was leased"
    leases = sum(event.state == "LEASED" for event in events)
    ended = sum(event.was == "LEASED" and event.state == "READY" for event in events)
    if events[-1].attempt != leases or events[-1].lost_leases > ended or leases != ended + 1:
        yield f"C5: {leases} leases, {ended} ended early; noted: {events[-1].attempt}, {events[-1].lost_leases} lost"


def _out_of_order(by_run: Mapping[UUID, list[Event]], ids: Mapping[str, UUID], graph: Graph) -> Iterable[str]:
    done = {key: events[-1].n for key, events in by_run.items()}
    leased = {
        key: next((event.n for event in events if event.state == "LEASED"), events[-1].n)
        for key, events in by_run.items()
    }
    for edge in graph.edges:
        if leased[ids[edge.target]] < done[ids[edge.source]]:
            yield f"C8: {edge.target} was leased before {edge.source} had ended"


def leases_ended_early(events: Sequence[Event]) -> Counter[UUID]:
    """How many leases of each run were lost or given back."""
    return Counter(event.run_id for event in events if event.was == "LEASED" and event.state == "READY")
