"""Isolated modules that are told to stop, and end whether they like it or not, with all that they have started."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.integration.runner.isolation import (
    BEAT,
    a_deed,
    a_runner,
    is_running,
    isolated,
    outputs_of,
    pid_in,
    reported,
)
from tests.unit.runner.fakes import Clock, Gate, a_lease, eventually
from valkyr.errors import RunnerReplaced
from valkyr.module import spec_of
from valkyr.runner.attempt import trust_in
from valkyr.runner.isolated import watch
from valkyr.runner.isolated.orders import Outcome
from valkyr.runner.leases import FailureType, HeartbeatAnswer
from valkyr.runner.worker import Worker

SOON = timedelta(milliseconds=300)
LATE = timedelta(minutes=1)
SAYS_FOR_EVER = ("log_for_ever", "tell_for_ever")


def block_until(condition: Callable[[], bool]) -> None:
    """With the event loop standing still."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


def trust_ends_soon(worker: Worker) -> None:
    """As if the lease of the one attempt had been asked for two minutes ago: a short one might be over too early."""
    [attempt] = worker.live.values()
    attempt.trusted_until = time.monotonic() + SOON.total_seconds()
    assert attempt.interrupt is not None
    attempt.interrupt()


def times_out_soon(worker: Worker, run_id: str = "r1") -> None:
    """As if its timeout of a minute had begun long ago: under a short one it might be killed before it has begun."""
    attempt = worker.live[(run_id, 1)]
    attempt.timeout_at = time.monotonic() + SOON.total_seconds()
    assert attempt.interrupt is not None
    attempt.interrupt()


@pytest.mark.parametrize("do", ["hold_the_gil", "hold_on", "print_for_ever", "write_for_ever", *SAYS_FOR_EVER])
async def test_at_its_timeout_a_module_is_killed_whatever_it_does_and_others_go_on(do: str, tmp_path: Path) -> None:
    gate = Gate()
    modules = {**isolated(), "Other": spec_of("Other", gate.run)}
    async with a_runner(modules) as (transport, worker):
        transport.offer(a_lease("other", "Other"), a_deed("r1", do, path=tmp_path / "pid", timeout=LATE))
        pid = await pid_in(tmp_path / "pid")
        times_out_soon(worker)
        await reported(transport, "r1")
        assert not is_running(pid)
        assert gate.running == 1
        assert (await outputs_of(transport, a_deed("after", "pid")))["pid"] != pid
        await eventually(lambda: worker.room() == 1)
        gate.open.set()
    failure = transport.failure_of("r1")
    assert failure.type is FailureType.TIMEOUT
    assert failure.message == "the attempt took longer than its timeout of 60 s; its process was killed"


@pytest.mark.parametrize("do", ["write_for_ever", *SAYS_FOR_EVER])
async def test_a_module_that_talks_without_end_does_not_keep_its_runner_busy(
    do: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, outcome = [], watch.Watch.outcome

    def measured(self: watch.Watch) -> Outcome:
        began, used = time.monotonic(), time.thread_time()
        try:
            return outcome(self)
        finally:
            shares.append((time.thread_time() - used) / (time.monotonic() - began))

    monkeypatch.setattr(watch.Watch, "outcome", measured)
    async with a_runner() as (transport, _):
        transport.offer(a_deed("r1", do, timeout=timedelta(seconds=1)))
        await reported(transport, "r1")
    assert transport.failure_of("r1").type is FailureType.TIMEOUT
    assert shares[0] < 0.2


async def test_a_timeout_counts_from_when_the_process_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a module that is slow to import could never run under a short timeout: killed, it would never be warm."""
    clock, start = Clock(), watch.Watch._start

    def late(self: watch.Watch) -> None:
        clock.move(10)
        start(self)

    monkeypatch.setattr(watch.Watch, "_start", late)
    async with a_runner(clock=clock) as (transport, _):
        assert await outputs_of(transport, a_deed("r1", "pid", timeout=timedelta(seconds=5)))


async def test_a_timeout_kills_in_time_while_the_loop_stands_still(tmp_path: Path) -> None:
    async with a_runner() as (transport, worker):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid", timeout=LATE))
        pid = await pid_in(tmp_path / "pid")
        times_out_soon(worker)
        block_until(lambda: not is_running(pid))
        await reported(transport, "r1")
    assert transport.failure_of("r1").type is FailureType.TIMEOUT


async def test_i12_a_fence_kills_in_time_while_the_loop_stands_still(tmp_path: Path) -> None:
    async with a_runner() as (transport, worker):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        trust_ends_soon(worker)
        block_until(lambda: not is_running(pid))
        await eventually(lambda: worker.room() == 2)
    assert not transport.results


async def test_i12_as_long_as_heartbeats_are_answered_a_module_may_go_on_and_an_idle_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", LATE)
    lease = timedelta(seconds=4.8)
    async with a_runner(heartbeat_interval=BEAT) as (transport, _):
        idle = await outputs_of(transport, a_deed("r1", "pid", "BadAsync", lease_duration=lease))
        transport.offer(a_deed("r2", "look_and_stop", path=tmp_path / "pid", lease_duration=lease))
        pid = await pid_in(tmp_path / "pid")
        began = time.monotonic()
        await eventually(lambda: time.monotonic() - began > trust_in(lease))
        assert is_running(pid)
        transport.answers["r2"] = HeartbeatAnswer.CANCEL
        await reported(transport, "r2")
        assert await outputs_of(transport, a_deed("r3", "pid", "BadAsync")) == idle
    assert transport.outputs_of("r2") == b'"stopped as told"'


async def test_i12_a_fence_by_the_clock_of_the_worker_kills_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with a_runner(clock=clock) as (transport, worker):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        clock.move(115)
        worker.sweep()
        await eventually(lambda: not is_running(pid))
        await eventually(lambda: worker.room() == 2)
    assert not transport.results


async def test_with_the_lease_the_process_goes_at_once_and_nobody_reports(tmp_path: Path) -> None:
    async with a_runner(heartbeat_interval=BEAT) as (transport, worker):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        transport.answers["r1"] = HeartbeatAnswer.LEASE_LOST
        await eventually(lambda: not is_running(pid))
        await eventually(lambda: worker.room() == 2)
    assert not transport.results


async def test_with_the_lease_it_goes_though_the_loop_stands_still(tmp_path: Path) -> None:
    """The lease would have been trusted for two minutes more."""
    async with a_runner(heartbeat_interval=BEAT) as (transport, worker):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        transport.answers["r1"] = HeartbeatAnswer.LEASE_LOST
        with capture_logs() as events:
            block_until(lambda: not is_running(pid))
            await eventually(lambda: worker.room() == 2)
    assert [event["reason"] for event in events if event["event"] == "lease.let_go"] == ["LEASE_LOST"]
    assert not transport.results


async def test_who_was_replaced_kills_its_processes_though_the_loop_stands_still(tmp_path: Path) -> None:
    killed = False
    with pytest.raises(RunnerReplaced):
        async with a_runner(heartbeat_interval=BEAT) as (transport, _):
            transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid"))
            pid = await pid_in(tmp_path / "pid")
            transport.beat_error = RunnerReplaced("another process has registered")
            block_until(lambda: not is_running(pid))
            killed = True
    assert killed
    assert not transport.results


async def test_i12_a_cancel_that_the_loop_does_not_hear_is_no_longer_life_than_its_lease(tmp_path: Path) -> None:
    """The lease of a cancelled run is not renewed, so that the fence comes, if nothing else does."""
    async with a_runner(heartbeat_interval=BEAT) as (transport, worker):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        beats = len(transport.beats)
        block_until(lambda: len(transport.beats) > beats + 1)
        trust_ends_soon(worker)
        block_until(lambda: not is_running(pid))
        await eventually(lambda: worker.room() == 2)
    assert not transport.results


@pytest.mark.parametrize("do", ["hold_the_gil", "hold_on"])
async def test_who_ignores_a_cancel_is_killed_when_patience_ends(
    do: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(seconds=2) == watch.PATIENCE
    monkeypatch.setattr(watch, "PATIENCE", SOON)
    async with a_runner(heartbeat_interval=BEAT) as (transport, _):
        transport.offer(a_deed("r1", do, path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        told_at = time.monotonic()
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await reported(transport, "r1")
        assert time.monotonic() - told_at >= SOON.total_seconds()
        assert not is_running(pid)
    assert transport.failure_of("r1").type is FailureType.CANCELLED
    assert transport.failure_of("r1").message == (
        "the run was cancelled while the module was running; its process was killed"
    )


async def test_a_timeout_that_passes_during_patience_keeps_nobody_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, obey = 0, watch.Watch._obey

    def counted(self: watch.Watch) -> None:
        nonlocal looks
        looks += 1
        obey(self)
        if self._kill_at is not None:
            self._attempt.timeout_at = self._clock()

    monkeypatch.setattr(watch, "PATIENCE", SOON)
    monkeypatch.setattr(watch.Watch, "_obey", counted)
    async with a_runner(heartbeat_interval=BEAT) as (transport, _):
        transport.offer(a_deed("r1", "hold_the_gil", path=tmp_path / "pid", timeout=LATE))
        await pid_in(tmp_path / "pid")
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await reported(transport, "r1")
    assert transport.failure_of("r1").type is FailureType.CANCELLED
    assert looks < 100


async def test_who_stops_at_a_cancel_cleans_up_and_its_process_serves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", LATE)
    async with a_runner(heartbeat_interval=BEAT) as (transport, _):
        transport.offer(a_deed("def", "look_and_stop", path=tmp_path / "def"))
        transport.offer(a_deed("async", "wait", "BadAsync", path=tmp_path / "async"))
        pids = {name: await pid_in(tmp_path / name) for name in ("def", "async")}
        transport.answers |= {"def": HeartbeatAnswer.CANCEL, "async": HeartbeatAnswer.CANCEL}
        await reported(transport, "def")
        await reported(transport, "async")
        assert transport.outputs_of("def") == b'"stopped as told"'
        assert transport.failure_of("async").message == "the run was cancelled while the module was running"
        assert (tmp_path / "async.cleaned").exists()
        assert (await outputs_of(transport, a_deed("r3", "pid")))["pid"] == pids["def"]
        assert (await outputs_of(transport, a_deed("r4", "pid", "BadAsync")))["pid"] == pids["async"]


async def test_a_cancel_that_comes_as_the_module_returns_leaves_a_process_that_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", LATE)
    async with a_runner(heartbeat_interval=BEAT) as (transport, _):
        transport.offer(a_deed("r1", "stop_as_its_loop_closes", "BadAsync", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await reported(transport, "r1")
        assert transport.outputs_of("r1") == b'"stopped as told"'
        assert (await outputs_of(transport, a_deed("r2", "pid", "BadAsync")))["pid"] == pid


async def test_a_lease_that_runs_out_during_patience_ends_it(tmp_path: Path) -> None:
    clock = Clock()
    async with a_runner(clock=clock, heartbeat_interval=BEAT) as (transport, worker):
        transport.offer(a_deed("r1", "hold_on", path=tmp_path / "pid"))
        pid = await pid_in(tmp_path / "pid")
        transport.answers["r1"] = HeartbeatAnswer.CANCEL
        await eventually(lambda: any(attempt.stop for attempt in worker.live.values()))
        clock.move(115)
        worker.sweep()
        await eventually(lambda: not is_running(pid))
        await eventually(lambda: worker.room() == 2)
    assert not transport.results


@pytest.mark.parametrize("do", ["start_another_and_hold_on", "start_another_and_die"])
async def test_what_a_module_has_started_is_killed_with_it(do: str, tmp_path: Path) -> None:
    async with a_runner() as (transport, worker):
        transport.offer(a_deed("r1", do, path=tmp_path / "pid", timeout=LATE))
        other = await pid_in(tmp_path / "pid.other")
        if do == "start_another_and_hold_on":
            times_out_soon(worker)
        await reported(transport, "r1")
        await eventually(lambda: not is_running(other))


async def test_what_a_module_leaves_running_ends_with_the_run() -> None:
    async with a_runner() as (transport, _):
        pids = await outputs_of(transport, a_deed("r1", "start_another"))
        await eventually(lambda: not is_running(pids["other"]) and not is_running(pids["pid"]))
        assert (await outputs_of(transport, a_deed("r2", "pid")))["pid"] != pids["pid"]


async def test_of_a_module_that_forks_itself_only_the_first_speaks_to_the_runner() -> None:
    """Two would talk across each other."""
    with capture_logs() as events:
        async with a_runner() as (transport, _):
            assert await outputs_of(transport, a_deed("r1", "fork")) == {"forked": False}
            assert await outputs_of(transport, a_deed("r2", "pid"))
    assert len(transport.results) == 2
    assert [event["forked"] for event in events if event["event"] == "fork.speaks"] == [False]


async def test_a_worker_that_drains_leaves_no_process(tmp_path: Path) -> None:
    async with a_runner() as (transport, worker):
        idle = (await outputs_of(transport, a_deed("r1", "pid", "BadAsync")))["pid"]
        transport.offer(a_deed("r2", "hold_the_gil", path=tmp_path / "pid"))
        busy = await pid_in(tmp_path / "pid")
        assert is_running(idle)
        await worker.drain(timedelta(0))
        await eventually(lambda: not is_running(busy) and not is_running(idle), timeout=5)
    assert [result.ref.run_id for result in transport.results] == ["r1"]
