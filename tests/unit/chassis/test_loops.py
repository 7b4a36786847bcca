"""run_every: when it calls, what it does about failures, what health sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
import structlog

from services.chassis import loops
from services.chassis.health import Health
from services.chassis.loops import run_every
from valkyr.errors import Unavailable

LONG = timedelta(hours=1)


async def during(loop: asyncio.Task[None], condition: Callable[[], object]) -> None:
    """Waits for `condition`, then ends the loop."""
    try:
        async with asyncio.timeout(60):
            while not condition():
                assert not loop.done(), loop
                await asyncio.sleep(0.001)
    finally:
        loop.cancel()
        await asyncio.wait([loop])


async def test_it_calls_at_once_and_then_after_each_interval() -> None:
    calls: list[int] = []

    async def step() -> None:
        calls.append(1)

    await during(asyncio.create_task(run_every(timedelta(milliseconds=1), step, name="x")), lambda: len(calls) >= 5)


async def test_a_wake_up_calls_at_once() -> None:
    wake, calls = asyncio.Event(), []

    async def step() -> None:
        calls.append(1)
        if len(calls) < 5:
            wake.set()

    loop = asyncio.create_task(run_every(LONG, step, name="x", wake=wake))
    await during(loop, lambda: len(calls) == 5 and not wake.is_set())


async def test_the_time_until_the_next_due_row_shortens_the_wait_and_never_lengthens_it() -> None:
    dues, calls = [timedelta(), timedelta(milliseconds=1), timedelta(seconds=-1)], []

    async def step() -> timedelta | None:
        calls.append(1)
        return dues.pop() if dues else None

    await during(asyncio.create_task(run_every(LONG, step, name="x")), lambda: len(calls) == 4)

    async def far() -> timedelta | None:
        calls.append(1)
        return LONG

    calls.clear()
    await during(asyncio.create_task(run_every(timedelta(milliseconds=1), far, name="x")), lambda: len(calls) >= 3)


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("bug")], ids=["expected", "a bug"])
async def test_a_failing_step_is_repeated_with_back_off_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(loops, "BACKOFF_BASE", timedelta(milliseconds=1))
    calls: list[int] = []

    async def step() -> None:
        calls.append(1)
        if len(calls) <= 4:
            raise error

    with structlog.testing.capture_logs() as events:
        await during(asyncio.create_task(run_every(LONG, step, name="x")), lambda: len(calls) >= 5)
    assert [event["event"] for event in events] == ["loop.failing", "loop.recovered"]


async def test_cancelling_ends_it_and_health_forgets_it() -> None:
    health = Health()

    async def step() -> None:
        await asyncio.Event().wait()

    loop = asyncio.create_task(run_every(LONG, step, name="x", health=health, stale_after=timedelta(microseconds=1)))
    await during(loop, lambda: "loop x" in health.problems)
    assert loop.cancelled()
    assert "loop x" not in health.problems
