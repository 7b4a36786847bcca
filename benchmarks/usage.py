"""What processes use, from /proc: CPU time and memory, and how much of the machine others used meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
IDLE, IOWAIT, GUEST = 3, 4, 8


@dataclass(frozen=True, slots=True)
class Memory:
    """In MiB: all resident pages, and these with shared ones divided among those who share them."""

    rss: float
    pss: float


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by name since the meter began, the seconds that passed, and the share of all cores that others had
    meanwhile."""

    cpu: Mapping[str, float]
    seconds: float
    others: float

    def per_run(self, runs: int) -> dict[str, float]:
        """CPU microseconds per run by name, and their sum as `all`."""
        each = {name: seconds / runs * 1e6 for name, seconds in self.cpu.items()}
        return {**each, "all": sum(each.values())}


class Meter:
    """Begins when made. `postgres` is the postmaster, whose backends count with it."""

    def __init__(self, pids: Mapping[str, int], postgres: int) -> None:
        self._pids = dict(pids)
        self._postgres = postgres
        self._began = time.monotonic()
        self._cpu = self._read()
        self._busy = busy_seconds()

    def read(self) -> Usage:
        """Since the beginning."""
        seconds = time.monotonic() - self._began
        cpu = {name: used - self._cpu[name] for name, used in self._read().items()}
        others = (busy_seconds() - self._busy - sum(cpu.values())) / (seconds * (os.cpu_count() or 1))
        return Usage(cpu, seconds, max(0.0, others))

    def _read(self) -> dict[str, float]:
        used = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        return used | {"postgres": tree_cpu_seconds(self._postgres)}


def cpu_seconds(pid: int) -> float:
    """Of the process alone, all threads."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICK


def tree_cpu_seconds(parent: int) -> float:
    """Of the process, its living children, and those that have ended."""
    living = 0.0
    for child in _children(parent):
        with contextlib.suppress(OSError):  # it has ended since, and stands in the parent's sum
            living += cpu_seconds(child)
    return living + sum(int(field) for field in _stat(parent)[11:15]) / TICK


def memory_of(pid: int) -> Memory:
    """OSError when there is no such process."""
    sizes = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) / 1024
    return Memory(sizes["Rss"], sizes["Pss"])


def peak(pid: int) -> float:
    """The most MiB that were resident at any time of the process's life."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"process {pid} has no memory any more")


def busy_seconds() -> float:
    """CPU seconds of the whole machine that were not idle, stolen ones included."""
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(value for index, value in enumerate(fields[:GUEST]) if index not in (IDLE, IOWAIT)) / TICK


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def _children(parent: int) -> Iterable[int]:
    return [int(pid) for pid in (PROC / str(parent) / "task" / str(parent) / "children").read_text().split()]


def _stat(pid: int) -> list[str]:
    """Fields from the state on, which is the third: the second may hold blanks."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
