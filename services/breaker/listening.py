"""Hears from other replicas, by the database's notifications, that breakers changed, so that nobody has to look twice a
second. Where they do not arrive - behind a pooler, say - looking does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from services.breaker import queries
from services.breaker.store import CHANNEL, Store
from services.chassis.database import Database, connect, translated
from valkyr.errors import Unavailable, ValkyrError
from valkyr.telemetry import get_logger

TIME_TO_ARRIVE = timedelta(seconds=2)
PROOF_INTERVAL = timedelta(seconds=2)
"""A connection may die without a word. How often it is asked, while anybody watches, whether it is there."""
TIME_TO_ANSWER = timedelta(milliseconds=500)
RECONNECT = timedelta(seconds=1)
_log = get_logger(__name__)


class Listener:
    """`listen` is its loop's step. `heard` is called at each notification, `hearing` when they begin and cease to
    arrive; `watched` says whether anybody wants to know."""

    def __init__(
        self,
        database: Database,
        store: Store,
        *,
        heard: Callable[[], None],
        hearing: Callable[[bool], None],
        watched: Callable[[], bool],
    ) -> None:
        self._database = database
        self._store = store
        self._heard = heard
        self._hearing = hearing
        self._watched = watched

    async def listen(self) -> None:
        """Until the connection is lost. Unavailable where notifications do not arrive."""
        connection = await connect(self._database.settings, "valkyr breaker listen")
        lost, arrived = asyncio.Event(), asyncio.Event()

        def notified(*_: object) -> None:
            arrived.set()
            self._heard()

        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, notified)
            await self._prove(arrived)
            self._hearing(True)
            await self._until_lost(connection, lost)
        finally:
            self._hearing(False)
            connection.terminate()

    async def _until_lost(self, connection: Any, lost: asyncio.Event) -> None:
        """Also one that only seems to be there is lost."""
        while not lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PROOF_INTERVAL.total_seconds()):
                    await lost.wait()
                    return
            if not self._watched():
                continue
            try:
                with translated():
                    await connection.execute(queries.ARE_YOU_THERE, timeout=TIME_TO_ANSWER.total_seconds())
            except ValkyrError as error:
                _log.warning("breaker.listener_lost", error=str(error), note="breakers are looked at twice a second")
                return

    async def _prove(self, arrived: asyncio.Event) -> None:
        await self._store.notify()
        try:
            async with asyncio.timeout(TIME_TO_ARRIVE.total_seconds()):
                await arrived.wait()
        except TimeoutError:
            raise Unavailable(
                "notifications of the database do not arrive; breakers are looked at twice a second instead",
                hint="a pooler in front of PostgreSQL must pool sessions, not transactions",
            ) from None
