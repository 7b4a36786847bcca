"""Hears from other replicas, by the database's notifications, that breakers changed, so that nobody has to look twice a
second. Where they do not arrive - behind a pooler, say - looking does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from services.breaker.store import CHANNEL, Store
from services.chassis.database import Database, connect
from valkyr.errors import Unavailable

TIME_TO_ARRIVE = timedelta(seconds=2)
RECONNECT = timedelta(seconds=1)


class Listener:
    """`listen` is its loop's step. `heard` is called at each notification, `hearing` when they begin and cease to
    arrive."""

    def __init__(
        self, database: Database, store: Store, *, heard: Callable[[], None], hearing: Callable[[bool], None]
    ) -> None:
        self._database = database
        self._store = store
        self._heard = heard
        self._hearing = hearing

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
            await lost.wait()
        finally:
            self._hearing(False)
            connection.terminate()

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
