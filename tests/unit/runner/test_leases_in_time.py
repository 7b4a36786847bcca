"""Heartbeats, timeouts, cancellation, fencing by the worker's own clock, and draining. The clock is moved by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.unit.runner.fakes import (
    LEASE,
    Clock,
    FakeTransport,
    Gate,
    a_lease,
    a_running,
    eventually,
    modules_with,
    turns,
)
from valkyr.errors import Unavailable
from valkyr.runner import attempt as attempt_module
from valkyr.runner.attempt import Attempt, fence_margin, longest_wait
from valkyr.runner.heartbeats import Heartbeats
from valkyr.runner.leases import FailureType, Granted, HeartbeatAnswer, Release
from valkyr.runner.worker import Worker

BEAT = timedelta(milliseconds=1)
TRUST = (LEASE - fence_margin(LEASE)).total_seconds()


def beats_of(transport: FakeTransport, held: Callable[[], list[Attempt]], clock: Clock | None = None) -> Heartbeats:
    """Heartbeats that nobody is told of."""
    return Heartbeats(transport, held, lambda _: None, lambda _: None, interval=1, clock=clock or Clock())


async def test_one_call_covers_all_leases() -> None:
    gate = Gate()
    transport = FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease(f"r{number}", "M") for number in range(5)])
        await eventually(lambda: any(len(beat) == 5 for beat in transport.beats))


async def test_who_holds_nothing_says_so_and_is_seen() -> None:
    transport = FakeTransport()
    worker = Worker(transport, modules_with())
    beats_of(transport, lambda: list(worker.live.values())).beat()
    assert transport.beats == [[]]


async def test_heartbeats_go_on_while_the_loop_is_busy() -> None:
    gate = Gate()
    transport = FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: transport.beats)
        seen = len(transport.beats)
        beats = threading.Event()
        threading.Thread(target=lambda: _until(lambda: len(transport.beats) > seen + 3, beats), daemon=True).start()
        assert beats.wait(30), "the loop was blocked by this very wait, and no heartbeat was sent"


def _until(condition: object, event: threading.Event) -> None:
    pause = threading.Event()
    while not condition():  # type: ignore[operator]
        pause.wait(0.001)
    event.set()


async def test_a_result_that_waits_for_its_report_keeps_its_lease() -> None:
    transport = FakeTransport()
    async with a_running(transport, heartbeat_interval=BEAT) as worker:
        transport.reports_may_pass.clear()
        worker.accept([a_lease("r1")])
        await eventually(lambda: worker.live[("r1", 1)].result)
        await eventually(lambda: transport.beats and transport.beats[-1][0].run_id == "r1")


async def test_a_cancelled_run_stops_and_says_so() -> None:
    gate = Gate()
    transport = FakeTransport()
    transport.answers["r1"] = HeartbeatAnswer.CANCEL
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M"), a_lease("r2", "M")])
        await eventually(lambda: transport.results)
        assert transport.failure_of("r1").type is FailureType.CANCELLED
        assert gate.running == 1
        assert ("r2", 1) in worker.live


async def test_a_success_in_spite_of_cancel_is_kept() -> None:
    async def finish_anyway(context: object) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    transport = FakeTransport()
    async with a_running(transport, modules_with(M=finish_anyway), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: worker.live[("r1", 1)].running)
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await eventually(lambda: transport.results)
    assert transport.outputs_of("r1") == b'"saved"'


async def test_a_cancelled_def_module_is_told_and_reported_when_it_ends() -> None:
    gate = Gate()
    transport = FakeTransport()

    def fail_when_told(context: object) -> None:
        gate.run_in_thread(context)
        raise ValueError("stopped by hand")

    async with a_running(transport, modules_with(M=fail_when_told), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await eventually(lambda: gate.contexts[0].cancelled)
        assert not transport.results
        gate.open_thread.set()
        await eventually(lambda: transport.results)
    assert transport.failure_of("r1").type is FailureType.CANCELLED


async def test_i06_a_lost_lease_stops_the_module_without_a_report() -> None:
    gate = Gate()
    transport = FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        transport.answers["r1"] = HeartbeatAnswer.LEASE_LOST
        await eventually(lambda: gate.cancelled)
        await eventually(lambda: worker.room() == 10)
        await turns()
        assert not worker.live
        assert not transport.results


async def test_a_timeout_stops_the_module_and_is_reported() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), clock=clock) as worker:
        worker.accept([a_lease("r1", "M", timeout=timedelta(seconds=5))])
        await eventually(lambda: gate.running)
        clock.move(4.9)
        worker.sweep()
        await turns()
        assert gate.running
        clock.move(0.1)
        worker.sweep()
        await eventually(lambda: transport.results)
    assert transport.failure_of("r1").type is FailureType.TIMEOUT
    assert "its timeout of 5 s" in transport.failure_of("r1").message


async def test_the_time_in_a_queue_is_not_the_time_of_the_attempt() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run_in_thread), clock=clock, concurrency=1) as worker:
        worker.accept([a_lease("r1", "M"), a_lease("r2", "M", timeout=timedelta(seconds=5))])
        await eventually(lambda: gate.running)
        clock.move(10)
        worker.sweep()
        gate.open_thread.set()
        await eventually(lambda: len(transport.results) == 2)
    assert transport.outputs_of("r2") == b'"done"'


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_module_that_does_not_stop_is_reported_and_still_takes_its_slot(kind: str) -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    gate.stubborn = True
    modules = modules_with(M=gate.run if kind == "async" else gate.run_in_thread)
    async with a_running(transport, modules, clock=clock, concurrency=2) as worker:
        try:
            worker.accept([a_lease("r1", "M", timeout=timedelta(seconds=5))])
            await eventually(lambda: gate.running)
            clock.move(5)
            worker.sweep()
            await turns()
            assert gate.contexts[0].cancelled
            assert not transport.results
            clock.move(10)
            worker.sweep()
            await eventually(lambda: not worker.live)
            assert "still running" in transport.failure_of("r1").message
            assert not transport.result_of("r1").frees_slot
            assert worker.room() == 1
        finally:  # it swallows every cancellation
            gate.open.set()
            gate.open_thread.set()
        await eventually(lambda: worker.room() == 2)
        assert len(transport.results) == 1


async def test_a_result_frees_its_slot_unless_its_code_still_runs() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    transport.answers["cancelled"] = HeartbeatAnswer.CANCEL
    async with a_running(transport, modules_with(M=gate.run), clock=clock, heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("late", "M", timeout=timedelta(seconds=5)), a_lease("cancelled", "M"), a_lease("done")])
        worker.accept([a_lease("released", "M")], granted_at=clock() - TRUST)
        await eventually(lambda: gate.started == 2)
        clock.move(5)
        worker.sweep()
        await eventually(lambda: len(transport.results) == 4)
    assert all(result.frees_slot for result in transport.results)


async def test_a_run_that_finds_no_thread_in_time_is_released_unstarted() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run_in_thread), clock=clock, concurrency=1) as worker:
        worker.accept([a_lease("r1", "M"), a_lease("queued", "M", timeout=timedelta(hours=1))])
        await eventually(lambda: gate.running)
        clock.move(29.9)
        worker.sweep()
        await turns()
        assert not transport.results
        clock.move(0.1)
        worker.sweep()
        await eventually(lambda: transport.results)
        assert transport.result_of("queued").result == Release()
        assert ("r1", 1) in worker.live
        gate.open_thread.set()
        await eventually(lambda: worker.room() == 1)
        assert gate.started == 1, "what was released must not start"


async def test_a_run_that_waits_for_a_thread_is_released_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run_in_thread), concurrency=1) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        monkeypatch.setattr(attempt_module, "MAX_WAIT", timedelta(milliseconds=20))
        worker.accept([a_lease("queued", "M")])
        await eventually(lambda: transport.results)
        assert transport.result_of("queued").result == Release()
        gate.open_thread.set()


@pytest.mark.parametrize(
    ("lease", "wait"), [(timedelta(minutes=2), 30.0), (timedelta(minutes=1), 30.0), (timedelta(seconds=15), 7.5)]
)
def test_the_longest_wait_is_half_the_lease_and_at_most_thirty_seconds(lease: timedelta, wait: float) -> None:
    assert longest_wait(lease).total_seconds() == wait


async def test_timeouts_come_by_themselves() -> None:
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run)) as worker:
        worker.accept([a_lease("r0", "M", timeout=timedelta(hours=1))])
        worker.accept([a_lease("r1", "M", timeout=timedelta(milliseconds=20))])
        await eventually(lambda: transport.results)
        assert transport.failure_of("r1").type is FailureType.TIMEOUT
        assert ("r0", 1) in worker.live


async def test_i12_a_lease_that_is_not_renewed_stops_its_module_before_it_ends() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), clock=clock) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        clock.move(TRUST - 0.1)
        worker.sweep()
        await turns()
        assert gate.running, "the lease can still be trusted"
        clock.move(0.1)
        assert clock.now < 1000 + LEASE.total_seconds() - 4
        worker.sweep()
        await eventually(lambda: not gate.running)
        await turns()
        assert not transport.results
        assert not worker.live


async def test_i12_trust_counts_from_the_sending_of_a_heartbeat_not_from_its_answer() -> None:
    clock, transport = Clock(), FakeTransport()
    attempt = Attempt(a_lease("r1"), granted_at=clock())

    class Slow(FakeTransport):
        def heartbeat_runs(self, leases: object, *, progress: object, as_of: object) -> list[HeartbeatAnswer]:
            clock.move(100)
            return [HeartbeatAnswer.CONTINUE]

    clock.move(10)
    beats_of(Slow(), lambda: [attempt], clock).beat()
    assert attempt.trusted_until == 1000 + 10 + TRUST
    assert not transport.beats


async def test_i12_a_heartbeat_that_hangs_does_not_keep_the_module_running() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    transport.beats_may_pass.clear()
    async with a_running(transport, modules_with(M=gate.run), clock=clock, heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running and transport.beats)
        clock.move(TRUST)
        worker.sweep()
        await eventually(lambda: not gate.running)
        transport.beats_may_pass.set()
        await turns()
        assert not worker.live


async def test_i12_failed_heartbeats_do_not_renew() -> None:
    clock, transport = Clock(), FakeTransport()
    transport.beat_error = Unavailable("away")
    attempt = Attempt(a_lease("r1"), granted_at=clock())
    heartbeats = beats_of(transport, lambda: [attempt], clock)
    clock.move(10)
    heartbeats.beat()
    assert attempt.trusted_until == 1000 + TRUST
    transport.beat_error = None
    heartbeats.beat()
    assert attempt.trusted_until == 1010 + TRUST


async def test_i12_a_fresh_lease_counts_from_before_it_was_asked_for() -> None:
    clock, gate = Clock(), Gate()

    class Slow(FakeTransport):
        async def lease_runs(self, *, max_runs: int) -> Granted:
            if not self.ready:
                await asyncio.Event().wait()
            clock.move(30)
            return Granted([self.ready.popleft()])

    transport = Slow(a_lease("r1", "M"))
    async with a_running(transport, modules_with(M=gate.run), clock=clock) as worker:
        await eventually(lambda: gate.running)
        assert worker.live[("r1", 1)].trusted_until == 1000 + TRUST


async def test_i12_a_lease_whose_time_is_up_on_arrival_is_not_started() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), clock=clock) as worker:
        worker.accept([a_lease("r1", "M")], granted_at=clock() - TRUST)
        await eventually(lambda: transport.results)
        assert transport.result_of("r1").result == Release()
        assert not gate.started


async def test_i12_a_lease_that_comes_when_it_may_be_thought_lost_is_not_started() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), clock=clock) as worker:
        worker.accept([a_lease("late", "M")], granted_at=clock() - 5, start_by=clock())
        worker.accept([a_lease("soon enough", "M")], granted_at=clock() - 5, start_by=clock() + 0.1)
        await eventually(lambda: transport.results and gate.started)
        assert transport.result_of("late").result == Release()
        assert gate.started == 1


async def test_i12_fencing_comes_by_itself() -> None:
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run)) as worker:
        worker.accept([a_lease("r1", "M", lease_duration=timedelta(milliseconds=120))])
        await eventually(lambda: gate.started and not gate.running)
        assert not transport.results


async def test_i12_a_fenced_def_module_is_told_and_never_reported() -> None:
    clock, gate, transport = Clock(), Gate(), FakeTransport()
    modules = modules_with(M=gate.run_in_thread)
    async with a_running(transport, modules, clock=clock, concurrency=1) as worker:
        worker.accept([a_lease("r1", "M"), a_lease("queued", "M")])
        await eventually(lambda: gate.running)
        clock.move(TRUST)
        worker.sweep()
        assert gate.contexts[0].cancelled
        gate.open_thread.set()
        await eventually(lambda: worker.room() == 1)
        await turns()
        assert gate.started == 1, "what waited for a thread must not start under a lease that is gone"
        assert not transport.results


async def test_results_of_leases_that_ran_out_are_not_repeated_for_ever() -> None:
    clock, transport = Clock(), FakeTransport()
    transport.refuse = lambda _: Unavailable("away")
    async with a_running(transport, clock=clock) as worker:
        worker.accept([a_lease("r1")])
        await eventually(lambda: len(transport.refused) >= 2)
        assert worker.live
        clock.move(LEASE.total_seconds())
        await eventually(lambda: not worker.live)
        assert worker.room() == 10


async def test_i12_a_draining_worker_leases_nothing_and_releases_what_has_not_started() -> None:
    gate, transport = Gate(), FakeTransport()
    modules = modules_with(M=gate.run_in_thread)
    async with a_running(transport, modules, concurrency=1) as worker:
        worker.accept([a_lease("started", "M"), a_lease("queued", "M")])
        await eventually(lambda: gate.running)
        draining = asyncio.create_task(worker.drain(timedelta(seconds=30)))
        await eventually(lambda: transport.results)
        assert transport.result_of("queued").result == Release()
        assert worker.room() == 0
        worker.accept([a_lease("late", "M")])
        await eventually(lambda: len(transport.results) == 2)
        assert transport.result_of("late").result == Release()
        asked = len(transport.asked)
        transport.offer(a_lease("never"))
        gate.open_thread.set()
        await draining
        assert transport.outputs_of("started") == b'"done"'
        assert len(transport.asked) == asked
        assert [lease.ref.run_id for lease in transport.ready] == ["never"]
        assert gate.started == 1


async def test_i12_a_drain_takes_back_the_question_that_is_being_asked() -> None:
    transport = FakeTransport()
    async with a_running(transport) as worker:
        await eventually(lambda: transport.asked)
        await worker.drain(timedelta(seconds=1))
        transport.offer(a_lease("never"))
        await turns()
        assert len(transport.ready) == 1
        assert not transport.results


async def test_what_outlasts_the_grace_is_cancelled_and_left_to_run_out() -> None:
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=BEAT) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        await worker.drain(timedelta(milliseconds=10))
        assert gate.cancelled == 1
        assert not gate.running
        assert not transport.results
        beats = len(transport.beats)
        await turns(200)
        assert len(transport.beats) <= beats + 1


async def test_a_drain_does_not_wait_for_a_module_that_never_returns() -> None:
    gate, transport = Gate(), FakeTransport()
    async with a_running(transport, modules_with(M=gate.run_in_thread)) as worker:
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.running)
        await asyncio.wait_for(worker.drain(timedelta(milliseconds=1)), 10)
        assert gate.running == 1
        gate.open_thread.set()
        await eventually(lambda: not gate.running)


@pytest.mark.parametrize(
    ("lease", "margin"), [(timedelta(minutes=2), 5.0), (timedelta(seconds=15), 2.5), (timedelta(seconds=3), 0.5)]
)
def test_the_margin_is_a_sixth_of_the_lease_and_at_most_five_seconds(lease: timedelta, margin: float) -> None:
    assert fence_margin(lease).total_seconds() == margin
