"""The processes themselves: what is open in them, how long they serve, how many they are, what they say."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from tests.integration.runner.bad_modules import bad
from tests.integration.runner.isolation import (
    a_deed,
    a_runner,
    is_running,
    isolated,
    outputs_of,
    pid_in,
    processes_of,
    reported,
)
from tests.unit.runner.fakes import a_lease, eventually
from valkyr.module import spec_of
from valkyr.runner.attempt import Attempt
from valkyr.runner.isolated import guard, watch
from valkyr.runner.isolated.frames import BrokenFrame, Frame, FrameReader, Kind
from valkyr.runner.isolated.guard import Guard
from valkyr.runner.isolated.orders import MAX_LOG_FIELD, run_order, told_progress
from valkyr.runner.isolated.pool import ChildProcesses
from valkyr.runner.isolated.prints import MAX_LINES, Prints
from valkyr.runner.isolated.process import ChildProcess


@pytest.fixture
def _inheritable() -> Iterator[None]:
    """A descriptor that whoever is started carelessly would get."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    yield
    os.close(reading)
    os.close(writing)


@pytest.mark.usefixtures("_inheritable")
async def test_open_in_it_are_the_channel_the_null_device_and_its_output() -> None:
    async with a_runner() as (transport, _):
        await outputs_of(transport, a_deed("other", "pid", "BadAsync"))
        seen = await outputs_of(transport, a_deed("r1", "descriptors"))
    assert seen["own"] == ["/dev/null", "pipe", "pipe", "socket"]
    assert seen["handed_on"] == 4  # its own three, and the folder it reads


async def test_each_is_the_leader_of_a_session_of_its_own_and_runs_in_the_main_thread() -> None:
    async with a_runner() as (transport, _):
        seen = await outputs_of(transport, a_deed("r1", "pid"))
    assert seen == {"pid": seen["pid"], "session": seen["pid"], "group": seen["pid"], "thread": "MainThread"}
    assert seen["pid"] != os.getpid()


@pytest.fixture
def _cores_allowed() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("_cores_allowed")
async def test_it_leaves_no_core_when_it_crashes() -> None:
    async with a_runner() as (transport, _):
        assert await outputs_of(transport, a_deed("r1", "core_limit")) == 0


def test_one_that_is_given_back_after_the_end_of_its_worker_ends_too() -> None:
    children = ChildProcesses(1, {})
    child = children.take(spec_of("Bad", bad, isolation="process"))
    children.close()
    assert is_running(child.pid)
    children.give_back(child)
    assert not is_running(child.pid)


async def test_after_so_many_runs_a_new_one_takes_its_place() -> None:
    async with a_runner(isolated(runs=3)) as (transport, _):
        pids = [(await outputs_of(transport, a_deed(f"r{number}", "pid")))["pid"] for number in range(7)]
        await eventually(lambda: not is_running(pids[0]) and not is_running(pids[3]))
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


async def test_there_are_never_more_of_them_than_slots() -> None:
    before = processes_of(os.getpid())
    async with a_runner(concurrency=1) as (transport, _):
        for number, class_name in enumerate(["Bad", "BadAsync", "Bad"]):
            await outputs_of(transport, a_deed(f"r{number}", "pid", class_name))
            assert len(processes_of(os.getpid()) - before) == 2, "one of them is the guard"


async def test_one_that_died_while_it_was_idle_costs_no_run() -> None:
    async with a_runner() as (transport, _):
        first = (await outputs_of(transport, a_deed("r1", "pid")))["pid"]
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: not is_running(first))
        assert (await outputs_of(transport, a_deed("r2", "pid")))["pid"] != first


async def test_what_it_prints_is_in_the_log_of_its_runner_up_to_a_bound(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as events:
        async with a_runner() as (transport, _):
            await outputs_of(transport, a_deed("r1", "print_a_line"))
            transport.offer(a_deed("r2", "print_for_ever", path=tmp_path / "pid"))
            await pid_in(tmp_path / "pid")
            await eventually(lambda: any(event["event"] == "module.prints_cut" for event in events))
    printed = [event for event in events if event["event"] == "module.printed"]
    first = [event for event in printed if event["run_id"] == "r1"]
    assert [event["line"] for event in first] == [f"hello\x1b[2J {'x' * 990}"[:1000], "no end of line, \\xff"]
    assert (first[0]["node_id"], first[0]["attempt"]) == ("node of r1", 1)
    assert sum(event["run_id"] == "r2" for event in printed) == MAX_LINES


def test_of_a_line_that_is_too_long_the_rest_is_left_out_however_it_comes() -> None:
    with structlog.testing.capture_logs() as events:
        prints = Prints(a_lease("r1"))
        for data in (b"x" * 1500, b"x" * 1500, b"x\nnext\n", b"", b"y" * 3000 + b"\nl", b"ast"):
            prints.feed(data)
        prints.end()
    assert [event["line"] for event in events] == ["x" * 1000, "next", "y" * 1000, "last"]


def test_a_line_without_end_is_too_much_as_many_lines_are() -> None:
    prints = Prints(a_lease("r1"))
    prints.feed(b"x" * 65536)
    assert not prints.is_too_much
    for _ in range(4):
        prints.feed(b"x" * 65536)
    assert prints.is_too_much


async def test_of_a_progress_told_again_and_again_the_last_counts_and_not_each_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    def counted(frame: Frame) -> bytes:
        nonlocal looks
        looks += 1
        return told_progress(frame)

    monkeypatch.setattr(watch, "told_progress", counted)
    async with a_runner() as (transport, _):
        transport.offer(a_deed("r1", "tell_much", number=20_000))
        await reported(transport, "r1")
    assert transport.failure_of("r1").message == "told"
    assert transport.result_of("r1").progress == b'{"done":19999}'
    assert looks < 10_000


async def test_what_it_logs_is_in_the_log_of_its_runner_with_its_level_and_fields() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with structlog.testing.capture_logs() as events:
        async with a_runner() as (transport, _):
            await outputs_of(transport, a_deed("r1", "log_a_line", traceparent=parent))
    [line] = [event for event in events if event["event"] == "card.refused"]
    assert line["log_level"] == "warning"
    assert (line["run_id"], line["amount"], line["password"]) == ("r1", 5, "***")
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


async def test_of_what_it_logs_at_too_great_a_length_the_beginning_is_in_the_log_of_its_runner() -> None:
    with structlog.testing.capture_logs() as events:
        async with a_runner() as (transport, _):
            assert await outputs_of(transport, a_deed("r1", "log_too_much")) is None
    body, many, fields = (event for event in events if event["event"].startswith("got."))
    assert (body["body"][:10], body["amount"], body["run_id"]) == ("\\x00ab\\x00", 5, "r1")
    assert (len(body["body"]), many["body"][:7]) == (MAX_LOG_FIELD + 3, "[0,1,2,")
    assert (fields["event"], fields["log_level"]) == ("got.fields", "info")
    assert [event["log_level"] for event in events if event["event"].startswith("xxx")] == ["info"]


@pytest.fixture
async def child() -> AsyncIterator[ChildProcess]:
    """One that is ready."""
    child = ChildProcess(spec_of("Bad", bad, isolation="process"), {})
    try:
        child.send()
        await eventually(child.receive, "it is ready", 30)
        assert not child.has_died()
        yield child
    finally:
        child.close()


async def test_it_ends_when_its_channel_is_closed(child: ChildProcess) -> None:
    child.channel.close()
    await eventually(child.has_died, timeout=30)


async def test_it_ends_when_it_cannot_hear_its_runner_any_more(child: ChildProcess) -> None:
    """A run that it is told of later would never be run."""
    child.put(b"\xff" * 64)
    child.send()
    await eventually(child.has_died, timeout=30)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket does not say what has been taken from it")
async def test_what_comes_late_about_the_lease_of_a_run_that_has_ended_ends_nothing(child: ChildProcess) -> None:
    """An idle process has no lease that could be over."""
    for number in range(20):
        order = run_order(Attempt(a_deed(f"r{number}", "pid"), granted_at=0)).encoded()
        child.put(Frame(Kind.TRUST, {"until": time.monotonic() + 600}).encoded() + order)
        child.send()
        ended = await _answer(child)
        assert (ended.kind, ended.fields.get("type")) == (Kind.ENDED, None)
        child.put(Frame(Kind.TRUST, {"until": time.monotonic()}).encoded())
        child.send()
        await eventually(lambda: not _unheard(child), "it has heard it", 30)


async def _answer(child: ChildProcess) -> Frame:
    heard: list[Frame] = []

    def is_over() -> bool:
        said = child.receive()
        heard.extend(child.frames.feed(said or b""))
        return bool(heard) or said == b""

    await eventually(is_over, "it answers, or dies", 30)
    assert heard, "it has died"
    return heard[0]


def _unheard(child: ChildProcess) -> int:
    """Bytes that it has been sent and has not taken."""
    [count] = struct.unpack("i", fcntl.ioctl(child.channel, termios.TIOCOUTQ, bytes(4)))
    return int(count)


_WORKER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from tests.integration.runner.isolation import BEAT, a_deed, a_runner
async def main():
    async with a_runner(heartbeat_interval=BEAT) as (transport, _):
        lease = timedelta(seconds=float(sys.argv[3]))
        transport.offer(a_deed("r1", sys.argv[2], path=Path(sys.argv[1]), lease_duration=lease))
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only a module that lets go of the GIL hears of it")
async def test_it_ends_with_a_worker_that_is_killed_though_it_holds_the_gil(tmp_path: Path) -> None:
    worker = await _a_worker(tmp_path / "pid", "hold_the_gil", lease=120)
    try:
        pid = await pid_in(tmp_path / "pid")
        assert is_running(pid)
    finally:
        worker.kill()
        await worker.wait()
    await eventually(lambda: not is_running(pid))


async def test_what_a_module_has_started_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    worker = await _a_worker(tmp_path / "pid", "start_another_and_hold_on", lease=120)
    try:
        pid, other = await pid_in(tmp_path / "pid"), await pid_in(tmp_path / "pid.other")
        assert is_running(other)
    finally:
        worker.kill()
        await worker.wait()
    try:
        await eventually(lambda: not is_running(pid) and not is_running(other))
    finally:
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGKILL)


async def test_a_guard_that_was_killed_is_replaced_and_knows_what_the_first_knew() -> None:
    own, sleepers = Guard(), [_sleeper() for _ in range(3)]
    try:
        before = processes_of(os.getpid())
        own.watch(sleepers[0].pid)
        own.watch(sleepers[2].pid)
        [first] = processes_of(os.getpid()) - before
        await eventually(lambda: _ignores(first, signal.SIGTERM), "it waits for its runner's end, whoever tells all")
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: not is_running(first))
        own.forget(sleepers[2].pid)
        own.watch(sleepers[1].pid)
        [second] = processes_of(os.getpid()) - before
        assert second != first
        own.close()
        await eventually(lambda: not is_running(sleepers[0].pid) and not is_running(sleepers[1].pid))
        assert not is_running(second)
        assert is_running(sleepers[2].pid)
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_a_guard_that_reads_no_more_is_replaced_and_kills_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it that it wakes at that moment."""
    own, sleeper = Guard(), _sleeper()
    woken: list[str] = []

    class Log:
        def warning(self, event: str) -> None:
            os.kill(first, signal.SIGCONT)
            woken.append(event)

    monkeypatch.setattr(guard, "log", Log())
    try:
        before = processes_of(os.getpid())
        own.watch(sleeper.pid)
        [first] = processes_of(os.getpid()) - before
        os.kill(first, signal.SIGSTOP)
        while not woken:
            own.watch(sleeper.pid)
        assert woken == ["guard.gone"]
        assert not is_running(first)
        assert sleeper.poll() is None
    finally:
        own.close()
        sleeper.kill()
        sleeper.wait()


def _ignores(pid: int, number: signal.Signals) -> bool:
    [mask] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn")]
    return bool(int(mask.split()[1], 16) & 1 << number - 1)


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)


async def test_i12_it_ends_with_the_trust_in_its_lease_though_its_worker_stands_still(tmp_path: Path) -> None:
    worker = await _a_worker(tmp_path / "pid", "hold_on", lease=4)
    try:
        pid = await pid_in(tmp_path / "pid")
        worker.send_signal(signal.SIGSTOP)
        await eventually(lambda: not is_running(pid), timeout=30)
    finally:
        worker.kill()
        await worker.wait()


async def _a_worker(path: Path, do: str, *, lease: float) -> asyncio.subprocess.Process:
    """A process with a worker that runs one deed. Whoever calls this kills it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", _WORKER, str(path), do, str(lease)]
    return await asyncio.create_subprocess_exec(*command, env=environment)


def test_frames_come_whole_however_they_are_cut() -> None:
    frames = [Frame(Kind.LOG, {}, b"a"), Frame(Kind.ENDED, {"worn_out": False}, b"\x00" * 1000), Frame(Kind.READY, {})]
    data = b"".join(frame.encoded() for frame in frames)
    for size in (1, 7, 8, len(data)):
        reader = FrameReader(2000)
        cuts = (data[at : at + size] for at in range(0, len(data), size))
        assert [frame for cut in cuts for frame in reader.feed(cut)] == frames


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    data = Frame(Kind.LOG, {}, b"x" * 1000).encoded()
    with pytest.raises(BrokenFrame, match="and 500 are allowed"):
        list(FrameReader(500).feed(data[:8]))
    for wrong in (b"\x00\x00\x00\x02\x00\x00\x00\x00[]", b"\x00\x00\x00\x02\x00\x00\x00\x00{}"):
        with pytest.raises(BrokenFrame, match="cannot be read"):
            list(FrameReader(500).feed(wrong))
