"""An append-only history of every transition of every run, written by a trigger, and what must hold of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from uuid import UUID

import asyncpg

from valkyr.flow.ids import run_id
from valkyr.graph.model import EdgeKind, Graph, Node

TERMINAL = frozenset({"SUCCESS", "FAILED", "SKIPPED", "CANCELLED"})
LEGAL = {
    "PENDING": TERMINAL - {"FAILED"} | {"READY", "LEASED", "WAITING", "PARKED", "QUARANTINED"},
    "READY": {"LEASED", "PARKED", "FAILED", "QUARANTINED", "CANCELLED"},
    "LEASED": TERMINAL - {"SKIPPED"} | {"READY", "PARKED", "QUARANTINED"},
    "PARKED": {"READY", "FAILED", "QUARANTINED", "CANCELLED"},
    "WAITING": {"READY", "SUCCESS", "FAILED", "QUARANTINED", "CANCELLED"},
    "QUARANTINED": {"READY", "LEASED", "PARKED", "SUCCESS", "FAILED"},
}
"""Where a run may go from each state that is not final; a hand-off leases what becomes ready in the same statement, and
while the execution is paused it is parked instead."""
FROM_READY = {"WAITING", "SUCCESS"}
"""Where control nodes go, too: they are never leased."""
CONTROL = {"DelayModule"}
MAX_ATTEMPTS, MAX_LOST_LEASES = 3, 5
INSTALL = """
CREATE SCHEMA history;
CREATE TABLE history.event (
    n bigserial PRIMARY KEY, execution_id uuid, run_id uuid, was text, state text, epoch int, attempt int,
    lost_leases int, unmet int, tx text DEFAULT pg_current_xact_id()::text, failures int, quarantine_number int,
    target text, permit_id uuid, at timestamptz DEFAULT now());
CREATE INDEX event_execution ON history.event (execution_id, n);
CREATE FUNCTION history.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history.event (execution_id, run_id, was, state, epoch, attempt, lost_leases, unmet, failures,
        quarantine_number, target, permit_id)
    VALUES (NEW.execution_id, NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.epoch,
        NEW.attempt, NEW.lost_leases, NEW.unmet, NEW.failures, NEW.quarantine_number, NEW.target, NEW.permit_id);
    RETURN NULL;
END $$;
CREATE TRIGGER noted_insert AFTER INSERT ON executor.run FOR EACH ROW EXECUTE FUNCTION history.note();
CREATE TRIGGER noted_update AFTER UPDATE ON executor.run FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.epoch <> NEW.epoch) EXECUTE FUNCTION history.note();
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One transition; `was` is None for the first. Ordered by `n`; `tx` names the transaction, `at` is its start."""

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
    failures: int
    quarantine_number: int
    target: str | None
    permit_id: UUID | None
    at: datetime


async def install(connection: asyncpg.Connection) -> None:
    """From now on every transition is noted."""
    await connection.execute(INSTALL)


async def read(connection: asyncpg.Connection, execution_id: str) -> list[Event]:
    """The history of one execution."""
    rows = await connection.fetch("SELECT * FROM history.event WHERE execution_id = $1 ORDER BY n", UUID(execution_id))
    return [Event(*row) for row in rows]


async def read_target(connection: asyncpg.Connection, target: str) -> list[Event]:
    """What happened to the runs of one target, of all executions, once their target was known."""
    rows = await connection.fetch("SELECT * FROM history.event WHERE target = $1 ORDER BY n", target)
    return [Event(*row) for row in rows]


def violations(
    events: Sequence[Event], execution_id: str, graph: Graph, *, max_lost_leases: int = MAX_LOST_LEASES
) -> list[str]:
    """What of the checks C1 to C5 and C8 does not hold for an execution that is settled; empty if all is well."""
    by_run: dict[UUID, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event.run_id].append(event)
    ids = {node.node_id: run_id(UUID(execution_id), index) for index, node in enumerate(graph.nodes)}
    missing = [f"{name}: C1: no such run" for name, key in ids.items() if key not in by_run]
    if missing:
        return missing
    found = list(_not_settled({name: by_run[key][-1].state for name, key in ids.items()}))
    for node in graph.nodes:
        of_run = by_run[ids[node.node_id]]
        legal = LEGAL | {"READY": LEGAL["READY"] | FROM_READY} if _is_control(node, graph) else LEGAL
        problems = [*_of_one_run(of_run, legal), *_over_budget(of_run, _max_attempts(node, graph), max_lost_leases)]
        found += [f"{node.node_id}: {problem}" for problem in problems]
    return found + list(_out_of_order(by_run, ids, graph))


def _not_settled(last: Mapping[str, str]) -> Iterable[str]:
    """What waits behind a quarantine stays PENDING until somebody resolves that."""
    resting = TERMINAL | ({"QUARANTINED", "PENDING"} if "QUARANTINED" in last.values() else set())
    for name, state in last.items():
        if state not in resting:
            yield f"{name}: C1: never settled, it is {state}"


def _is_control(node: Node, graph: Graph) -> bool:
    classes = {module.node_id: module.class_name for module in graph.modules}
    return node.node_id not in classes or classes[node.node_id] in CONTROL


def _of_one_run(events: Sequence[Event], legal: Mapping[str, Collection[str]]) -> Iterable[str]:
    terminal = [event for event in events if event.state in TERMINAL]
    if len(terminal) > 1 or (terminal and terminal[0] is not events[-1]):
        yield f"C2: {len(terminal)} terminal transitions, the last event is {events[-1].state}"
    if sum(event.was == "PENDING" for event in events) > 1:
        yield "C8: left PENDING more than once"
    for before, after in pairwise(events):
        if after.was != before.state:
            yield f"C3: {before.state} was followed by a transition from {after.was}"
        if after.state not in legal.get(before.state, ()):
            yield f"C2: it went from {before.state} to {after.state}"
        if after.state == "LEASED" and before.state == "LEASED":
            yield "C4: leased while it was leased"
        yield from _miscounted(before, after)


def _miscounted(before: Event, after: Event) -> Iterable[str]:
    """The epoch grows with each lease and each end of one that was no report; a lease costs one attempt of one kind."""
    failures, lost = after.failures - before.failures, after.lost_leases - before.lost_leases
    if before.state == "QUARANTINED":
        failures, lost = after.failures, after.lost_leases
    grown, ended = after.epoch - before.epoch, before.state == "LEASED"
    said = f"{before.state} -> {after.state}"
    if after.state == "LEASED" or ended:
        # Given back because nobody held it, or released: which of them does not show in the row.
        may_be_either = ended and after.state in ("READY", "PARKED", "CANCELLED") and not failures and not lost
        expected = {0, 1} if may_be_either else {int(after.state == "LEASED") + lost}
        if grown not in expected:
            yield f"C3: the epoch went from {before.epoch} to {after.epoch} with {said}"
    elif grown:
        yield f"C3: the epoch grew without a lease, with {said}"
    if (failures, lost) not in ({(0, 0), (1, 0), (0, 1)} if ended else {(0, 0)}):
        yield f"C5: {said} counted {failures} failures and {lost} lost leases"
    if ended and after.state == "SUCCESS" and (failures or lost):
        yield "C5: a success was counted as a failure"


def _over_budget(events: Sequence[Event], max_attempts: int, max_lost_leases: int) -> Iterable[str]:
    leases = sum(event.state == "LEASED" for event in events)
    if events[-1].attempt != leases:
        yield f"C5: {leases} leases, and {events[-1].attempt} attempts are noted"
    for event in events:
        if event.failures > max_attempts or event.lost_leases > max_lost_leases:
            yield f"C5: {event.failures} failures of {max_attempts}, {event.lost_leases} lost of {max_lost_leases}"
        if event.state in ("READY", "PARKED") and (
            event.failures >= max_attempts or event.lost_leases >= max_lost_leases
        ):
            yield "C5: tried again although its budget was used up"


def _max_attempts(node: Node, graph: Graph) -> int:
    for retry in (node.retry, graph.settings.default_retry):
        if retry is not None and retry.max_attempts is not None:
            return retry.max_attempts
    return MAX_ATTEMPTS


def _out_of_order(by_run: Mapping[UUID, list[Event]], ids: Mapping[str, UUID], graph: Graph) -> Iterable[str]:
    """An ALWAYS edge is decided by a quarantine, too; of the others all wait for the end of their source.

    What one transaction writes happens at once: its statements may come in any order.
    """
    for edge in graph.edges:
        deciding = TERMINAL | {"QUARANTINED"} if edge.kind is EdgeKind.ALWAYS else TERMINAL
        done = next((event for event in by_run[ids[edge.source]] if event.state in deciding), None)
        left = next((event for event in by_run[ids[edge.target]] if event.was == "PENDING"), None)
        if left is None or left.state == "CANCELLED":
            continue
        if done is None or (left.n < done.n and left.tx != done.tx):
            yield f"C8: {edge.target} left PENDING before {edge.source} had ended"


def leases_ended_early(events: Sequence[Event]) -> Counter[UUID]:
    """How many leases of each run were lost or given back."""
    return Counter(
        event.run_id
        for before, event in _pairs(events)
        if event.was == "LEASED" and event.state in ("READY", "PARKED") and event.failures == before.failures
    )


def leases_without_success(events: Sequence[Event]) -> int:
    """How many leases ended and were no success: each of them is an attempt that is kept."""
    return sum(event.was == "LEASED" and event.state != "SUCCESS" for event in events)


def _pairs(events: Sequence[Event]) -> Iterable[tuple[Event, Event]]:
    """Each event with the one before it of the same run."""
    last: dict[UUID, Event] = {}
    for event in events:
        before = last.get(event.run_id)
        if before is not None:
            yield before, event
        last[event.run_id] = event
