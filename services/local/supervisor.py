"""Brings the stack up, keeps it up, takes it down: PostgreSQL first, then the services; and back.

Each service migrates its own schema when it starts. With a PostgreSQL of one's own that is done here first, so that
what is wrong with it is one sentence at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.local.errors import StackError
from services.local.home import LOG_LIMIT, FileLock, Home
from services.local.leftovers import end_leftovers
from services.local.ports import require_free
from services.local.postgres import Cluster
from services.local.process import ServiceProcess, describe_exit, run_module
from services.local.rooms import ROOMS, Room
from services.local.speech import DIM, GREEN, RED, YELLOW, Speech

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
CALM = 60.0
"""Seconds of life after which a service that dies is started again without a pause."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """`database_url`: a PostgreSQL of one's own; None starts one. Bounds and `log_look`, the time between
    two looks at the logs' sizes, in seconds; `log_limit` in bytes."""

    home: Home
    port_base: int
    database_url: str | None = None
    postgres_bin: str | None = None
    rooms: Sequence[Room] = ROOMS
    check_settings: bool = True
    migrate: bool = True
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    start_timeout: float = 60.0
    stop_timeout: float = 30.0
    log_limit: int = LOG_LIMIT
    log_look: float = 10.0


class Supervisor:
    """`start`, then `keep` until cancelled, then `stop`, all on the main thread's event loop."""

    def __init__(self, settings: StackSettings, speech: Speech) -> None:
        self.settings = settings
        self._speech = speech
        self._lock = FileLock(settings.home.stack_lock)
        self._cluster: Cluster | None = None
        if settings.database_url is None:
            self._cluster = Cluster(
                settings.home, binaries_folder=settings.postgres_bin, stop_timeout=settings.stop_timeout
            )
        self.services: list[ServiceProcess] = []

    @property
    def database_url(self) -> str:
        return self.settings.database_url or (self._cluster.url if self._cluster else "")

    async def start(self) -> None:
        """Returns when every service is healthy; raises StackError otherwise, and `stop` must follow either way."""
        home, port_base = self.settings.home, self.settings.port_base
        home.create()
        if not self._lock.try_acquire():
            raise StackError(
                f"a stack is already running in {home.folder} (pid {home.stack_lock.read_text() or 'unknown'})",
                hint="stop it, or set VALKYR_HOME and VALKYR_PORT_BASE to run another beside it",
            )
        self._lock.write(str(os.getpid()))
        self._speech.say(f"Starting, with data and logs in {home.folder} ...", DIM)
        await end_leftovers(home)
        require_free(self.settings.rooms, port_base)
        if self.settings.check_settings:
            await self._check_settings()
        if self._cluster is not None:
            await _to_its_end(self._cluster.start)
        if self.settings.database_url is not None and self.settings.migrate:
            await self._migrate()
        self.services = [
            ServiceProcess(room, room.address(port_base), home.log(room.name), self.environment)
            for room in self.settings.rooms
        ]
        for service in self.services:
            await service.start()
        self._write_state(ready=False)
        await _all(service.wait_healthy(self.settings.start_timeout) for service in self.services)
        self._write_state(ready=True)

    async def keep(self) -> None:
        """Starts again whatever dies. Never returns."""
        keepers = [self._keep_service(service) for service in self.services]
        keepers.append(self._keep_logs_short())
        if self._cluster is not None:
            keepers.append(self._keep_postgres(self._cluster))
        await _all(keepers)

    async def stop(self) -> None:
        """Services in reverse order, each within its bound, then PostgreSQL."""
        for service in reversed(self.services):
            if not await service.stop(self.settings.stop_timeout):
                self._speech.say(f"{service.room.name} did not stop in time and was killed", YELLOW)
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.stop)
        if self.services:
            self.settings.home.state.unlink(missing_ok=True)
        self._lock.release()

    async def kill_services(self) -> None:
        """For the impatient: without draining; leases then run out instead of being given back."""
        await asyncio.gather(*(service.kill() for service in self.services))

    async def _keep_service(self, service: ServiceProcess) -> None:
        pause = FIRST_PAUSE
        while True:
            assert service.process is not None
            began = time.monotonic()
            code = await service.process.wait()
            pause = FIRST_PAUSE if time.monotonic() - began > CALM else pause
            self._speech.say(
                f"{service.room.name} ended ({describe_exit(code)}); starting it again in {pause:.1f} s", YELLOW
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await service.start()
                self._write_state(ready=True)
                await service.wait_healthy(self.settings.start_timeout)
            except (StackError, OSError) as error:
                self._speech.say(str(error), RED)
            else:
                self._speech.say(f"{service.room.name} is healthy again (pid {service.pid})", GREEN)

    async def _keep_postgres(self, cluster: Cluster) -> None:
        pause = FIRST_PAUSE
        while True:
            if cluster.is_running():
                await _ended(cluster)
                pause = FIRST_PAUSE
                self._speech.say("PostgreSQL has ended; starting it again", YELLOW)
            try:
                await _to_its_end(lambda: _start_again(cluster))
            except StackError as error:
                self._speech.say(f"{error}; trying again in {pause:.1f} s ({error.hint})", RED)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._write_state(ready=True)
                self._speech.say("PostgreSQL is up again, with all that was committed", GREEN)

    async def _keep_logs_short(self) -> None:
        while True:
            await asyncio.sleep(self.settings.log_look)
            try:
                await asyncio.to_thread(self.settings.home.shorten_logs, self.settings.log_limit)
            except OSError as error:
                self._speech.say(f"{error.filename}: the log cannot be shortened: {error.strerror}", YELLOW)

    async def _check_settings(self) -> None:
        """Every service reads its settings once before anything is started: what is wrong with any is one message."""
        answers = await asyncio.gather(*(self._problems(room) for room in self.settings.rooms))
        problems = list(dict.fromkeys(problem for answer in answers for problem in answer))
        if problems:
            count = "one setting is wrong" if len(problems) == 1 else f"{len(problems)} settings are wrong"
            raise StackError(
                "\n  ".join([f"{count}:", *problems]),
                hint="mend it in the environment or in the file that VALKYR_CONFIG names; nothing was started",
            )

    async def _problems(self, room: Room) -> list[str]:
        code, said, complained = await run_module(
            room.module, "--check-settings", environment=self.environment, stdout=PIPE, stderr=PIPE
        )
        if code == 0:
            return []
        problems = said.decode(errors="replace").splitlines()
        words = complained.decode(errors="replace").strip().splitlines()
        return problems or [f"{room.name} {describe_exit(code)}: {words[-1] if words else 'it said nothing'}"]

    async def _migrate(self) -> None:
        log = self.settings.home.log("migrate")
        names = [room.name for room in self.settings.rooms]
        with log.open("ab") as output:
            code, _, _ = await run_module(
                "services.chassis.migrate", *names, environment=self.environment, stdout=output, stderr=output
            )
        if code != 0:
            raise StackError(
                f"the database {without_password(self.database_url)} cannot be used: {_last_line(log)}",
                hint=f"mend that, or unset VALKYR_DATABASE_URL to have one started here; everything is in {log}",
            )

    @property
    def environment(self) -> dict[str, str]:
        """The services' environment: their settings travel in it."""
        environment = {
            **self.settings.environment,
            "VALKYR_DATABASE_URL": self.database_url,
            "VALKYR_HOME": str(self.settings.home.folder),
            "VALKYR_PORT_BASE": str(self.settings.port_base),
        }
        for room in self.settings.rooms:  # whatever port a file of settings names: here the port base says
            environment[f"VALKYR_{room.name.upper()}__SERVER__PORT"] = str(room.port(self.settings.port_base))
        if environment.get("VALKYR_CONFIG"):  # named relative to where the stack was started, read elsewhere
            environment["VALKYR_CONFIG"] = str(Path(environment["VALKYR_CONFIG"]).expanduser().absolute())
        return environment

    def _write_state(self, *, ready: bool) -> None:
        state = {
            "ready": ready,
            "pid": os.getpid(),
            "database": without_password(self.database_url),
            "postgres": self._cluster.server_pid if self._cluster else None,
            "keeper": self._cluster.keeper.pid if self._cluster and self._cluster.keeper else None,
            "services": {
                service.room.name: {"pid": service.pid, "address": service.address, "log": str(service.log)}
                for service in self.services
            },
        }
        unfinished = self.settings.home.state.with_suffix(".new")
        try:
            unfinished.write_text(json.dumps(state, indent=2))
            unfinished.replace(self.settings.home.state)
        except OSError as error:  # a full disk must not take down what runs
            self._speech.say(f"{self.settings.home.state} could not be written: {error.strerror}", YELLOW)


async def _all(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Runs all at once; the first error cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ended(cluster: Cluster) -> None:
    """Waits in a daemon thread for the keeper's end: no polling, and nothing to join when the stack stops first."""
    loop, ended, keeper = asyncio.get_running_loop(), asyncio.Event(), cluster.keeper
    assert keeper is not None

    def wait() -> None:
        keeper.wait()
        with contextlib.suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


async def _to_its_end(work: Callable[[], None]) -> None:
    """In a thread; cancelled, still waits for it: a server half started could be neither used nor stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _start_again(cluster: Cluster) -> None:
    cluster.stop()
    cluster.start()


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    url = re.sub(r"(?<=[?&]password=)[^&]*", "***", url)
    return re.sub(r"(?<=://)([^:@/?]*):[^@/?]*@", r"\1:***@", url)
