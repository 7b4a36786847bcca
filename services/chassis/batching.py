"""Natural batching: what gathers while one batch is under way forms the next. Large under load, no delay at idle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class NaturalBatcher(Generic[Item, Answer]):
    """Hands items to `process` in batches of at most `limit` (by `weight`), one batch at a time.

    `process` answers in order, an exception in the place of an answer for an item of its own; an exception that it
    raises goes to every item of the batch. A caller that goes away leaves its item in the batch.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        limit: int,
        weight: Callable[[Item], int] = lambda _item: 1,
    ) -> None:
        self._process = process
        self._limit = limit
        self._weight = weight
        self._queue: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer for this item, or its exception."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), context=Context())
        return await future

    async def close(self) -> None:
        """Waits for what was submitted."""
        while self._worker is not None:
            await asyncio.shield(self._worker)

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._one_batch(self._take())
        finally:
            self._worker = None
            # Only where this task was cancelled: whoever still waits is told so, and not left waiting.
            while self._queue:
                self._queue.popleft()[1].cancel()

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch = [self._queue.popleft()]
        room = self._limit - self._weight(batch[0][0])
        while self._queue and self._weight(self._queue[0][0]) <= room:
            batch.append(self._queue.popleft())
            room -= self._weight(batch[-1][0])
        return batch

    async def _one_batch(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._process([item for item, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers to a batch of {len(batch)}")
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
