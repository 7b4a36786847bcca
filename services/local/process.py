"""One service as a process: started on a leash, asked for its health, stopped within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.local.errors import StackError
from services.local.home import PROJECT
from services.local.identity import Identity
from services.local.rooms import Room

LAST_LINES = 8
POLL = 0.05


@dataclass(slots=True)
class ServiceProcess:
    """Start it from the main thread: it is killed when the thread that started it ends."""

    room: Room
    address: str
    log: Path
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _log_start: int = field(default=0, init=False)

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    async def start(self) -> None:
        """Starts the process; its output goes to the log. Does not wait for its health."""
        command = Identity().command(sys.executable, "-m", self.room.module, death_signal=signal.SIGKILL)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env={**self.environment, "LEASH_PARENT": str(os.getpid())},
                start_new_session=True,  # the terminal's Ctrl-C is for the stack, which stops services in order
            )

    async def wait_healthy(self, timeout: float) -> None:
        """Returns when the service reports SERVING under its name. Raises StackError when it ends or takes too long."""
        assert self.process is not None
        ended = asyncio.create_task(self.process.wait())
        healthy = asyncio.create_task(self._poll_health())
        try:
            await asyncio.wait({ended, healthy}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if healthy.done():
                return healthy.result()
            what = (
                f"ended ({describe_exit(ended.result())})"
                if ended.done()
                else f"was not healthy within {timeout:.0f} s"
            )
            raise StackError(f"{self.room.name} {what}{self._last_words()}", hint=f"read {self.log}")
        finally:
            for task in (ended, healthy):
                task.cancel()
            await asyncio.gather(ended, healthy, return_exceptions=True)

    async def stop(self, timeout: float) -> bool:
        """SIGTERM, and SIGKILL after `timeout` seconds. False if it had to be killed."""
        if self.process is None or self.process.returncode is not None:
            return True
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            await self.kill()
            return False
        except asyncio.CancelledError:
            await asyncio.shield(self.kill())
            raise
        return True

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    async def _poll_health(self) -> None:
        async with grpc.aio.insecure_channel(self.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=self.room.service)
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):  # not listening yet
                    answer = await health.Check(request, timeout=2, wait_for_ready=False)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                await asyncio.sleep(POLL)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            content = self.log.read_bytes()
            said = content[self._log_start if self._log_start <= len(content) else 0 :].decode(errors="replace")
            lines = [line for line in said.splitlines() if line.strip()]
            if lines:
                return "; its last words:\n  " + "\n  ".join(lines[-LAST_LINES:])
        return ""


async def run_module(
    module: str, *arguments: str, environment: Mapping[str, str], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> tuple[int, bytes, bytes]:
    """Runs `python -m module` to its end; its exit code and what it said into pipes. Killed when cancelled."""
    process = await asyncio.create_subprocess_exec(
        *Identity().command(sys.executable, "-m", module, *arguments, death_signal=signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=PROJECT,
        env={**environment, "LEASH_PARENT": str(os.getpid())},
        start_new_session=True,
    )
    try:
        said, complained = await process.communicate()
        assert process.returncode is not None
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode, said or b"", complained or b""


def describe_exit(code: int) -> str:
    """`exit code 3`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
