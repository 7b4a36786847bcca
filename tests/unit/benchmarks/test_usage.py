"""What is read from /proc, of processes that the test knows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import filesystem, fsync_time, machine, versions
from benchmarks.stack import free_ports
from benchmarks.usage import Meter, Usage, cpu_seconds, memory_of, parent_of, peak, tree_cpu_seconds
from services.local.ports import is_free
from tests.waiting import wait_until

BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def burn(more: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"{BURN}\n{more}"], stdin=subprocess.PIPE)


def test_cpu_time_is_that_of_the_process() -> None:
    before = time.process_time()
    told = cpu_seconds(os.getpid())
    assert before - 0.05 <= told <= time.process_time() + 0.05
    assert parent_of(os.getpid()) == os.getppid()


def test_a_tree_counts_children_that_live_and_those_that_have_ended() -> None:
    before = tree_cpu_seconds(os.getpid())
    with burn("input()") as living, burn() as ended:
        ended.wait()
        wait_until(lambda: cpu_seconds(living.pid) >= 0.2, "the child uses its time")
        used = tree_cpu_seconds(os.getpid()) - before
        living.communicate(b"\n")
    assert used >= 0.48  # 0.2 and more, and 0.3, but for what whole ticks leave out


def test_a_meter_counts_from_when_it_was_made_and_tells_others_apart() -> None:
    with burn("input()") as other:
        meter = Meter({"this": os.getpid()}, other.pid)
        wait_until(lambda: cpu_seconds(other.pid) >= 0.2, "the child uses its time")
        used = meter.read()
        in_all = cpu_seconds(other.pid)
        other.communicate(b"\n")
    assert set(used.cpu) == {"this", "postgres"}
    assert 0 < used.cpu["postgres"] <= in_all
    assert used.seconds > 0
    assert 0 <= used.others <= 1.5


def test_usage_per_run_is_in_microseconds_with_a_sum() -> None:
    assert Usage({"a": 0.5, "b": 0.25}, 1.0, 0.0).per_run(1000) == {"a": 500, "b": 250, "all": 750}


def test_memory_counts_shared_pages_once_in_pss() -> None:
    memory = memory_of(os.getpid())
    assert 1 < memory.pss <= memory.rss <= peak(os.getpid()) + 1


def test_the_machine_is_described_with_the_disk_that_is_written_to(tmp_path: Path) -> None:
    found = machine(tmp_path)
    assert found["cores"] == os.cpu_count()
    assert found["memory_mib"] > 100
    assert found["filesystem"] == filesystem(tmp_path) != "unknown"
    assert fsync_time(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_versions_name_the_commit_and_the_packages() -> None:
    assert {"python", "commit", "grpcio", "asyncpg"} <= versions().keys()


def test_ports_are_free_in_a_row() -> None:
    tries = (free_ports() for _ in range(3))  # others may take one meanwhile
    assert any(all(is_free(first + offset) for offset in range(4)) for first in tries)
