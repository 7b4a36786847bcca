"""The embedded PostgreSQL as a server: starts it, shares it between owners, stops it with the last of them.

Nothing here believes a pid file: what lives is known by locks (see keeper.py). After kill -9 of the server, of its
keeper or of its owners the next `start` recovers with all that was committed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from services.local import data_folder
from services.local.binaries import Binaries, find_binaries
from services.local.data_folder import ADMIN, DATABASE, ROLE
from services.local.errors import StackError
from services.local.home import FileLock, Home, make_private
from services.local.identity import Identity, choose_identity
from services.local.process_table import is_postgres_of

KEEPER = Path(__file__).with_name("keeper.py")
PORT = 5432
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "shared_preload_libraries": "pg_stat_statements",
    "log_line_prefix": "%m [%p] %a ",
    "log_checkpoints": "off",
    "cluster_name": "valkyr",
}

DYING_KEEPER = 0.3
"""Seconds for which one that was killed may still hold its lock, until the kernel has taken it apart."""


@dataclass(slots=True)
class Cluster:
    """One data folder and, while it is owned, one server. `start` and `stop` block; one owner per object."""

    home: Home
    settings: Mapping[str, str] = field(default_factory=dict)
    binaries_folder: str | None = None
    start_timeout: float = 120.0
    stop_timeout: float = 30.0
    durable_setup: bool = True
    space_needed: int = 128 << 20
    remove_at_end: bool = False
    keeper: subprocess.Popen[str] | None = field(default=None, init=False)
    _owner: FileLock | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """For the services: the role that owns the database `valkyr`."""
        return self.url_of(ROLE, DATABASE)

    @property
    def admin_url(self) -> str:
        """The superuser, in the database `postgres`."""
        return self.url_of(ADMIN, ADMIN)

    def url_of(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.home.socket_folder()), safe='/')}&port={PORT}"

    @property
    def server_pid(self) -> int | None:
        """The postmaster's, while its pid file is there."""
        try:
            return int((self.home.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def start(self) -> None:
        """Becomes an owner, and starts the server unless another owner has. Raises StackError with a mend."""
        self.home.create()
        owner = FileLock(self.home.owners_lock)
        if not owner.acquire(shared=True, timeout=self.stop_timeout + 30):
            raise StackError(f"the PostgreSQL of {self.home.folder} does not end", hint=data_folder.log_hint(self.home))
        start = FileLock(self.home.start_lock)
        try:
            if not start.acquire(timeout=self.start_timeout):
                raise StackError(
                    f"another start in {self.home.folder} does not end", hint=data_folder.log_hint(self.home)
                )
            if not self._is_served():
                self._start_server()
        except BaseException:
            owner.release()
            raise
        finally:
            start.release()
        self._owner = owner

    def stop(self, *, wait: bool = True) -> None:
        """Gives up ownership; with `wait`, returns when the server has ended, bounded, if we were its last owner."""
        if self._owner is not None:
            self._owner.release()
            self._owner = None
        if self.keeper is None:
            return
        if not wait:
            self.keeper.returncode = 0  # it outlives us for the other owners: disowned, or Popen warns of a child left
        else:
            try:
                self.keeper.wait(self.stop_timeout + 25)
            except subprocess.TimeoutExpired:
                raise StackError("PostgreSQL did not stop", hint=data_folder.log_hint(self.home)) from None
        self.keeper = None

    def is_running(self) -> bool:
        """False when the keeper that we started has ended: the server has crashed or was stopped by somebody."""
        return self._owner is not None and (self.keeper is None or self.keeper.poll() is None)

    def _is_served(self) -> bool:
        """A keeper holds the cluster and its server is ready. Without its keeper, a server is ended first."""
        lock = FileLock(self.home.cluster_lock)
        if lock.try_acquire():
            lock.release()
            self._refuse_foreign_server()
            return False
        if self._keeper_lives():
            return True
        self._end_orphan(lock)
        return False

    def _keeper_lives(self) -> bool:
        keeper = FileLock(self.home.keeper_lock)
        if keeper.acquire(timeout=DYING_KEEPER):
            keeper.release()
            return False
        return True

    def _end_orphan(self, lock: FileLock) -> None:
        """The keeper is gone; the leash has told the server to stop. Waits for it, and tells it again if need be."""
        for number, bound in ((None, 5.0), (signal.SIGINT, self.stop_timeout), (signal.SIGQUIT, 10.0)):
            pid = self.server_pid
            if number is not None and pid is not None and is_postgres_of(pid, self.home.data):
                os.kill(pid, number)
            if lock.acquire(timeout=bound):
                lock.release()
                return
        raise StackError(
            f"a PostgreSQL left over in {self.home.data} does not end (pid {self.server_pid})",
            hint=f"end it with `kill -9 {self.server_pid}` and start again; nothing committed is lost",
        )

    def _refuse_foreign_server(self) -> None:
        pid = self.server_pid
        if pid is not None and is_postgres_of(pid, self.home.data):
            raise StackError(
                f"the data folder {self.home.data} is in use by a PostgreSQL that this stack did not start (pid {pid})",
                hint=f"stop it with `kill -INT {pid}`, or set VALKYR_HOME to another folder",
            )

    def _start_server(self) -> None:
        binaries = find_binaries(self.binaries_folder)
        data_folder.check_version(self.home, binaries)
        data_folder.check_space(self.home, self.space_needed)
        identity = choose_identity(binaries.postgres, self.home.folder)
        sockets = self.home.socket_folder()
        make_private(sockets, identity.uid if identity.uid is not None else os.geteuid())
        identity.own(sockets)
        if not (self.home.data / "PG_VERSION").exists():
            data_folder.make(self.home, binaries, identity, durable=self.durable_setup)
        self._launch(binaries, identity, sockets)

    def _launch(self, binaries: Binaries, identity: Identity, sockets: Path) -> None:
        settings = {**SETTINGS, "unix_socket_directories": str(sockets), **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = identity.command(
            binaries.postgres, "-D", self.home.data, "-p", str(PORT), *options, death_signal=signal.SIGINT
        )
        log = self.home.log("postgres")
        seen = log.stat().st_size if log.exists() else 0
        orders = {
            "command": command,
            "data": str(self.home.data),
            "sockets": str(sockets),
            "cluster_lock": str(self.home.cluster_lock),
            "keeper_lock": str(self.home.keeper_lock),
            "owners_lock": str(self.home.owners_lock),
            "log": str(log),
            "env": data_folder.environment(),
            "start_timeout": self.start_timeout,
            "stop_timeout": self.stop_timeout,
            "remove": str(self.home.folder) if self.remove_at_end else None,
        }
        self.keeper = _spawn_keeper(orders, log)
        answer = self._await_keeper(self.keeper)
        if "error" in answer:
            self.keeper = None
            raise data_folder.explained(
                self.home, log.read_bytes()[seen:].decode(errors="replace") if log.exists() else ""
            )

    def _await_keeper(self, keeper: subprocess.Popen[str]) -> dict[str, object]:
        assert keeper.stdout is not None
        with keeper.stdout:
            line = keeper.stdout.readline()
        answer: dict[str, object] = json.loads(line) if line else {"error": "keeper"}
        if "error" in answer:
            keeper.wait(self.stop_timeout + 25)
        return answer


def _spawn_keeper(orders: dict[str, object], log: Path) -> subprocess.Popen[str]:
    with log.open("a") as errors:
        keeper = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", str(KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is for the stack, which stops PostgreSQL last
            cwd="/",
        )
    assert keeper.stdin is not None
    with keeper.stdin:
        json.dump(orders, keeper.stdin)
    return keeper
