"""What the drivers share: their children, their clock, their check, and how they answer by benchmarks.contract.

A driver runs in the environment of its peer, so this file needs the standard library alone.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contract import Line, read_arguments, warm_up

LEASH = Path(__file__).resolve().parents[2] / "services" / "local" / "leash.py"
STEPS = 10
"""Of a chain."""

BRANCHES = 1_000
"""Of a fan-out."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure: `size` executions, or chains, or, in W2 and W4, times one after another."""

    size: int
    postgres: str

    @property
    def calls(self) -> int:
        """How many chains are run one at a time, for their latency."""
        return max(3, min(50, self.size // 10))


@dataclass(frozen=True, slots=True)
class Measured:
    """`count` executions in `seconds`, every output checked."""

    count: int
    seconds: float = 0.0
    latencies_ms: Sequence[float] | None = None
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class WrongOutput(Exception):
    """An output is missing, wrong or there twice: the time does not count."""


Workload = Callable[[Order], Awaitable[Measured]]


def drive(workloads: Mapping[str, Workload], *, packages: Sequence[str], settings: Mapping[str, str]) -> None:
    """The whole of a driver: measures what its command line asks for and prints one line."""
    arguments = read_arguments()
    if arguments.workload not in workloads:
        sys.exit(f"{arguments.workload} is not for this peer: it has {' '.join(sorted(workloads))}")
    measured = asyncio.run(_measure(workloads[arguments.workload], Order(arguments.size, arguments.postgres)))
    versions = {name: importlib.metadata.version(name) for name in packages}
    line = Line(
        workload=arguments.workload,
        seconds=measured.seconds,
        count=measured.count,
        checked=True,
        latencies_ms=measured.latencies_ms,
        versions={"python": platform.python_version(), **versions},
        note=measured.note,
        extra={**measured.extra, "settings": dict(settings)},
    )
    print(line.text(), flush=True)
    os._exit(0)  # peers leave threads behind that wait for what nobody sends, or complain of the end


async def _measure(workload: Workload, order: Order) -> Measured:
    return await workload(order)


def check(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Raises WrongOutput unless each output is there, once, and right; both in the order of the inputs."""
    wrong = [index for index, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]]
    if len(found) != len(expected) or wrong:
        raise WrongOutput(f"{len(found)} outputs for {len(expected)} executions, {len(wrong)} of them wrong")


def rates_of_tenths(stamps: Sequence[float]) -> tuple[float, float]:
    """Executions finished per second in the first and in the last tenth, from when each finished, in seconds. What was
    finished in one batch has one time, and is not cut in two. ValueError where all of them have."""
    ordered = sorted(stamps)
    count = len(ordered)
    tenth = max(1, count // 10)
    first = bisect_right(ordered, ordered[0])
    last = bisect_left(ordered, ordered[-1])
    if first == count:
        raise ValueError("all executions ended at once: there is no rate")
    early = ordered[max(tenth, first)]
    late = ordered[min(count - 1 - tenth, last - 1)]
    return (
        (bisect_right(ordered, early) - first) / (early - ordered[0]),
        (count - bisect_right(ordered, late)) / (ordered[-1] - late),
    )


def drained(stamps: Sequence[float], known: float) -> Measured:
    """A backlog drained: from when its first execution finished until all were `known` to have, by one clock."""
    first, last = rates_of_tenths(stamps)
    extra = {"first_tenth": first, "last_tenth": last}
    return Measured(len(stamps), known - min(stamps), extra=extra)


async def one_after_another(run: Callable[[int], Awaitable[Any]], expected: Sequence[Any], *, warm: int) -> Measured:
    """Latencies of `run(0)`, `run(1)` ...: each starts when the result of the one before is known; `warm` of them go
    before, untimed."""
    for index in range(warm):
        await run(index)
    latencies, found = [], []
    for index in range(len(expected)):
        start = time.perf_counter()
        found.append(await run(index))
        latencies.append((time.perf_counter() - start) * 1_000)
    check(found, expected)
    return Measured(len(expected), latencies_ms=[round(each, 4) for each in latencies])


async def many_at_once(run: Callable[[int], Awaitable[Any]], expected: Sequence[Any], *, window: int) -> Measured:
    """Time for `run(0)`, `run(1)` ... with up to `window` of them in flight, until every result is known; a tenth of
    them go before, untimed."""
    free = asyncio.Semaphore(window)

    async def bounded(index: int) -> Any:
        async with free:
            return await run(index)

    await asyncio.gather(*(bounded(index) for index in range(warm_up(len(expected)))))
    start = time.perf_counter()
    found = await asyncio.gather(*(bounded(index) for index in range(len(expected))))
    seconds = time.perf_counter() - start
    check(found, expected)
    return Measured(len(expected), seconds)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """A process of the peer's: dies with this one, however this one ends. Its lines of output are read at once."""

    def __init__(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        lines: queue.SimpleQueue[str | None] | None = None,
    ) -> None:
        leash = [sys.executable, "-I", "-S", str(LEASH), json.dumps({"signal": signal.SIGKILL.value})]
        self._process = subprocess.Popen(
            [*leash, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {}), "LEASH_PARENT": str(os.getpid())},
        )
        self._lines: queue.SimpleQueue[str | None] = lines or queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def module(cls, name: str, *arguments: str, lines: queue.SimpleQueue[str | None] | None = None) -> Child:
        """`python -m name arguments`, in the environment of this process."""
        return cls(sys.executable, "-m", name, *arguments, lines=lines)

    def tell(self, line: str) -> None:
        """Writes one line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def line(self, timeout: float = 120.0) -> str:
        """The next line that it printed. Raises RuntimeError when it has ended, queue.Empty when it says nothing."""
        line = self._lines.get(timeout=timeout)
        if line is None:
            raise RuntimeError(f"{self._process.args!r} ended with code {self._process.wait()}")
        return line

    def await_line(self, wanted: str, timeout: float = 120.0) -> None:
        """Reads until it prints `wanted`."""
        while self.line(timeout) != wanted:
            pass

    def is_running(self) -> bool:
        """False when it has ended."""
        return self._process.poll() is None

    def stop(self, timeout: float = 20.0) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(1.0)  # no longer: its own children may live on and hold the pipe

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


class Crew:
    """Several processes of one module, whose lines come together."""

    def __init__(self, count: int, module: str, *arguments: str) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._children = [Child.module(module, *arguments, lines=self._lines) for _ in range(count)]

    def line(self, timeout: float = 120.0) -> str:
        """The next line that any of them printed. RuntimeError when one has ended, queue.Empty if none speaks."""
        line = self._lines.get(timeout=timeout)
        if line is None:
            raise RuntimeError("a worker has ended")
        return line

    def await_ready(self) -> None:
        """Returns when each has printed `ready`. What those that were ready before the last have said by then, for a
        backlog waits for nobody, is read afterwards."""
        missing, said = len(self._children), []
        while missing:
            line = self.line()
            if line == "ready":
                missing -= 1
            else:
                said.append(line)
        for line in said:
            self._lines.put(line)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.stop()


def say_done(number: int, value: int) -> None:
    """For a worker of a queue without results: tells the driver that the handler of `number` has ended, and when."""
    os.write(1, f"{number} {value} {time.monotonic()}\n".encode())


def read_done(workers: Crew, count: int) -> tuple[list[int], list[float]]:
    """What `count` handlers said: their values in the order of their numbers, and when each ended."""
    said = [workers.line().split() for _ in range(count)]
    if len({number for number, _, _ in said}) != count:
        raise WrongOutput("a job ran twice")
    said.sort(key=lambda each: int(each[0]))
    return [int(value) for _, value, _ in said], [float(stamp) for _, _, stamp in said]
