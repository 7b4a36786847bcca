"""What replicas tell each other by the database's notifications: that a workflow has changed. Hints only: who hears
none looks by itself, a little later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from services.chassis.database import Database, connect, translated
from services.graph_store.events import CHANNEL, Events

GATHERING = timedelta(milliseconds=20)
"""In which changes gather for one hint."""


class Hints:
    """`tell` is the step of a loop that `wake` wakes; `changed` is called after a commit."""

    def __init__(self, database: Database, events: Events) -> None:
        self.wake = asyncio.Event()
        self._database = database
        self._events = events
        self._is_news = False

    def changed(self) -> None:
        """Something was committed here, or may have been."""
        self._is_news = True
        self.wake.set()

    async def tell(self) -> timedelta | None:
        """Tells the others, if there is something to tell. Not in the transaction of the change: notifications are
        committed one after the other in all of the database."""
        if not self._is_news:
            return None
        await asyncio.sleep(GATHERING.total_seconds())
        self._is_news = False
        try:
            await self._events.notify()
        except BaseException:
            self._is_news = True
            raise
        return None

    async def listen(self, heard: Callable[[], None]) -> None:
        """Calls `heard` at every hint, until the connection is lost; then once more."""
        with translated():
            connection = await connect(self._database.settings, "valkyr graph-store listen")
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            with translated():
                await connection.add_listener(CHANNEL, lambda *_: heard())
            heard()
            await lost.wait()
        finally:
            connection.terminate()
            heard()
