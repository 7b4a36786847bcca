"""What must hold of letters, outbox and breakers after any number of crashes: the checks C7, C11 and C12."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Any
from uuid import UUID

import asyncpg

from services.breaker.model.policy import Policy
from services.breaker.model.states import Cause, State, is_legal
from tests import run_history

KNOWN_WITHIN = timedelta(seconds=1)
"""How soon an executor knows of a trip, while its watch is up."""

INSTALL = """
CREATE TABLE history.outbox (
    n bigserial PRIMARY KEY, op text, run_id uuid, quarantine_number int, kind text, is_stored bool,
    tx text DEFAULT pg_current_xact_id()::text);
CREATE FUNCTION history.note_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO history.outbox (op, run_id, quarantine_number, kind)
        VALUES (TG_OP, NEW.run_id, NEW.quarantine_number, NEW.kind);
    ELSE
        INSERT INTO history.outbox (op, run_id, quarantine_number, kind, is_stored)
        VALUES (TG_OP, OLD.run_id, OLD.quarantine_number, OLD.kind,
            EXISTS (SELECT 1 FROM dlq.dead_letter_queue l
                    WHERE l.run_id = OLD.run_id AND l.quarantine_number = OLD.quarantine_number
                        AND (OLD.kind = 'QUARANTINED' OR l.resolution <> 'PENDING'))
            OR OLD.kind <> 'QUARANTINED' AND EXISTS (SELECT 1 FROM dlq.early_resolution e
                    WHERE e.run_id = OLD.run_id AND e.quarantine_number = OLD.quarantine_number));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER INSERT OR DELETE ON executor.outbox FOR EACH ROW EXECUTE FUNCTION history.note_outbox();
CREATE TABLE history.permit (
    n bigserial PRIMARY KEY, op text, id uuid, breaker_id uuid, generation int, expires_at timestamptz,
    at timestamptz DEFAULT now());
CREATE FUNCTION history.note_permit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE p breaker.permit := CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END;
BEGIN
    INSERT INTO history.permit (op, id, breaker_id, generation, expires_at)
    VALUES (TG_OP, p.id, p.breaker_id, p.generation, p.expires_at);
    RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER INSERT OR DELETE ON breaker.permit FOR EACH ROW EXECUTE FUNCTION history.note_permit();
"""

# One row of the outbox for each quarantine, of the very transaction; deleted once, when the DLQ had stored it.
OUTBOX_PROBLEMS = """
WITH quarantined AS (SELECT * FROM history.event WHERE state = 'QUARANTINED')
SELECT 'C7: a quarantine without its row in the outbox', q.run_id, q.quarantine_number FROM quarantined q
WHERE NOT EXISTS (SELECT 1 FROM history.outbox o WHERE o.op = 'INSERT' AND o.kind = 'QUARANTINED'
    AND o.run_id = q.run_id AND o.quarantine_number = q.quarantine_number AND o.tx = q.tx)
UNION ALL
SELECT 'C7: a row of the outbox without its quarantine', o.run_id, o.quarantine_number FROM history.outbox o
WHERE o.op = 'INSERT' AND o.kind = 'QUARANTINED' AND NOT EXISTS (SELECT 1 FROM quarantined q
    WHERE o.run_id = q.run_id AND o.quarantine_number = q.quarantine_number AND o.tx = q.tx)
UNION ALL
SELECT 'C7: more than one row of the outbox', run_id, quarantine_number FROM history.outbox
WHERE op = 'INSERT' GROUP BY run_id, quarantine_number, kind HAVING count(*) > 1
UNION ALL
SELECT 'I15: forgotten before the DLQ had it', run_id, quarantine_number FROM history.outbox
WHERE op = 'DELETE' AND NOT is_stored
UNION ALL
SELECT 'C7: still in the outbox' || coalesce(', refused: ' || problem, ''), run_id, quarantine_number
FROM executor.outbox
"""

# Quarantines and letters are the same, each once, resolved in the same way by the same.
LETTER_PROBLEMS = """
WITH letters AS (
    SELECT run_id, quarantine_number, count(*) AS number, min(resolution) AS resolution, min(resolved_by_name) AS by,
        count(intent_id) AS intents
    FROM dlq.dead_letter_queue GROUP BY 1, 2)
SELECT CASE WHEN l.run_id IS NULL THEN 'C11: no letter for a quarantine'
        WHEN q.run_id IS NULL THEN 'C11: a letter without a quarantine'
        WHEN l.number > 1 THEN 'C11: ' || l.number || ' letters for one quarantine'
        WHEN l.resolution <> q.resolution THEN 'I22: ' || q.resolution || ', and its letter is ' || l.resolution
        ELSE 'I22: resolved by ' || q.resolved_by || ', and its letter by ' || l.by END,
    coalesce(l.run_id, q.run_id), coalesce(l.quarantine_number, q.quarantine_number)
FROM executor.run_quarantine q FULL JOIN letters l USING (run_id, quarantine_number)
WHERE l.run_id IS NULL OR q.run_id IS NULL OR l.number > 1 OR l.resolution <> q.resolution
    OR q.resolution <> 'PENDING' AND l.by <> q.resolved_by
UNION ALL
SELECT 'C11: a quarantine that is none', r.id, r.quarantine_number FROM executor.run r
WHERE (SELECT count(*) FROM executor.run_quarantine q WHERE q.execution_id = r.execution_id AND q.run_id = r.id)
    <> r.quarantine_number
UNION ALL
SELECT 'C11: PENDING of a run that is ' || r.state, r.id, r.quarantine_number
FROM executor.run r JOIN executor.run_quarantine q ON q.execution_id = r.execution_id AND q.run_id = r.id
WHERE (q.resolution = 'PENDING') <> (r.state = 'QUARANTINED' AND q.quarantine_number = r.quarantine_number)
UNION ALL
SELECT 'I22: an intent hangs', l.run_id, l.quarantine_number FROM dlq.resolution_intent i
JOIN dlq.dead_letter_queue l ON l.namespace = i.namespace AND l.id = i.dead_letter_id WHERE i.state = 'OPEN'
UNION ALL
SELECT 'I22: an early resolution was never met', run_id, quarantine_number FROM dlq.early_resolution
"""
TRANSITIONS = """
SELECT breaker_id, target, from_state, to_state, generation, cause, created_date AS at FROM breaker.transition
ORDER BY breaker_id, generation
"""


async def install(connection: asyncpg.Connection) -> None:
    """After `run_history.install`: notes what goes into the outbox and out of it, and permits."""
    await connection.execute(INSTALL)


async def letter_problems(connection: asyncpg.Connection) -> list[str]:
    """What of C7, C11, I15 and I22 does not hold now; empty if all is well."""
    rows = await connection.fetch(OUTBOX_PROBLEMS) + await connection.fetch(LETTER_PROBLEMS)
    return [f"{problem} (run {run}, quarantine {number})" for problem, run, number in rows]


async def breaker_problems(connection: asyncpg.Connection, policy: Policy) -> list[str]:
    """What of C12 does not hold: the log is replayed by the rules of the pure model."""
    transitions = await connection.fetch(TRANSITIONS)
    found = [
        problem
        for _, log in groupby(transitions, key=lambda row: row["breaker_id"])
        for problem in transition_problems(list(log), policy)
    ]
    permits = await connection.fetch("SELECT * FROM history.permit ORDER BY n")
    return found + list(permit_problems(permits, transitions, policy.half_open_permits))


def transition_problems(log: Sequence[Any], policy: Policy) -> Iterable[str]:
    """Of one breaker, oldest first."""
    for number, row in enumerate(log, 1):
        before, after = State(row["from_state"]), State(row["to_state"])
        if row["generation"] != number:
            yield f"C12: {row['target']}: generation {row['generation']} is transition {number}"
        if not is_legal(before, after, Cause(row["cause"])):
            yield f"C12: {row['target']}: {before} -> {after} because of {row['cause']}"
    if log and log[0]["from_state"] != State.CLOSED:
        yield f"C12: {log[0]['target']}: its first transition is from {log[0]['from_state']}"
    for earlier, later in pairwise(log):
        if earlier["to_state"] != later["from_state"]:
            yield f"C12: {later['target']}: {earlier['to_state']}, then from {later['from_state']}"
        wait = policy.timeout_duration if later["to_state"] == State.HALF_OPEN else timedelta()
        if later["at"] - earlier["at"] < wait:
            yield f"C12: {later['target']}: {later['to_state']} {later['at'] - earlier['at']} after the one before"


def permit_problems(permits: Sequence[Any], transitions: Sequence[Any], most: int) -> Iterable[str]:
    """Permits in flight per breaker and generation; those that have expired count no more."""
    half_open = {(row["breaker_id"], row["generation"]): row for row in transitions if row["to_state"] == "HALF_OPEN"}
    live: dict[tuple[Any, int], dict[Any, datetime]] = defaultdict(dict)
    for permit in permits:
        key = permit["breaker_id"], permit["generation"]
        if permit["op"] == "DELETE":
            live[key].pop(permit["id"], None)
            continue
        if key not in half_open:
            yield f"C12: a permit of generation {permit['generation']}, which was not half open"
        live[key] = {id_: until for id_, until in live[key].items() if until > permit["at"]}
        live[key][permit["id"]] = permit["expires_at"]
        if len(live[key]) > most:
            yield f"I17: {len(live[key])} permits in flight, and {most} are allowed"


async def lease_problems(
    connection: asyncpg.Connection, target: str, policy: Policy, *, known_within: timedelta = KNOWN_WITHIN
) -> list[str]:
    """I17: what leases of a target were given while it was open, by the database's clock."""
    transitions = await connection.fetch(
        "SELECT * FROM breaker.transition WHERE target = $1 ORDER BY generation", target
    )
    permits = await connection.fetch("SELECT id, generation FROM history.permit WHERE op = 'INSERT'")
    events = await run_history.read_target(connection, target)
    return [
        *late_leases(events, transitions, known_within),
        *too_many_probes(events, {row["id"]: row["generation"] for row in permits}, policy.half_open_permits),
    ]


def late_leases(
    events: Sequence[run_history.Event], transitions: Sequence[Any], known_within: timedelta = KNOWN_WITHIN
) -> Iterable[str]:
    """Leases without a permit later than that after the trip, and probes as late after their breaker reopened."""
    for event in events:
        before = [row for row in transitions if row["created_date"] <= event.at]
        if event.state != "LEASED" or not before or before[-1]["to_state"] == State.CLOSED:
            continue
        tripped = next(row for row in reversed(before) if row["from_state"] == State.CLOSED)["created_date"]
        if event.permit_id is None and event.at > tripped + known_within:
            yield f"I17: {event.run_id} was leased {event.at - tripped} after the trip, without a permit"
        since = before[-1]["created_date"]
        if event.permit_id is not None and before[-1]["to_state"] == State.OPEN and event.at > since + known_within:
            yield f"I17: {event.run_id} was leased as a probe {event.at - since} after the breaker reopened"


def too_many_probes(events: Sequence[run_history.Event], generations: Mapping[UUID, int], most: int) -> Iterable[str]:
    """Leases with a permit that are in flight at the same time, per time that the breaker was half open."""
    live: dict[UUID, int] = {}
    for event in events:
        live.pop(event.run_id, None)
        if event.state == "LEASED" and event.permit_id is not None:
            generation = generations[event.permit_id]
            live[event.run_id] = generation
            probes = sum(of == generation for of in live.values())
            if probes > most:
                yield f"I17: {probes} probes of generation {generation} are leased at once, and {most} are allowed"
