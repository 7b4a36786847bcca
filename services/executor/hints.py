"""What replicas tell each other by the database's notifications: that runs are ready which one has no room for, that
executions have changed which somebody may watch elsewhere. Hints only: who hears none looks by itself, later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.chassis.database import Database, connect
from services.executor.feed import Feed, wait_for
from services.executor.model import Heard
from services.executor.queries import NOTIFY
from services.executor.signals import Signals
from services.executor.store.session import Session
from valkyr.telemetry import get_logger

CHANNEL = "valkyr_executor"
WHO, HELLO, READY, CHANGED = "who", "hello", "ready", "changed"
"""Who begins to listen asks who is there, and all others say hello."""

HELLO_INTERVAL = timedelta(seconds=30)
SILENT_FOR = timedelta(seconds=100)
"""A replica that has not said hello for as long is gone. Who has no others tells nobody anything."""

GATHERING = 0.02
"""Seconds in which hints gather; the own dispatcher has mostly taken what was ready by then."""

RECONNECT = timedelta(seconds=5)

log = get_logger(__name__)


class Hints:
    """`listen` and `tell` are the steps of two loops; `wake` is what wakes the second."""

    def __init__(self, database: Database, session: Session, signals: Signals, feed: Feed, *, me: UUID) -> None:
        self.wake = signals.ready_for_others
        self._database = database
        self._session = session
        self._signals = signals
        self._feed = feed
        self._me = me.hex
        self._others: dict[str, float] = {}
        self._changed = False
        self._asking = False
        self._said_hello = float("-inf")
        self._heard_myself = 0.0
        signals.subscribe(self._note_changes)

    @property
    def alone(self) -> bool:
        """Whether no other replica has been heard of late."""
        return not self._others

    async def listen(self) -> None:
        """Until the connection is lost."""
        connection = await connect(self._database.settings, "valkyr executor listen")
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._hear)
            self._heard_myself = asyncio.get_running_loop().time()
            self._asking = True
            self._say_hello_again()
            while not lost.is_set() and not self._is_deaf():
                await wait_for(lost, HELLO_INTERVAL)
        finally:
            connection.terminate()

    def _is_deaf(self) -> bool:
        """A connection may die without a word; one's own hello would be heard."""
        return asyncio.get_running_loop().time() - self._heard_myself > SILENT_FOR.total_seconds()

    async def tell(self) -> timedelta:
        """Says hello when it is time; after a moment of gathering, what others may want to know. How long to wait."""
        now = asyncio.get_running_loop().time()
        if now >= self._said_hello + HELLO_INTERVAL.total_seconds():
            self._said_hello = now  # before it is said: who asks meanwhile wants another
            asking, self._asking = self._asking, False
            await self._notify(WHO if asking else HELLO)
            self._others = {name: at for name, at in self._others.items() if at > now - SILENT_FOR.total_seconds()}
        if self._others:
            await asyncio.sleep(GATHERING)
            changed, self._changed = self._changed, False
            said = [READY] if self._signals.backlog else []
            said += [CHANGED] if changed else []
            if said:
                await self._notify(*said)
        return HELLO_INTERVAL

    async def _notify(self, *said: str) -> None:
        async with self._session.reading() as connection:
            await connection.execute(NOTIFY, CHANNEL, " ".join((self._me, *said)))

    def _note_changes(self, _changes: Sequence[Heard]) -> None:
        if self._others:
            self._changed = True
            self.wake.set()

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        name, *said = payload.split(" ")
        if name == self._me:
            self._heard_myself = asyncio.get_running_loop().time()
            return
        if name not in self._others:
            log.info("executor.replica_heard", incarnation=name)
        self._others[name] = asyncio.get_running_loop().time()
        if WHO in said:
            self._say_hello_again()
        if READY in said:
            self._signals.ready_elsewhere()
        if CHANGED in said:
            self._feed.look_now()

    def _say_hello_again(self) -> None:
        self._said_hello = float("-inf")
        self.wake.set()
