"""What holds at the end: versions, audit events and answered requests, each held against what the writers know."""

from __future__ import annotations

from collections import Counter

import asyncpg

from tests.chaos.saving.graphs import Kind
from tests.chaos.saving.ledger import Answer, Ledger
from valkyr.graph.document import content_hash, hash_of

VERSIONS = """
SELECT workflow_id::text, version, content_hash, document, message FROM graph_store.workflow_version ORDER BY 1, 2
"""
EVENTS = """
SELECT workflow_id::text, from_version, to_version, from_hash, to_hash, message FROM graph_store.audit_event
ORDER BY 1, 3
"""
WORKFLOWS = "SELECT id::text, version FROM graph_store.workflow"
REQUESTS = """
SELECT request_id, answer::jsonb ->> 'workflowId' AS workflow_id, (answer::jsonb -> 'version')::int AS version,
    (answer::jsonb -> 'unchanged')::bool AS unchanged
FROM graph_store.answered_request WHERE method IN ('SaveGraph', 'RestoreVersion', 'PublishDraft')
"""


async def check(sql: asyncpg.Connection, ledger: Ledger) -> None:
    """Adds what does not hold to the ledger's problems."""
    versions, events = await sql.fetch(VERSIONS), await sql.fetch(EVENTS)
    _check_versions(versions, {row["id"]: row["version"] for row in await sql.fetch(WORKFLOWS)}, ledger)
    _check_events(events, versions, ledger)
    _check_requests(versions, {row["request_id"]: row for row in await sql.fetch(REQUESTS)}, ledger)


def _check_versions(versions: list[asyncpg.Record], current: dict[str, int], ledger: Ledger) -> None:
    """Dense from 1 on, each with its hash, and none that anybody was told of is missing."""
    found: dict[str, list[int]] = {}
    for row in versions:
        found.setdefault(row["workflow_id"], []).append(row["version"])
        if hash_of(row["document"].encode()) != row["content_hash"]:
            ledger.problem(f"version {row['version']} of {row['workflow_id']} does not match its hash (I01)")
        ledger.told(row["workflow_id"], row["version"], row["content_hash"])
    if found.keys() != current.keys():
        ledger.problem(f"workflows without versions, or the reverse: {found.keys() ^ current.keys()}")
    for workflow_id, numbers in found.items():
        if numbers != list(range(1, current.get(workflow_id, 0) + 1)):
            ledger.problem(f"{workflow_id} is at {current.get(workflow_id)} and has {numbers} (I03)")
    stored = {(row["workflow_id"], row["version"]) for row in versions}
    for place in ledger.hashes.keys() - stored:
        ledger.problem(f"version {place[1]} of {place[0]} was told of, and is gone")


def _check_events(events: list[asyncpg.Record], versions: list[asyncpg.Record], ledger: Ledger) -> None:
    """One for each version, in one chain (I04)."""
    hashes = {(row["workflow_id"], row["version"]): row["content_hash"] for row in versions}
    messages = {(row["workflow_id"], row["version"]): row["message"] for row in versions}
    told = Counter((row["workflow_id"], row["to_version"]) for row in events)
    if told != Counter(hashes.keys()):
        ledger.problem(f"versions and audit events differ: {told - Counter(hashes.keys())} (I04)")
    for row in events:
        workflow_id, version = row["workflow_id"], row["to_version"]
        before = version - 1 if version > 1 else None
        said = (row["from_version"], row["from_hash"], row["to_hash"], row["message"])
        place = (workflow_id, version)
        if said != (before, hashes.get((workflow_id, version - 1)), hashes.get(place), messages.get(place)):
            ledger.problem(f"the audit event of {workflow_id} at {version} says {said} (I04)")


def _check_requests(versions: list[asyncpg.Record], requests: dict[str, asyncpg.Record], ledger: Ledger) -> None:
    """Every save that was answered is there once, as it was answered; what was refused is nowhere."""
    by_request: dict[str, list[tuple[str, int, str]]] = {}
    for row in versions:
        by_request.setdefault(row["message"], []).append((row["workflow_id"], row["version"], row["content_hash"]))
    for sent in ledger.sent:
        made, answered = by_request.pop(sent.request_id, []), requests.get(sent.request_id)
        if sent.answer is Answer.OPEN:
            ledger.problem(f"{sent.request_id} was never answered")
        elif sent.answer is Answer.REFUSED:
            if made or answered:
                ledger.problem(f"{sent.request_id} was refused, and is stored: {made}")
        else:
            place = (sent.workflow_id, sent.version, content_hash(sent.graph))
            if made != ([] if sent.kind is Kind.UNCHANGED else [place]):
                ledger.problem(f"{sent.request_id} ({sent.kind}) was answered {place}, and is stored as {made}")
            if answered is None or (answered["workflow_id"], answered["version"]) != place[:2]:
                ledger.problem(f"{sent.request_id} was answered {place}, and is remembered as {answered}")
    if by_request:
        ledger.problem(f"versions that nobody sent: {by_request}")
