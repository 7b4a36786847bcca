"""One driver as a process: what it answers, and that nothing of it is left when it has ended. Needs Linux' /proc."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contract import BadLine, Line, parse_line
from benchmarks.environments import environment
from benchmarks.peers.contenders import Contender
from benchmarks.peers.driving import LEASH
from services.local.home import PROJECT

FOLDER = Path(__file__).parent
MARK = "VALKYR_BENCH_TURN"
TIMEOUT = 240.0
GRACE = 10.0
"""Seconds for the processes of a driver that has ended to end as well, before they are killed."""


class DriverFailed(Exception):
    """A driver ended without an answer that counts; the text says what it said."""


def interpreter(contender: Contender) -> Path:
    """The Python that drives it, installed now if it was not. BenchError when that is impossible."""
    if not contender.environment:
        return Path(sys.executable)
    return environment(contender.environment, FOLDER / contender.environment / "requirements.txt")


async def run_driver(
    contender: Contender, workload: str, size: int, *, postgres: str, folder: Path | None, timeout: float = TIMEOUT
) -> Line:
    """Measures one workload on an empty database; what the driver itself stores lies below `folder`, by default the
    temporary folder. DriverFailed when it does not end well within `timeout` seconds."""
    mark = uuid.uuid4().hex
    arguments = ["--workload", workload, "--size", str(size), "--postgres", postgres]
    with tempfile.TemporaryDirectory(prefix="bench-peers-", dir=folder, ignore_cleanup_errors=True) as own:
        command = [str(interpreter(contender)), "-m", contender.driver, *arguments]
        variables = {**contender.variables, MARK: mark, "TMPDIR": own}
        with (Path(own) / "stderr").open("w+") as said:
            try:
                output, code = await _run(command, variables, said.fileno(), timeout)
            finally:
                end_leftovers(mark)
            said.seek(0)
            complaint = said.read().strip()[-2_000:]
    if code != 0:
        raise DriverFailed(f"{contender.name} {workload} ended with {code}: {complaint or output[-500:]}")
    try:
        return parse_line(output)
    except BadLine as error:
        raise DriverFailed(f"{contender.name} {workload}: {error}: {complaint}") from error


async def _run(command: Sequence[str], variables: dict[str, str], errors: int, timeout: float) -> tuple[str, int]:
    leash = [sys.executable, "-I", "-S", str(LEASH), json.dumps({"signal": signal.SIGKILL.value})]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *leash,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        cwd=PROJECT,
        env={**kept, **variables, "LEASH_PARENT": str(os.getpid())},
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError as error:
        raise DriverFailed(f"{' '.join(command[1:])} did not end within {timeout:.0f} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return output.decode(errors="replace"), process.returncode or 0


def end_leftovers(mark: str, grace: float = GRACE) -> None:
    """Waits for the processes that have `mark` in their environment to end; kills those that do not."""
    if _none_left(mark, grace):
        return
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not _none_left(mark, GRACE):
        raise DriverFailed(f"processes {marked(mark)} do not end, not even killed")


def _none_left(mark: str, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def marked(mark: str) -> list[int]:
    """The processes that were started with `mark`; zombies have no environment any more."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in variables:
                found.append(int(folder.name))
    return found
