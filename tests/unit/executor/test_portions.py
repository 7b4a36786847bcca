"""How a batch that was too much is divided: by executions, down to one, the answers in their order."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from services.executor.portions import MOST_STUCK, apply_in_portions
from valkyr.errors import Internal, Overloaded
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Event, TimerDue
from valkyr.flow.ids import run_id
from valkyr.flow.intake import Answer


def an_event(execution: int, node: int = 0) -> TimerDue:
    key = UUID(int=execution << 64)
    return TimerDue(key, run_id(key, node))


class Database:
    """Takes `most` executions at once, and never those of `held`; notes the sizes that were tried."""

    def __init__(self, most: int, held: Sequence[int] = (), error: type[BaseException] = asyncpg.QueryCanceledError):
        self.most = most
        self.held = {UUID(int=execution << 64) for execution in held}
        self.error = error
        self.tried: list[int] = []
        self.applied: list[TimerDue] = []

    async def apply(self, events: Sequence[Event]) -> list[Answer]:
        timers = [event for event in events if isinstance(event, TimerDue)]
        executions = {event.execution_id for event in timers}
        self.tried.append(len(executions))
        if len(executions) > self.most or executions & self.held:
            raise Overloaded("too slow") from self.error()
        self.applied += timers
        return [Fence.ACCEPTED if event.run_id.int & (1 << 14) else Fence.ALREADY_REPORTED for event in timers]


async def test_sizes_shrink_until_they_fit_and_answers_keep_their_order() -> None:
    database = Database(most=2)
    events = [an_event(execution, node) for node in (0, 1) for execution in range(10)]
    answers = await apply_in_portions(events, database.apply)
    assert answers == [Fence.ALREADY_REPORTED] * 10 + [Fence.ACCEPTED] * 10
    assert database.tried == [5, 2, 2, 2, 2, 2]
    assert sorted(database.applied, key=events.index) == events


async def test_one_that_never_fits_is_told_after_the_others_were_applied() -> None:
    database = Database(most=10, held=[3])
    with pytest.raises(Overloaded):
        await apply_in_portions([an_event(execution) for execution in range(8)], database.apply)
    assert database.applied == [an_event(execution) for execution in range(8) if execution != 3]


async def test_after_a_few_that_never_fit_the_rest_is_left_for_another_time() -> None:
    database = Database(most=10, held=range(100))
    with pytest.raises(Overloaded):
        await apply_in_portions([an_event(execution) for execution in range(100)], database.apply)
    assert database.tried == [50, 25, 12, 6, 3] + [1] * MOST_STUCK


async def test_one_that_cannot_be_carried_on_keeps_nobody_from_being_applied() -> None:
    database = Database(most=1)

    async def apply(events: Sequence[Event]) -> list[Answer]:
        if events == [an_event(0)]:
            raise Internal("see the log")
        return await database.apply(events)

    with pytest.raises(Internal):
        await apply_in_portions([an_event(execution) for execution in range(4)], apply)
    assert database.applied == [an_event(execution) for execution in range(1, 4)]


async def test_without_a_connection_smaller_portions_are_no_use() -> None:
    database = Database(most=0, error=TimeoutError)
    with pytest.raises(Overloaded):
        await apply_in_portions([an_event(execution) for execution in range(8)], database.apply)
    assert database.tried == [4]
