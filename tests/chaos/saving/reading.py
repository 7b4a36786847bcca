"""Readers that never stop: each read is a whole version whose hash matches, and none older than one that was known."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import grpc
import orjson

from tests.chaos.rooms import AWAY
from tests.chaos.saving.house import Replica
from tests.chaos.saving.ledger import Ledger
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.graph.document import content_hash, hash_of
from valkyr.rpc.graphs import graph_from_proto
from valkyr.rpc.status import from_rpc_error

TIMEOUT = 10.0
PAUSE = 0.1
"""Between two reads: they are to be among the saves, not in their way."""
ROWS = """
SELECT w.version, v.document, v.content_hash, w.content_hash AS current_hash, v.row_ids,
    (SELECT coalesce(json_object_agg(id, node_id), '{}') FROM graph_store.task
        WHERE namespace = w.namespace AND workflow_id = w.id)::text AS tasks,
    (SELECT coalesce(json_object_agg(id, edge_id), '{}') FROM graph_store.connection
        WHERE namespace = w.namespace AND workflow_id = w.id)::text AS connections,
    (SELECT coalesce(json_object_agg(m.id, t.node_id), '{}') FROM graph_store.module m
        JOIN graph_store.task t ON t.namespace = m.namespace AND t.id = m.task_id
        WHERE m.namespace = w.namespace AND m.workflow_id = w.id)::text AS modules
FROM graph_store.workflow w JOIN graph_store.workflow_version v
    ON (v.namespace, v.workflow_id, v.version) = (w.namespace, w.id, w.version)
WHERE w.id = $1::text::uuid
"""
"""One statement, one snapshot: the latest version, and the rows that are to say the same."""


class Reader:
    """Reads through one replica."""

    def __init__(self, ledger: Ledger, replica: Replica, seed: int) -> None:
        self._ledger = ledger
        self._replica = replica
        self._chance = random.Random(seed)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PAUSE)
            if not self._ledger.floors:
                continue
            workflow_id = self._chance.choice(list(self._ledger.floors))
            floor = self._ledger.floors[workflow_id]
            version = self._chance.choice([None, None, self._chance.randint(1, floor)])
            try:
                await self._read(workflow_id, version, floor)
            except grpc.aio.AioRpcError as error:
                if not isinstance(from_rpc_error(error), AWAY):
                    self._ledger.problem(f"version {version} of {workflow_id} could not be read: {error.details()}")
                self._ledger.unavailable += 1

    async def _read(self, workflow_id: str, version: int | None, floor: int) -> None:
        request = pb.GetGraphRequest(workflow_id=workflow_id, version=version)
        graph = (await self._replica.again.GetGraph(request, timeout=TIMEOUT)).graph
        told = graph.workflow
        self._ledger.reads += 1
        if content_hash(graph_from_proto(graph)[1]) != told.content_hash:
            self._ledger.problem(f"version {told.version} of {workflow_id} does not match its hash (I01)")
        if told.version != version and (version is not None or told.version < floor):
            self._ledger.problem(f"version {version or 'latest'} of {workflow_id} was {told.version}, not {floor}")
        self._ledger.told(workflow_id, told.version, told.content_hash)


async def read_rows(sql: asyncpg.Connection, ledger: Ledger, workflow_id: str) -> None:
    """What the tables hold of nodes, edges and modules is what the latest version's document says."""
    row = await sql.fetchrow(ROWS, workflow_id)
    document, ids = orjson.loads(row["document"]), orjson.loads(row["row_ids"])
    if not row["content_hash"] == row["current_hash"] == hash_of(row["document"].encode()):
        ledger.problem(f"the document of {workflow_id} at {row['version']} does not match its hash (I01)")
    for table, collection, key in (
        ("tasks", "nodes", "nodeId"),
        ("connections", "edges", "edgeId"),
        ("modules", "modules", "nodeId"),
    ):
        said = dict(zip(ids[table], (item[key] for item in document.get(collection, ())), strict=True))
        if orjson.loads(row[table]) != said:
            ledger.problem(f"the {table} of {workflow_id} are not those of its version {row['version']} (I01)")
    ledger.reads += 1
    ledger.told(workflow_id, row["version"], row["content_hash"])
