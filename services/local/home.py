"""VALKYR_HOME: where a stack keeps its data, sockets, logs and locks; one stack per home."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from services.local.errors import StackError

SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 103  # bytes: macOS has 104 with the closing zero, Linux 108; `.lock` is beside it, no socket
LOG_LIMIT = 50 << 20
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Home:
    """The places below one folder."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "postgres"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        """What runs: pids and addresses, as JSON, rewritten at every change."""
        return self.folder / "stack.json"

    @property
    def stack_lock(self) -> Path:
        return self.folder / "stack.lock"

    @property
    def cluster_lock(self) -> Path:
        return self.folder / "postgres.lock"

    @property
    def owners_lock(self) -> Path:
        return self.folder / "postgres.owners"

    @property
    def start_lock(self) -> Path:
        return self.folder / "postgres.start"

    @property
    def keeper_lock(self) -> Path:
        return self.folder / "postgres.keeper"

    def create(self) -> None:
        """Makes the folders; raises StackError where that is impossible."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"VALKYR_HOME {self.folder} cannot be used: {error.strerror}", hint="set VALKYR_HOME to another folder"
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise StackError(
                f"VALKYR_HOME {self.folder} may not be written by this user", hint="set VALKYR_HOME to another folder"
            )

    def log(self, name: str) -> Path:
        """The log of `name`; one that has grown large is kept once, as `<name>.log.1`."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_name(path.name + ".1"))
        return path

    def shorten_logs(self, limit: int = LOG_LIMIT) -> None:
        """Each log of more than `limit` bytes is kept once, as `<name>.log.1`, and begun anew in place, since whoever
        writes it has it open to append; what is written in that very moment is lost. OSError, such as a full disk."""
        for path in self.logs.glob("*.log"):
            if path.stat().st_size > limit:
                unfinished = path.with_name(path.name + ".new")
                shutil.copyfile(path, unfinished)
                unfinished.replace(path.with_name(path.name + ".1"))
                os.truncate(path, 0)

    def socket_folder(self) -> Path:
        """`run` in the home, or, where that path is too long for a socket, a folder of its own in the temp folder."""
        inside = self.folder / "run"
        if len(os.fsencode(inside / SOCKET_NAME)) <= SOCKET_PATH_LIMIT:
            return inside
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        for temp in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - made private, and checked, before use
            outside = temp / f"valkyr-{os.geteuid()}-{digest}"
            if len(os.fsencode(outside / SOCKET_NAME)) <= SOCKET_PATH_LIMIT:
                return outside
        raise StackError(f"no path for the socket of {self.folder} is short enough", hint="set TMPDIR to a short path")


def home_at(path: str | os.PathLike[str] | None) -> Home:
    """The home named by VALKYR_HOME, or `.valkyr` beside the project."""
    return Home(Path(path).expanduser().absolute() if path else PROJECT / ".valkyr")


def make_private(folder: Path, owner: int) -> None:
    """Makes `folder`, or refuses one in a shared place that somebody else has made there before us."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()):
            raise StackError(
                f"{folder} is not a folder of this user, so no socket is put there", hint=f"remove {folder}"
            ) from None


class FileLock:
    """An flock that the kernel drops when this process dies. The file stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """True if the lock is ours now."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def acquire(self, *, shared: bool = False, timeout: float) -> bool:
        """Waits up to `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.try_acquire(shared=shared):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def write(self, text: str) -> None:
        """Leaves a note for whoever finds the lock taken."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
