"""What an operator sets for EmailModule: which servers it may reach, and the credentials that graphs name.

Credentials are files, so that no graph, result, log or environment holds them: below one folder a folder for each name
with `username`, `password` and `host`, the server (or servers, a line each) that may be told them. A mounted Secret is
such a folder. They are read for every mail, so that they can be changed under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from valkyr.module import PermanentError
from valkyr.modules.reach import Reach

CREDENTIALS_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Credentials:
    """Never shown, not in a traceback either."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EmailRules(Reach):
    """`credentials_folder` is as above; `ca_file`: PEM certificates to trust instead of the usual ones."""

    credentials_folder: str | None = None
    default_timeout: timedelta = timedelta(seconds=30)
    max_timeout: timedelta = timedelta(minutes=5)
    ca_file: str | None = None

    def credentials(self, name: str, host: str) -> Credentials:
        """Those called `name`, which matches CREDENTIALS_NAME. PermanentError if there are none, or they are for other
        servers: a graph must not be able to send them to one of its own. Reads files."""
        if self.credentials_folder is None:
            raise PermanentError(f"no credentials {name!r}: the operator has set no folder with credentials")
        folder = Path(self.credentials_folder) / name
        hosts = {line.strip().lower() for line in _read(folder, "host").splitlines()}
        if host.lower().removesuffix(".") not in hosts - {""}:
            raise PermanentError(f"the credentials {name!r} are not for {host}; its file 'host' has to name it")
        return Credentials(_read(folder, "username"), _read(folder, "password"))


def _read(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as file:
            text = file.read(_MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise PermanentError(f"the credentials {folder.name!r} have no {name} that can be read: {why}") from None
    return text.rstrip("\r\n")
