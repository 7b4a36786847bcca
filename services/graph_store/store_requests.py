"""Requests that were answered before: one that is sent once more gets its first answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson

from services.graph_store import queries
from services.graph_store.model import Request
from services.graph_store.store import Raced, Store, Transaction
from valkyr.errors import RequestIdReused


class Requests:
    """Remembers answers for `kept`, as JSON values: each use case has its own form."""

    def __init__(self, kept: timedelta) -> None:
        self._kept = kept

    async def answer_to(self, tx: Transaction, namespace: str, request: Request) -> Any | None:
        """What `remember` was given for it; None for a new one, and for one without an id. RequestIdReused if it is
        another request that was answered under this id."""
        if not request.id:
            return None
        statement = queries.select_request(namespace, request.method, request.id, self._kept)
        row = (await tx.connection.execute(statement)).first()
        if row is None:
            return None
        if row.request_hash != request.hash:
            raise RequestIdReused(
                f"request_id {request.id!r} was used before, with another request",
                hint="make a new request_id for every change; repeat one only with the same body",
            )
        return orjson.loads(row.answer)

    async def remember(self, tx: Transaction, namespace: str, request: Request, answer: Any) -> None:
        """Nothing of one without an id. Raced if another transaction was first with it."""
        if not request.id:
            return
        values = {
            "namespace": namespace,
            "method": request.method,
            "request_id": request.id,
            "request_hash": request.hash,
            "answer": orjson.dumps(answer).decode(),
        }
        if (await tx.connection.execute(queries.insert_request(values, self._kept))).first() is None:
            raise Raced

    async def prune(self, store: Store, limit: int) -> int:
        """Forgets up to `limit` that are too old; how many there were."""

        async def work(tx: Transaction) -> int:
            return int((await tx.connection.execute(queries.delete_old_requests(self._kept, limit))).rowcount)

        return await store.in_transaction(work)
