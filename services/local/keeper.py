"""Keeps one postmaster for as long as somebody owns it. Runs by path, alone: the standard library only.

Owners hold a shared lock on one file, which the kernel drops however they die; the keeper waits for the exclusive lock,
then stops the server. If the keeper is killed, the leash stops the server. A second lock is inherited by the server and
all its children: it is free when, and only when, nothing of the cluster lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any


def main() -> int:
    """Reads its orders from stdin, answers one line of JSON on stdout when the server is ready or has failed."""
    orders: dict[str, Any] = json.load(sys.stdin)
    _lock(orders["keeper_lock"])
    cluster_lock = _lock(orders["cluster_lock"])
    data = Path(orders["data"])
    for stale in (data / "postmaster.pid", *Path(orders["sockets"]).glob(".s.PGSQL.*")):
        stale.unlink(missing_ok=True)  # nothing of this cluster lives: the lock says so, whatever a zombie's pid says
    with Path(orders["log"]).open("ab") as log:
        server = subprocess.Popen(  # noqa: S603
            orders["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[cluster_lock],
            env={**orders["env"], "LEASH_PARENT": str(os.getpid())},
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop_in_background(server, orders["stop_timeout"]))
    if not _wait_until_ready(server, data, orders["start_timeout"]):
        _stop(server, orders["stop_timeout"])
        return _answer({"error": "start", "exit": server.returncode}, 1)
    _answer({"pid": server.pid}, 0)
    threading.Thread(target=_stop_when_unowned, args=(server, orders), daemon=True).start()
    code = server.wait()
    if orders.get("remove"):
        os.close(cluster_lock)
        shutil.rmtree(orders["remove"], ignore_errors=True)
    return 0 if code == 0 else 1


def _lock(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever starts a keeper has made sure that both are free
    return fd


def _answer(value: dict[str, Any], code: int) -> int:
    with contextlib.suppress(BrokenPipeError):  # whoever asked has died; the lock will tell
        print(json.dumps(value), flush=True)  # noqa: T201
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    return code


def _wait_until_ready(server: subprocess.Popen[bytes], data: Path, timeout: float) -> bool:
    """The postmaster writes its state into the eighth line of postmaster.pid; pg_ctl watches the same line."""
    deadline = time.monotonic() + timeout
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            lines = (data / "postmaster.pid").read_text().split("\n")
            if len(lines) > 7 and lines[0] == str(server.pid) and lines[7].strip() == "ready":
                return True
        time.sleep(0.01)
    return False


def _stop_when_unowned(server: subprocess.Popen[bytes], orders: dict[str, Any]) -> None:
    owners = os.open(orders["owners_lock"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(owners, fcntl.LOCK_EX)  # held to our end: a new owner waits for it, then starts a new server
    _stop(server, orders["stop_timeout"])


def _stop_in_background(server: subprocess.Popen[bytes], timeout: float, _frame: FrameType | None = None) -> None:
    threading.Thread(target=_stop, args=(server, timeout), daemon=True).start()


def _stop(server: subprocess.Popen[bytes], timeout: float) -> None:
    """Fast shutdown, then immediate, then kill: each loses nothing that was committed."""
    for number, bound in ((signal.SIGINT, timeout), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        if server.poll() is not None:
            return
        server.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(bound)
            return


if __name__ == "__main__":
    sys.exit(main())
