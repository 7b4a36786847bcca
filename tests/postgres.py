"""A real PostgreSQL for the tests: one server per pytest run, shared by its workers; a fresh database per test.

It is the embedded one, or that of the folder which VALKYR_POSTGRES_BIN names.
The server lives in a folder of its own, in memory where there is room (fsync stays on, as the services demand), and
ends with the last process that owns it, however that ends; its keeper then removes the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from services.chassis.settings import DatabaseSettings
from services.local.data_folder import ADMIN, ROLE
from services.local.home import FileLock, Home
from services.local.postgres import Cluster

FOLDER_VARIABLE = "VALKYR_TESTS_POSTGRES"
PREFIX = f"valkyr-tests-{os.geteuid()}-"
ROOM_NEEDED = 2 << 30
SETTINGS = {"max_connections": "200", "shared_buffers": "64MB", "max_wal_size": "512MB", "min_wal_size": "80MB"}
SETTINGS |= {"dynamic_shared_memory_type": "mmap"}  # in the folder, so that a killed server leaves nothing elsewhere

T = TypeVar("T")
Migrate = Callable[[str, str], Awaitable[object]]


def name_the_folder() -> None:
    """Called once, before workers start: they inherit the name and so share the server."""
    os.environ[FOLDER_VARIABLE] = str(_base() / f"{PREFIX}{uuid.uuid4().hex[:12]}")


def wait_for_the_end(timeout: float = 60.0) -> None:
    """Returns when the server that the run has used is gone, with its folder. Raises TimeoutError."""
    folder = Path(os.environ.pop(FOLDER_VARIABLE))
    deadline = time.monotonic() + timeout
    while folder.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the PostgreSQL of the tests in {folder} does not end")
        time.sleep(0.01)


def patient(url: str, **settings: Any) -> DatabaseSettings:
    """For services under test: on a machine that is busy with other tests nothing takes too long."""
    bound = timedelta(seconds=20)
    bounds = {"acquire_timeout": bound, "statement_timeout": bound, "lock_timeout": bound}
    return DatabaseSettings(url=url, **bounds | settings)


class PostgresForTests:
    """The server of this run. Every method blocks and may be called inside or outside of an event loop's thread."""

    def __init__(self) -> None:
        _remove_what_killed_runs_left()
        home = Home(Path(os.environ[FOLDER_VARIABLE]))
        self.cluster = Cluster(
            home,
            settings=SETTINGS,
            binaries_folder=os.environ.get("VALKYR_POSTGRES_BIN") or None,
            durable_setup=False,
            remove_at_end=True,
        )
        self._numbers = itertools.count(1)
        self._worker = os.environ.get("PYTEST_XDIST_WORKER", "main")

    @property
    def admin_url(self) -> str:
        """The superuser's, in the database `postgres`."""
        return self.cluster.admin_url

    def admin_url_in(self, database_url: str) -> str:
        """The superuser's, in the database of `database_url`."""
        return database_url.replace(f"//{ROLE}@", f"//{ADMIN}@", 1)

    def execute(self, *statements: str, url: str | None = None) -> None:
        """Runs each statement by itself, as the superuser unless `url` says who."""

        async def run() -> None:
            connection = await asyncpg.connect(url or self.admin_url)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        in_a_thread(run())

    def fetch(self, query: str, *arguments: object, url: str | None = None) -> list[asyncpg.Record]:
        """The rows of one query."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(url or self.admin_url)
            try:
                rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
                return rows
            finally:
                await connection.close()

        return in_a_thread(run())

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A fresh database, a copy of `template`, as its URL; dropped at the end whoever is still connected."""
        name = f"test_{self._worker}_{os.getpid()}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield self.cluster.url_of(ROLE, name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def template(self, rooms: Sequence[str], migrate: Migrate) -> str:
        """The name of a database into which `migrate(url, room)` ran for each room, once per run of pytest."""
        digest = hashlib.sha256(" ".join(rooms).encode()).hexdigest()[:8]
        name = f"template_{digest}"
        lock = FileLock(self.cluster.home.folder / f"{name}.lock")
        if not lock.acquire(timeout=120):
            raise TimeoutError(f"another worker does not finish the template of {', '.join(rooms)}")
        try:
            if not self.fetch("SELECT 1 FROM pg_database WHERE datname = $1", name):
                self._fill(name, rooms, migrate)
        finally:
            lock.release()
        return name

    def _fill(self, name: str, rooms: Sequence[str], migrate: Migrate) -> None:
        unfinished = f"{name}_unfinished"
        self.execute(f"DROP DATABASE IF EXISTS {unfinished}", f"CREATE DATABASE {unfinished} OWNER {ROLE}")

        async def run() -> None:
            for room in rooms:
                await migrate(self.cluster.url_of(ROLE, unfinished), room)

        in_a_thread(run())
        self.execute(f"ALTER DATABASE {unfinished} RENAME TO {name}")


def in_a_thread(work: Coroutine[object, object, T]) -> T:
    """Runs `work` on an event loop of its own, in a thread of its own: the test's loop, if any, knows nothing of it."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _base() -> Path:
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM_NEEDED:
        return memory
    return Path(tempfile.gettempdir())


def _remove_what_killed_runs_left() -> None:
    """A keeper removes its folder; if it was killed too, the folder is still there and all its locks are free."""
    for folder in _base().glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another run is removing it as well
            if str(folder) != os.environ[FOLDER_VARIABLE] and folder.stat().st_mtime < time.time() - 60:
                _remove_if_unowned(Home(folder))


def _remove_if_unowned(home: Home) -> None:
    locks = [FileLock(path) for path in (home.owners_lock, home.start_lock, home.keeper_lock, home.cluster_lock)]
    try:
        if all(lock.try_acquire() for lock in locks):
            shutil.rmtree(home.folder, ignore_errors=True)
    finally:
        for lock in locks:
            lock.release()
