"""WatchExecutions as one endless answer: reconnects where it broke off, drops what was seen already."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from valkyr.api.executor.v1 import executor_pb2
from valkyr.client.calls import Calls
from valkyr.client.results import Execution
from valkyr.client.retries import delay_before_repeat
from valkyr.client.wire import execution_of
from valkyr.errors import DeadlineExceeded, Overloaded, Unavailable, ValkyrError

STREAM_LIFETIME = timedelta(minutes=10)
REMEMBERED_REVISIONS = 100_000


class Watch:
    """One watch. A stream lives at most STREAM_LIFETIME, so that a dead connection cannot hide for ever."""

    def __init__(
        self,
        calls: Calls,
        *,
        namespace: str,
        execution_ids: tuple[str, ...],
        workflow_id: str,
        include_outputs: bool,
        patience: timedelta,
    ) -> None:
        self._calls = calls
        self._request = executor_pb2.WatchExecutionsRequest(
            namespace=namespace,
            execution_ids=execution_ids,
            workflow_id=workflow_id,
            include_outputs=include_outputs,
            until_settled=bool(execution_ids),
        )
        self._patience = patience.total_seconds()
        self._unsettled = set(execution_ids)
        self._revisions: OrderedDict[str, int] = OrderedDict()

    async def changes(self) -> AsyncGenerator[Execution, None]:
        """New states as they come, until all that were named are settled."""
        trouble = Trouble(self._patience)
        while True:
            opened = time.monotonic()
            try:
                stream = self._calls.stream("WatchExecutions", self._request, timeout=STREAM_LIFETIME)
                async with aclosing(stream) as responses:
                    async for response in responses:
                        trouble.is_over()
                        self._request.resume_token = response.resume_token or self._request.resume_token
                        for execution in self._new(response.executions):
                            yield execution
                broken: ValkyrError = Unavailable("the executor ended the stream")
            except (Unavailable, DeadlineExceeded, Overloaded) as error:
                broken = error
            if self._request.until_settled and not self._unsettled:
                return
            await asyncio.sleep(trouble.delay_after(broken, lived=time.monotonic() - opened))

    def _new(self, messages: Iterable[executor_pb2.Execution]) -> list[Execution]:
        """Those not seen in this revision or a later one; remembers what was seen, within bounds."""
        new = []
        for message in messages:
            if message.revision <= self._revisions.get(message.id, -1):
                continue
            self._revisions[message.id] = message.revision
            self._revisions.move_to_end(message.id)
            if len(self._revisions) > max(REMEMBERED_REVISIONS, len(self._request.execution_ids)):
                self._revisions.popitem(last=False)
            execution = execution_of(message)
            self._note(execution)
            new.append(execution)
        return new

    def _note(self, execution: Execution) -> None:
        """Keeps account of who is settled, where that ends the watch; a settled one may move again by a requeue."""
        if not self._request.until_settled:
            return
        if execution.settled:
            self._unsettled.discard(execution.id)
        else:
            self._unsettled.add(execution.id)


@dataclass(slots=True)
class Trouble:
    """How long streams have been failing in a row; one that lived as long as `patience` was a good one."""

    patience: float
    failures: int = 0
    since: float | None = None

    def is_over(self) -> None:
        self.failures, self.since = 0, None

    def delay_after(self, error: ValkyrError, *, lived: float) -> float:
        """Seconds until the next stream is opened; raises `error` when patience is at its end."""
        if lived >= self.patience:
            self.is_over()
        self.failures += 1
        now = time.monotonic()
        self.since = now if self.since is None else self.since
        if now - self.since > self.patience:
            raise error
        delay = delay_before_repeat(Unavailable(error.message, retry_after=error.details.retry_after), self.failures)
        return 0.0 if delay is None else delay.total_seconds()
