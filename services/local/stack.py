"""A stack of one's own from Python: for the demo, end-to-end tests and benchmarks. `python -m services`, driven."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.local.errors import StackError
from services.local.home import PROJECT, Home

POLL = 0.02


class LocalStack:
    """Blocking; `async with` does the same in a thread. It ends with this process, however this process ends.

    `extra_env` is added to the services' environment: `{"VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "200"}`.
    """

    def __init__(self, home: str | Path, port_base: int, extra_env: Mapping[str, str] | None = None) -> None:
        self.home = Home(Path(home).absolute())
        self.port_base = port_base
        self._environment = {**os.environ, **(extra_env or {})}
        self._environment |= {"VALKYR_HOME": str(self.home.folder), "VALKYR_PORT_BASE": str(port_base)}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        """What the stack has said."""
        return self.home.folder / "stack.log"

    @property
    def addresses(self) -> dict[str, str]:
        """`host:port` by the service's name: `graph_store`, `executor`."""
        return {name: service["address"] for name, service in self._state()["services"].items()}

    @property
    def pids(self) -> dict[str, int]:
        """By the service's name, with `supervisor`, and, if the stack started it, `postgres` and its `keeper`."""
        state = self._state()
        pids = {name: service["pid"] for name, service in state["services"].items()}
        pids |= {"supervisor": state["pid"], "postgres": state["postgres"], "keeper": state["keeper"]}
        return {name: pid for name, pid in pids.items() if pid is not None}

    @property
    def database_url(self) -> str:
        """Of the services' database; without its password if it has one."""
        url: str = self._state()["database"]
        return url

    def start(self, timeout: float = 180.0) -> Self:
        """Returns when all services are healthy. Raises StackError with what the stack said, after stopping it."""
        self.home.create()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services", "--until-stdin-closes"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=PROJECT,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.output.read_text(errors="replace").strip()
                late = "" if self.process.poll() is not None else f" within {timeout:.0f} s"
                self.stop()
                raise StackError(f"the stack did not come up{late}: {said}", hint=f"read {self.home.logs}")
            time.sleep(POLL)
        return self

    def stop(self, timeout: float = 120.0) -> int:
        """Stops everything; the exit code of `python -m services`. Raises StackError when it does not end in time."""
        process = self.process
        if process is None:
            return 0
        assert process.stdin is not None
        process.stdin.close()
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise StackError(f"the stack did not stop within {timeout:.0f} s", hint=f"read {self.output}") from None
        self.process = None
        return code

    def _is_ready(self) -> bool:
        try:
            state = self._state()
        except (OSError, ValueError):
            return False
        return bool(state["ready"]) and self.process is not None and state["pid"] == self.process.pid

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.home.state.read_text())
        return state

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
