"""Who PostgreSQL runs as. It refuses root, so root lends it an unprivileged user that exists.

No user is made and no folder's permissions are opened: where that user cannot reach the data or the binaries (a
checkout below a folder that only root may enter) the server keeps one capability, to search folders or to pass them.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from services.local.errors import StackError

LEASH = Path(__file__).with_name("leash.py")
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
UNPRIVILEGED_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Identity:
    """`uid` None: as ourselves. `capability`: the number of the one capability kept, Linux only."""

    uid: int | None = None
    gid: int | None = None
    capability: int | None = None

    def command(self, *command: str | Path, death_signal: int | None = None, cwd: Path | None = None) -> list[str]:
        """The command line that runs `command` as this identity, in `cwd` if given.

        With `death_signal`, the process gets that signal when its parent dies; the parent must then put its own pid
        into LEASH_PARENT of the environment.
        """
        wish: dict[str, object] = {"uid": self.uid, "gid": self.gid, "capability": self.capability}
        wish |= {"signal": death_signal, "cwd": None if cwd is None else str(cwd)}
        return [sys.executable, "-I", "-S", str(LEASH), json.dumps(wish), *map(str, command)]

    def own(self, folder: Path) -> None:
        """Makes `folder` (which exists) this identity's, and private."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)


def choose_identity(postgres: Path, folder: Path) -> Identity:
    """As ourselves, or, for root, the least that can execute `postgres` and enter `folder`. Raises StackError."""
    if os.geteuid() != 0:
        return Identity()
    user = _unprivileged_user()
    tried = ""
    for capability in (None, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        identity = Identity(user.pw_uid, user.pw_gid, capability)
        probe = identity.command(postgres, "--version", cwd=folder)
        result = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
        if result.returncode == 0:
            return identity
        tried = result.stderr.strip().rpartition("\n")[2]
    raise StackError(
        f"PostgreSQL does not run as root, and the user {user.pw_name!r} cannot run {postgres} in {folder}: {tried}",
        hint="start the stack as an ordinary user, or set VALKYR_HOME to a folder that user can reach",
    )


def _unprivileged_user() -> pwd.struct_passwd:
    for name in UNPRIVILEGED_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError(
        "PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody' to run it as",
        hint="start the stack as an ordinary user, or set VALKYR_DATABASE_URL to a PostgreSQL of your own",
    )
