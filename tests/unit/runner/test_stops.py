"""Modules that are told to stop: what becomes of the attempt, and what they are told before."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from tests.unit.runner.fakes import (
    Clock,
    FakeTransport,
    Gate,
    a_lease,
    a_running,
    eventually,
    modules_with,
    turns,
)
from valkyr.module import Context
from valkyr.runner.attempt import Attempt
from valkyr.runner.leases import FailureType, HeartbeatAnswer, ReportAnswer, RunResult, Snooze
from valkyr.runner.reports import Reporter
from valkyr.runner.slots import STOP_GRACE

BEAT = timedelta(milliseconds=1)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_module_that_ignores_its_cancel_is_reported_and_still_takes_its_slot(kind: str) -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    gate.stubborn = True
    modules = modules_with(M=gate.run if kind == "async" else gate.run_in_thread)
    async with a_running(transport, modules, clock=clock, concurrency=2, heartbeat_interval=BEAT) as worker:
        try:
            worker.accept([a_lease("r1", "M")])
            await eventually(lambda: gate.running)
            transport.answers["r1"] = HeartbeatAnswer.CANCEL
            await eventually(lambda: gate.contexts[0].cancelled)
            clock.move(STOP_GRACE.total_seconds() - 0.1)
            worker.sweep()
            await turns()
            assert not transport.results
            clock.move(0.1)
            worker.sweep()
            await eventually(lambda: not worker.live)
            assert transport.failure_of("r1").type is FailureType.CANCELLED
            assert "still running" in transport.failure_of("r1").message
            assert not transport.result_of("r1").frees_slot
            assert worker.room() == 1
        finally:
            gate.open.set()
            gate.open_thread.set()
        await eventually(lambda: worker.room() == 2)
    assert len(transport.results) == 1


async def test_the_end_of_the_grace_after_a_cancel_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valkyr.runner.slots.STOP_GRACE", timedelta(milliseconds=20))
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run_in_thread), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await eventually(lambda: transport.results)
        gate.open_thread.set()
    assert "still running" in transport.failure_of("r1").message


async def test_a_cancel_after_a_timeout_changes_nothing() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    gate.stubborn = True
    modules = modules_with(M=gate.run)
    async with a_running(transport, modules, clock=clock, heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M", timeout=timedelta(seconds=5))])
        await eventually(lambda: gate.running)
        clock.move(5)
        worker.sweep()
        await eventually(lambda: gate.cancelled == 1)
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        beats = len(transport.beats)
        await eventually(lambda: len(transport.beats) > beats + 2)
        assert gate.cancelled == 1
        clock.move(STOP_GRACE.total_seconds())
        worker.sweep()
        await eventually(lambda: transport.results)
        gate.open.set()
        await eventually(lambda: not gate.running)
    assert transport.failure_of("r1").type is FailureType.TIMEOUT


async def test_a_run_that_is_cancelled_before_a_thread_is_free_never_starts() -> None:
    gate, transport = Gate(), FakeTransport()
    transport.answers["queued"] = HeartbeatAnswer.CANCEL
    modules = modules_with(M=gate.run_in_thread)
    async with a_running(transport, modules, concurrency=1, heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M"), a_lease("queued", "M")])
        await eventually(lambda: transport.results)
        gate.open_thread.set()
        await eventually(lambda: len(transport.results) == 2)
    assert gate.started == 1
    assert transport.failure_of("queued").type is FailureType.CANCELLED
    assert transport.failure_of("queued").message == "the run was cancelled before the module had started"


async def test_a_run_that_is_stopped_past_its_deadline_says_so() -> None:
    gate, transport = Gate(), FakeTransport()
    transport.answers["r1"] = HeartbeatAnswer.CANCEL
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M", deadline=datetime.now(UTC) - timedelta(seconds=1))])
        await eventually(lambda: transport.results)
    assert transport.failure_of("r1").type is FailureType.CANCELLED
    assert transport.failure_of("r1").message == "the run's deadline passed while the module was running"


async def test_the_worker_itself_stops_nothing_at_the_deadline() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), clock=clock) as worker:
        worker.accept([a_lease("r1", "M", deadline=datetime.now(UTC) - timedelta(hours=1))])
        await eventually(lambda: gate.running)
        clock.move(60)
        worker.sweep()
        await turns()
        assert gate.running
        gate.open.set()
        await eventually(lambda: transport.results)
    assert transport.outputs_of("r1") == b'"done"'


@pytest.mark.parametrize(
    ("timeout", "deadline", "expected"),
    [(None, None, None), (5, None, 5), (None, 7, 7), (5, 7, 5), (9, 7, 7)],
    ids=["neither", "timeout", "deadline", "timeout first", "deadline first"],
)
async def test_the_context_shows_the_earlier_of_timeout_and_deadline(
    timeout: float | None, deadline: float | None, expected: float | None
) -> None:
    seen: list[datetime | None] = []

    async def module(context: Context) -> None:
        seen.append(context.deadline)

    before = datetime.now(UTC)
    limits = {
        "timeout": None if timeout is None else timedelta(hours=timeout),
        "deadline": None if deadline is None else before + timedelta(hours=deadline),
    }
    transport = FakeTransport(a_lease("r1", "M", **limits))
    async with a_running(transport, modules_with(M=module)):
        await eventually(lambda: transport.results)
    if expected is None:
        assert seen == [None]
        return
    assert seen[0] is not None
    assert timedelta(0) <= seen[0] - before - timedelta(hours=expected) < timedelta(minutes=1)


async def test_a_snooze_is_reported_as_it_is() -> None:
    transport = FakeTransport()
    settled: list[tuple[str, bool]] = []

    def note(attempt: Attempt, /, *, accepted: bool) -> None:
        settled.append((attempt.key[0], accepted))

    reporter = Reporter(transport, note, clock=Clock())
    attempt = Attempt(a_lease("r1"), granted_at=0)
    attempt.result = RunResult(attempt.leased.ref, Snooze(timedelta(minutes=5)))
    reporter.put(attempt)
    running = asyncio.create_task(reporter.run())
    await eventually(lambda: settled)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert transport.result_of("r1").result == Snooze(timedelta(minutes=5))
    assert settled == [("r1", True)]


async def test_an_accepted_report_makes_no_room_of_its_own() -> None:
    """The transport counts the slots of the leases that it settles."""
    told: list[int] = []
    transport = FakeTransport()
    async with a_running(transport) as worker:
        worker.on_room = lambda: told.append(worker.room())
        worker.accept([a_lease("r1"), a_lease("r2")])
        await eventually(lambda: not worker.live)
        await turns()
    assert not told


@pytest.mark.parametrize("answer", [ReportAnswer.LEASE_LOST, ReportAnswer.ALREADY_REPORTED], ids=lambda it: it.value)
async def test_room_is_told_of_when_a_report_is_not_accepted(answer: ReportAnswer) -> None:
    told: list[int] = []
    transport = FakeTransport()
    transport.report_answers["r1"] = answer
    async with a_running(transport, concurrency=3) as worker:
        worker.on_room = lambda: told.append(worker.room())
        worker.accept([a_lease("r1"), a_lease("r2")])
        await eventually(lambda: not worker.live)
    assert told == [2 if len(transport.batches) == 1 else 3]


async def test_room_is_told_of_when_a_lease_is_lost() -> None:
    told: list[int] = []
    gate, transport = Gate(), FakeTransport()
    modules = modules_with(M=gate.run_in_thread)
    async with a_running(transport, modules, concurrency=1, heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M"), a_lease("queued", "M")])
        await eventually(lambda: gate.running)
        worker.on_room = lambda: told.append(worker.room())
        transport.answers.update(dict.fromkeys(("r1", "queued"), HeartbeatAnswer.LEASE_LOST))
        await eventually(lambda: not worker.live)
        assert told == [0], "one was waiting for a thread, and the other's code still runs"
        gate.open_thread.set()
        await eventually(lambda: told == [0, 1])


async def test_room_is_told_of_when_abandoned_code_ends() -> None:
    told: list[int] = []
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run_in_thread), clock=clock, concurrency=1) as worker:
        worker.on_room = lambda: told.append(worker.room())
        worker.accept([a_lease("r1", "M", timeout=timedelta(seconds=5))])
        await eventually(lambda: gate.running)
        for seconds in (5, 10):
            clock.move(seconds)
            worker.sweep()
        await eventually(lambda: worker.live == {})
        assert not told
        gate.open_thread.set()
        await eventually(lambda: told == [1])


async def test_room_is_told_of_when_code_ends_between_its_report_and_the_answer() -> None:
    told: list[int] = []
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    transport.reports_may_pass.clear()
    async with a_running(transport, modules_with(M=gate.run_in_thread), clock=clock, concurrency=1) as worker:
        worker.on_room = lambda: told.append(worker.room())
        worker.accept([a_lease("r1", "M", timeout=timedelta(seconds=5))])
        await eventually(lambda: gate.running)
        for seconds in (5, 10):
            clock.move(seconds)
            worker.sweep()
        attempt = worker.live[("r1", 1)]
        assert attempt.result is not None
        gate.open_thread.set()
        await eventually(lambda: not attempt.running)
        assert not told
        transport.reports_may_pass.set()
        await eventually(lambda: told == [1])
    assert not transport.result_of("r1").frees_slot


async def test_a_worker_all_of_whose_slots_are_held_by_what_does_not_stop_says_so_once_and_when_that_is_over() -> None:
    def told() -> list[tuple[str, int]]:
        return [(line["event"], line["slots_left"]) for line in lines if line["event"].startswith("slots.")]

    clock, gates, transport = Clock(), [Gate(), Gate()], FakeTransport()
    modules = modules_with(M0=gates[0].run_in_thread, M1=gates[1].run_in_thread)
    with capture_logs() as lines:
        async with a_running(transport, modules, clock=clock, concurrency=2, heartbeat_interval=BEAT) as worker:
            for number, gate in enumerate(gates):
                worker.accept([a_lease(f"r{number}", f"M{number}")])
                await eventually(lambda gate=gate: gate.running)
                transport.answers[f"r{number}"] = HeartbeatAnswer.LEASE_LOST
                await eventually(lambda number=number: worker.room() == 1 - number and not worker.live)
                clock.move(STOP_GRACE.total_seconds() - 0.1)
                worker.sweep()
            assert not told(), "one slot was left, then a module had time to stop"
            clock.move(0.1)
            for _ in range(2):
                worker.sweep()
            assert told() == [("slots.all_held", 0)]
            gates[0].open_thread.set()
            await eventually(lambda: worker.room() == 1)
            assert told() == [("slots.all_held", 0), ("slots.some_left", 1)]
            gates[1].open_thread.set()
            await eventually(lambda: worker.room() == 2)
    assert len(told()) == 2


async def test_a_module_that_stops_in_time_is_no_slot_that_is_held() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    transport.answers["r1"] = HeartbeatAnswer.LEASE_LOST
    with capture_logs() as lines:
        async with a_running(
            transport, modules_with(M=gate.run), clock=clock, concurrency=1, heartbeat_interval=BEAT
        ) as worker:
            worker.accept([a_lease("r1", "M")])
            await eventually(lambda: gate.cancelled and worker.room() == 1)
            clock.move(2 * STOP_GRACE.total_seconds())
            worker.sweep()
    assert not [line for line in lines if line["event"].startswith("slots.")]


async def test_a_draining_worker_tells_of_no_room() -> None:
    told: list[int] = []
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run)) as worker:
        worker.on_room = lambda: told.append(worker.room())
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        await worker.drain(timedelta(0))
    assert not told


async def test_a_module_that_cancels_itself_has_failed() -> None:
    async def give_up(context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    transport = FakeTransport()
    async with a_running(transport, modules_with(M=give_up)) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: not worker.live)
    assert transport.failure_of("r1").type is FailureType.TRANSIENT
