"""The data folder of the embedded PostgreSQL, made whole or not at all; and what the server says, in plain words."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from services.local.binaries import Binaries
from services.local.errors import StackError
from services.local.home import Home
from services.local.identity import Identity

ADMIN, ROLE, DATABASE = "postgres", "valkyr", "valkyr"
GRAVE = ("FATAL:", "PANIC:", "ERROR:")


def check_version(home: Home, binaries: Binaries) -> None:
    """Raises StackError if another major version made the data."""
    try:
        found = (home.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if home.data.exists() and any(home.data.iterdir()):
            raise StackError(
                f"{home.data} is not a data folder of PostgreSQL, and not empty",
                hint="move it away, or set VALKYR_HOME",
            ) from None
        return
    if found != str(binaries.major):
        raise StackError(
            f"the data folder {home.data} was made by PostgreSQL {found}, and this is {binaries.major}",
            hint=f"set VALKYR_POSTGRES_BIN to the programs of PostgreSQL {found}, or VALKYR_HOME to another folder",
        )


def check_space(home: Home, needed: int) -> None:
    """Raises StackError if the disk has less than `needed` bytes free: better said now than by a crash."""
    free = shutil.disk_usage(home.folder).free
    if free < needed:
        raise disk_full(home, f"{free >> 20} MiB free, {needed >> 20} needed")


def make(home: Home, binaries: Binaries, identity: Identity, *, durable: bool) -> None:
    """initdb in a folder beside, renamed when complete: a start that dies half way leaves nothing half made.

    Makes the role and the database for the services, too. Without `durable` nothing is synced to the disk meanwhile.
    """
    unfinished = home.folder / "postgres.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    identity.own(unfinished)
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if binaries.major >= 17 else []
    sync = [] if durable else ["--no-sync"]
    initdb = (binaries.initdb, "-D", unfinished, "-U", ADMIN, "--encoding=UTF8", "--auth=trust", "--data-checksums")
    _run(home, identity.command(*initdb, *locale, "--locale=C", "--no-instructions", *sync), "")
    single: list[str | Path] = [binaries.postgres, "--single", "-j", "-D", unfinished]
    single += [] if durable else ["-c", "fsync=off"]
    _run(
        home,
        identity.command(*single, ADMIN),
        f"CREATE ROLE {ROLE} LOGIN;\n\nCREATE DATABASE {DATABASE} OWNER {ROLE};\n\n",
    )
    _run(home, identity.command(*single, DATABASE), "CREATE EXTENSION pg_stat_statements;\n\n")
    unfinished.rename(home.data)


def environment() -> dict[str, str]:
    """The server's: none of PGHOST, PGDATA and the like, and English messages, for they are read here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "LC_MESSAGES": "C", "TZ": "UTC"}


def explained(home: Home, text: str) -> StackError:
    """One plain sentence from what the server said."""
    if "No space left on device" in text:
        return disk_full(home, "PostgreSQL could not write")
    lines = [line for line in text.splitlines() if line.strip()]
    grave = [line for line in lines if any(word in line for word in GRAVE)]
    said = [*lines[-1:], *grave[-1:]] or ["it said nothing"]
    return StackError(f"PostgreSQL did not start: {said[-1].strip()}", hint=log_hint(home))


def log_hint(home: Home) -> str:
    """Where the whole story is."""
    return f"read {home.logs / 'postgres.log'}"


def disk_full(home: Home, detail: str) -> StackError:
    """The disk is full, with how to go on."""
    return StackError(
        f"the disk that holds {home.folder} is full: {detail}",
        hint="free some space, or set VALKYR_HOME to a folder on another disk; what was committed is safe",
    )


def _run(home: Home, command: list[str], text: str) -> None:
    result = subprocess.run(  # noqa: S603
        command, input=text, capture_output=True, text=True, timeout=300, check=False, env=environment()
    )
    if result.returncode != 0 or any(word in result.stderr for word in GRAVE):
        with home.log("postgres").open("a") as log:
            log.write(result.stdout + result.stderr)
        raise explained(home, result.stderr)
