"""Natural batching: who shares a batch, who gets which answer, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.chassis.batching import NaturalBatcher


class Desk:
    """Answers each item with its double, a batch at a time, once it is `open`."""

    def __init__(self, *, limit: int = 100, heavy: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refused: BaseException | None = None
        self.short = False
        self.at_once = 0
        self.begun = asyncio.Event()
        weight = (lambda item: item) if heavy else (lambda _item: 1)
        self.batcher = NaturalBatcher[int, int](self.process, limit=limit, weight=weight)

    async def process(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.at_once += 1
        assert self.at_once == 1, "two batches at a time"
        self.begun.set()
        try:
            await self.open.wait()
            if self.refused is not None:
                raise self.refused
            answers: list[int | Exception] = [ValueError(str(item)) if item < 0 else item * 2 for item in items]
            return answers[1:] if self.short else answers
        finally:
            self.at_once -= 1

    async def submit_all(self, *items: int) -> list[int | BaseException]:
        return await asyncio.gather(*(self.batcher.submit(item) for item in items), return_exceptions=True)


async def test_a_single_item_waits_for_nobody() -> None:
    desk = Desk()
    assert await desk.batcher.submit(4) == 8
    assert desk.batches == [[4]]


async def test_what_gathers_while_a_batch_is_under_way_forms_the_next() -> None:
    desk = Desk()
    desk.open.clear()
    first = asyncio.create_task(desk.submit_all(1))
    await desk.begun.wait()
    rest = [asyncio.create_task(desk.batcher.submit(item)) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    desk.open.set()
    assert await asyncio.gather(*rest) == [4, 6, 8]
    assert await first == [2]
    assert desk.batches == [[1], [2, 3, 4]]


async def test_a_batch_has_at_most_the_limit_and_keeps_the_order() -> None:
    desk = Desk(limit=3)
    assert await desk.submit_all(*range(8)) == [item * 2 for item in range(8)]
    assert desk.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_weights_bound_a_batch_and_an_item_over_the_limit_goes_alone() -> None:
    desk = Desk(limit=10, heavy=True)
    await desk.submit_all(4, 6, 5, 6, 50, 1, 2)
    assert desk.batches == [[4, 6], [5], [6], [50], [1, 2]]


async def test_an_item_of_its_own_may_fail() -> None:
    one, bad, three = await Desk().submit_all(1, -2, 3)
    assert (one, three) == (2, 6)
    assert isinstance(bad, ValueError)


async def test_a_batch_that_fails_fails_for_all_of_it_and_the_next_goes_on() -> None:
    desk = Desk(limit=2)
    desk.refused = RuntimeError("the database is away")
    answers = await desk.submit_all(1, 2, 3)
    assert [str(answer) for answer in answers] == ["the database is away"] * 3
    desk.refused = None
    assert await desk.submit_all(4) == [8]


async def test_too_few_answers_are_an_error_for_all_and_nobody_waits_for_ever() -> None:
    desk = Desk()
    desk.short = True
    async with asyncio.timeout(30):
        answers = await desk.submit_all(1, 2)
    assert all(isinstance(answer, RuntimeError) for answer in answers)


async def test_a_caller_that_goes_away_leaves_its_item_in_the_batch() -> None:
    desk = Desk()
    desk.open.clear()
    gone, stays = (asyncio.create_task(desk.batcher.submit(item)) for item in (1, 2))
    await desk.begun.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    desk.open.set()
    assert await stays == 4
    assert desk.batches == [[1, 2]]


async def test_a_caller_that_went_away_before_its_batch_is_processed_all_the_same() -> None:
    desk = Desk(limit=1)
    desk.open.clear()
    first, gone = (asyncio.create_task(desk.batcher.submit(item)) for item in (1, -2))
    await desk.begun.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    desk.open.set()
    await first
    await desk.batcher.close()
    assert desk.batches == [[1], [-2]]


async def test_processing_that_is_cancelled_leaves_nobody_waiting() -> None:
    desk = Desk(limit=1)
    desk.refused = asyncio.CancelledError()
    async with asyncio.timeout(30):
        answers = await desk.submit_all(1, 2)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
        desk.refused = None
        assert await desk.submit_all(3) == [6]


async def test_close_waits_for_what_was_submitted() -> None:
    desk = Desk(limit=1)
    desk.open.clear()
    tasks = [asyncio.create_task(desk.batcher.submit(item)) for item in (1, 2)]
    await desk.begun.wait()
    closing = asyncio.create_task(desk.batcher.close())
    await asyncio.sleep(0)
    assert not closing.done()
    desk.open.set()
    async with asyncio.timeout(30):
        await closing
    assert [task.done() for task in tasks] == [True, True]


async def test_close_with_nothing_submitted_returns() -> None:
    async with asyncio.timeout(30):
        await Desk().batcher.close()
