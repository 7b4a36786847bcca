"""In a child process: the limits of the system on it, and its end with its runner."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1


def limit(*, memory: int | None, open_files: int | None) -> None:
    """`memory`, in bytes, is what the process may write to: what it has mapped to read, and libraries, do not count."""
    _lower(resource.RLIMIT_CORE, 0)
    if memory is not None:
        _lower(resource.RLIMIT_DATA, memory)
    if open_files is not None:
        _lower(resource.RLIMIT_NOFILE, open_files)


def allow_cpu(seconds: float) -> None:
    """From now on, in whole seconds rounded up; then SIGXCPU ends the process."""
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))


def _lower(kind: int, value: int) -> None:
    """The soft limit alone, as nobody may raise the hard one again."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def end_with(parent: int) -> None:
    """The kernel kills this process when the thread that started it ends, be it with its whole process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        end_group()


def end_group() -> None:
    """This process, and what it has started."""
    os.killpg(0, signal.SIGKILL)


def has_children() -> bool:
    """Whether processes that this one started are left, running or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
