"""The stack with toys for services: what dies is started again, what is stopped is gone, what is wrong is said."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.local.home import PROJECT, FileLock
from tests.free_ports import a_port_base
from tests.waiting import lives, wait_until


class ToyStack:
    """`toy_stack.py` as a process, with a home of its own."""

    def __init__(self, home: Path, port_base: int, **environment: str) -> None:
        self.home, self.port_base = home, port_base
        self.output = home.with_suffix(".out")
        self._environment = {"VALKYR_HOME": str(home), "VALKYR_PORT_BASE": str(port_base), **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.local.toy_stack", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=PROJECT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        return self.process

    def start_and_wait(self) -> None:
        process = self.start()
        wait_until(lambda: process.poll() is not None or "Try next" in self.said(), "the stack is up", 60)
        assert process.poll() is None, self.said()

    def said(self) -> str:
        return self.output.read_text()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        return state

    def pids(self) -> list[int]:
        state = self.state()
        return [*(each["pid"] for each in state["services"].values()), state["keeper"], state["postgres"]]

    def end(self) -> None:
        if self.process is not None:
            for number, bound in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    self.process.send_signal(number)
                    self.process.wait(bound)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def a_stack(tmp_path: Path) -> Iterator[Callable[..., ToyStack]]:
    """Makes stacks, each with a home and, unless told, ports of its own; ends them all."""
    made: list[ToyStack] = []

    def make(name: str = "home", port_base: int | None = None, **environment: str) -> ToyStack:
        made.append(ToyStack(tmp_path / name, port_base or a_port_base(), **environment))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def stack(a_stack: Callable[..., ToyStack]) -> ToyStack:
    return a_stack()


def test_what_dies_is_started_again_and_said(stack: ToyStack) -> None:
    stack.start_and_wait()
    for name in ("first", "second"):
        assert f"{name:<12} 127.0.0.1:{stack.port_base + (name == 'second')}" in stack.said()
    before = stack.state()
    os.kill(before["services"]["first"]["pid"], signal.SIGKILL)
    wait_until(lambda: "first is healthy again" in stack.said(), "the service is back")
    assert "first ended (killed by SIGKILL); starting it again" in stack.said()
    os.kill(before["postgres"], signal.SIGKILL)
    wait_until(lambda: "PostgreSQL is up again" in stack.said(), "PostgreSQL is back")
    after = stack.state()
    assert after["services"]["first"]["pid"] != before["services"]["first"]["pid"]
    assert after["services"]["second"] == before["services"]["second"]
    assert after["postgres"] != before["postgres"]
    assert lives(after["postgres"])


def test_ctrl_c_stops_services_and_then_postgresql_and_exits_0(stack: ToyStack) -> None:
    stack.start_and_wait()
    pids = stack.pids()
    assert all(lives(pid) for pid in pids)
    assert stack.process is not None
    os.killpg(stack.process.pid, signal.SIGINT)  # as a terminal does it: everything in the foreground gets it
    assert stack.process.wait(60) == 0
    assert "told to stop" in (stack.home / "logs" / "first.log").read_text()
    assert not any(lives(pid) for pid in pids)
    assert not (stack.home / "stack.json").exists()
    assert "Stopping: SIGINT was received" in stack.said()
    assert stack.said().rstrip().endswith("Valkyr has stopped.")
    assert "neither encrypted nor authenticated" in stack.said()
    assert "is shut down" in (stack.home / "logs" / "postgres.log").read_text()


def test_a_stack_under_nohup_outlives_its_terminal(stack: ToyStack) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; programs inherit it
    try:
        stack.start_and_wait()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stack.process is not None
    stack.process.send_signal(signal.SIGHUP)
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(60) == 0
    assert "SIGTERM was received" in stack.said()
    assert "SIGHUP" not in stack.said()


def test_a_log_that_grows_is_begun_anew_while_the_service_runs(a_stack: Callable[..., ToyStack]) -> None:
    stack = a_stack(TOY_LOG_LIMIT="10")
    stack.start_and_wait()
    logs = stack.home / "logs"
    wait_until(lambda: (logs / "first.log.1").exists() and (logs / "first.log").stat().st_size == 0, "a new log")
    assert "postgresql://" in (logs / "first.log.1").read_text()
    assert stack.process is not None
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(60) == 0
    assert "told to stop" in (logs / "first.log").read_text() + (logs / "first.log.1").read_text()


def test_kill_9_of_the_stack_takes_all_with_it_and_the_next_start_is_clean(stack: ToyStack) -> None:
    stack.start_and_wait()
    pids = stack.pids()
    assert stack.process is not None
    stack.process.kill()
    stack.process.wait()
    stack.start_and_wait()  # at once, while the old PostgreSQL may still be stopping
    wait_until(lambda: not any(lives(pid) for pid in pids), "nothing of the old stack lives")
    assert all(lives(pid) for pid in stack.pids())


def test_a_second_stack_needs_a_home_and_ports_of_its_own(
    stack: ToyStack, a_stack: Callable[..., ToyStack], tmp_path: Path
) -> None:
    stack.start_and_wait()
    assert stack.process is not None
    same_home = ToyStack(stack.home, a_port_base())
    same_home.output = tmp_path / "same_home.out"
    assert same_home.start().wait(60) == 1
    assert f"a stack is already running in {stack.home} (pid {stack.process.pid})" in same_home.said()
    same_ports = a_stack("other", stack.port_base)
    assert same_ports.start().wait(60) == 1
    assert f"port {stack.port_base} (for first) is in use by pid" in same_ports.said()
    assert f"port {stack.port_base + 1} (for second) is in use" in same_ports.said()
    assert "VALKYR_PORT_BASE" in same_ports.said()
    a_stack("beside").start_and_wait()
    assert all(lives(pid) for pid in stack.pids())


def test_a_command_runs_in_a_stack_of_its_own_and_its_exit_code_is_handed_on(stack: ToyStack) -> None:
    process = stack.start("sh", "-c", "echo $VALKYR_DATABASE_URL; exit 7")
    assert process.wait(60) == 7
    assert f"postgresql://valkyr@/valkyr?host={stack.home}/run&port=5432" in stack.said()
    assert stack.start("sh", "-c", "kill -9 $$").wait(60) == 128 + 9
    assert stack.start("/nonexistent").wait(60) == 1
    assert "error: /nonexistent cannot be run: No such file or directory" in stack.said()
    assert not (stack.home / "stack.json").exists()


def test_a_service_that_does_not_come_up_stops_the_start_with_its_last_words(a_stack: Callable[..., ToyStack]) -> None:
    stack = a_stack(TOY_FAULT="exit")
    assert stack.start().wait(60) == 1
    assert "ended (exit code 3); its last words:\n  the setting toy.fault is wrong" in stack.said()
    assert "Traceback" not in stack.said()


def test_a_service_that_does_not_stop_is_killed_within_the_bound(a_stack: Callable[..., ToyStack]) -> None:
    stack = a_stack(TOY_FAULT="deaf", TOY_STOP_TIMEOUT="0.5")
    stack.start_and_wait()
    pids = stack.pids()
    assert stack.process is not None
    stack.process.terminate()
    assert stack.process.wait(60) == 0
    assert "first did not stop in time and was killed" in stack.said()
    assert not any(lives(pid) for pid in pids)


def test_a_second_ctrl_c_does_not_wait_for_draining(a_stack: Callable[..., ToyStack]) -> None:
    stack = a_stack(TOY_FAULT="deaf", TOY_STOP_TIMEOUT="1000")
    stack.start_and_wait()
    pids = stack.pids()
    assert stack.process is not None
    stack.process.send_signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in stack.said(), "it stops")
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(60) == 0
    assert not any(lives(pid) for pid in pids)


def test_a_stop_while_starting_leaves_nothing(stack: ToyStack) -> None:
    process = stack.start()
    folders = [stack.home / name for name in ("postgres.new", "postgres")]
    wait_until(lambda: any(folder.exists() for folder in folders), "PostgreSQL is being set up", 60)
    process.terminate()
    assert process.wait(60) == 0
    assert "Valkyr is up" not in stack.said()
    assert not (stack.home / "postgres" / "postmaster.pid").exists()
    assert FileLock(stack.home / "postgres.keeper").try_acquire()


def test_a_postgresql_of_ones_own_is_used_and_none_is_started(
    database_url: str, a_stack: Callable[..., ToyStack]
) -> None:
    stack = a_stack(VALKYR_DATABASE_URL=database_url)
    stack.start_and_wait()
    assert stack.state()["postgres"] is None
    assert not (stack.home / "postgres").exists()
    assert database_url in (stack.home / "logs" / "first.log").read_text()


def test_a_taken_port_is_said_before_anything_is_started(stack: ToyStack) -> None:
    with socket.create_server(("127.0.0.1", stack.port_base)):
        assert stack.start().wait(60) == 1
    assert f"port {stack.port_base} (for first) is in use by pid {os.getpid()}" in stack.said()
    assert not (stack.home / "postgres").exists()
