"""What figures depend on: the machine, its disk, versions, and the settings of PostgreSQL."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.errors import BenchError
from services.local.home import PROJECT

PACKAGES = ("grpcio", "protobuf", "asyncpg", "uvloop", "orjson", "sqlalchemy", "opentelemetry-sdk", "cel-expr-python")
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
SHOWN = (*DURABLE, "wal_sync_method", "shared_buffers", "max_wal_size", "checkpoint_timeout", "max_connections", "jit")
FSYNCS = 200
BLOCK = b"\0" * 8192


def machine(folder: Path) -> dict[str, Any]:
    """Cores, memory, kernel, and the disk below `folder`, which PostgreSQL writes to."""
    return {
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_mib": int(_first("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "filesystem": filesystem(folder),
        "fsync_us": round(fsync_time(folder) * 1e6, 1),
    }


def versions() -> dict[str, str]:
    """Of Python, of the project and of the packages that count. `+` after the commit: with changes of its own."""
    return {
        "python": sys.version.split()[0],
        "valkyr": metadata.version("valkyr"),
        "commit": commit(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit of the checkout; "unknown" outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


async def postgres_settings(url: str) -> Mapping[str, str]:
    """What PostgreSQL says of itself. BenchError where a commit would not be durable: that is measured for nobody."""
    connection = await asyncpg.connect(url)
    try:
        shown = {name: str(await connection.fetchval(f"SHOW {name}")) for name in ("server_version", *SHOWN)}
    finally:
        await connection.close()
    careless = [name for name in DURABLE if shown[name] != "on"]
    if careless:
        raise BenchError(f"PostgreSQL runs with {', '.join(careless)} off: commits would not be durable")
    return shown


def fsync_time(folder: Path) -> float:
    """Seconds for a block written and made durable, the median of many."""
    path = folder / "fsync-probe"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(BLOCK)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(times)


def filesystem(folder: Path) -> str:
    """The type of what is mounted there, such as ext4."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, type_, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, type_
    return kind


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
