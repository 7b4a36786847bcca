"""Modules on the loop that block it: for a while nothing is lost, then nobody vouches for what is stuck."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from tests.unit.runner.fakes import Clock, FakeTransport, Gate, a_lease, a_running, eventually, modules_with
from valkyr.module import Context
from valkyr.runner import loop_turns
from valkyr.runner.attempt import fence_margin
from valkyr.runner.leases import FailureType

BEAT = timedelta(milliseconds=2)
LEASE = timedelta(milliseconds=600)
TRUST = (LEASE - fence_margin(LEASE)).total_seconds()


def wait_here(condition: Callable[[], object]) -> None:
    """As a module does that has never heard of `await`."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.002)


async def test_while_the_loop_is_blocked_threads_go_on_and_what_they_did_is_reported_after() -> None:
    transport, done, started = FakeTransport(), threading.Event(), threading.Event()

    async def blocking(context: Context) -> str:
        started.set()
        wait_here(done.is_set)
        return "at last"

    def beside(context: Context) -> str:
        started.wait(30)
        done.set()
        return "meanwhile"

    modules = modules_with(Blocking=blocking, Beside=beside)
    async with a_running(transport, modules, heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("beside", "Beside"), a_lease("blocking", "Blocking")])
        await eventually(lambda: len(transport.results) == 2)
    assert transport.outputs_of("beside") == b'"meanwhile"'
    assert transport.outputs_of("blocking") == b'"at last"'


async def test_a_timeout_comes_late_to_a_module_that_blocks_the_loop() -> None:
    """Nobody can stop it; what it does until its next `await` is done."""
    transport = FakeTransport()

    async def blocking(context: Context) -> None:
        until = time.monotonic() + 0.2
        wait_here(lambda: time.monotonic() > until)
        await asyncio.sleep(1000)

    async with a_running(transport, modules_with(M=blocking)) as worker:
        worker.accept([a_lease("r1", "M", timeout=timedelta(milliseconds=20))])
        await eventually(lambda: transport.results)
    assert transport.failure_of("r1").type is FailureType.TIMEOUT


async def test_when_the_loop_stands_still_too_long_its_leases_are_left_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, transport = Gate(), FakeTransport()
    beats_of_what_is_stuck: list[int] = []

    def told() -> list[str]:
        return [event["where"] for event in events if event["event"] == "loop.stands_still"]

    async def blocking(context: Context) -> None:
        """Until nobody vouches for it, and from then on for as long as its lease may be trusted."""
        monkeypatch.setattr(loop_turns, "MAX_STANDSTILL", timedelta(milliseconds=100))
        wait_here(told)
        before, until = len(transport.beats), time.monotonic() + TRUST
        wait_here(lambda: time.monotonic() > until)
        beats_of_what_is_stuck.append(len(transport.beats) - before)
        transport.beats_may_pass.clear()  # or the first one, on a loop that turns, might come before the fence
        await asyncio.sleep(1000)

    modules = modules_with(Blocking=blocking, Other=gate.run)
    with capture_logs() as events:
        async with a_running(transport, modules, heartbeat_interval=BEAT) as worker:
            worker.accept([a_lease("other", "Other", lease_duration=LEASE)])
            await eventually(lambda: gate.running)
            worker.accept([a_lease("r1", "Blocking", lease_duration=LEASE)])
            await eventually(lambda: not worker.live)
            await eventually(lambda: gate.cancelled, "once it turns again, what it may not trust any more is stopped")
            monkeypatch.setattr(loop_turns, "MAX_STANDSTILL", timedelta(minutes=1))
            transport.beats_may_pass.set()
            seen = len(transport.beats)
            await eventually(lambda: len(transport.beats) > seen)
            await eventually(lambda: worker.room() == 10)
            worker.accept([a_lease("after")])
            await eventually(lambda: transport.results)
    assert [result.ref.run_id for result in transport.results] == ["after"]
    assert beats_of_what_is_stuck == [0]
    assert "in blocking" in told()[0]
    assert [event["event"] for event in events].count("loop.turns_again") == len(told())


async def test_a_loop_that_turns_now_and_then_is_only_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turning = Clock(), loop_turns.LoopTurns()
    monkeypatch.setattr(loop_turns, "time", SimpleNamespace(monotonic=clock))
    turning.watch(asyncio.get_running_loop())
    with capture_logs() as events:
        for _ in range(8):
            assert not turning.stands_still()
            clock.move(29)
            assert not turning.stands_still()
            await asyncio.sleep(0)
        assert not events
        assert not turning.stands_still()
        clock.move(30)
        assert turning.stands_still()


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_what_cannot_be_stored_fails_for_good_and_others_go_on(kind: str) -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)
    wrong = {"large": "x" * (2 << 20), "nan": float("nan"), "cyclic": cyclic, "object": object()}

    async def give(context: Context) -> object:
        return wrong[context.run_id]

    def give_in_thread(context: Context) -> object:
        return wrong[context.run_id]

    transport = FakeTransport(*(a_lease(name, "M") for name in wrong), a_lease("good"))
    async with a_running(transport, modules_with(M=give if kind == "async" else give_in_thread)):
        await eventually(lambda: len(transport.results) == len(wrong) + 1)
    assert {transport.failure_of(name).type for name in wrong} == {FailureType.PERMANENT}
    assert transport.outputs_of("good") == b"{}"
