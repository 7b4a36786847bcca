"""What the system knows of a process by its number. Numbers are used again: ask before you signal."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROC = Path("/proc")


def command_line(pid: int) -> str:
    """The command line of a living process; empty if there is none, or only its zombie."""
    if (PROC / "self").exists():
        try:
            return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""
    ps = ["ps", "-ww", "-p", str(pid), "-o", "stat=,command="]
    status, _, command = subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip().partition(" ")  # noqa: S603
    return "" if status.startswith("Z") else command.strip()


def is_postgres_of(pid: int, data: Path) -> bool:
    """Whether that process is a server of this data folder, which a postmaster makes its working folder."""
    if (PROC / "self").exists():
        try:
            return (PROC / str(pid) / "cwd").resolve(strict=True) == data.resolve()
        except OSError:
            return False
    return str(data) in command_line(pid)
