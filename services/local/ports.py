"""Whether ports are free, and if not, who has them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from services.local.errors import StackError
from services.local.process_table import command_line
from services.local.rooms import DEFAULT_PORT_BASE, HOST, Room

LISTENING = "0A"


def parse_port_base(text: str | None) -> int:
    """VALKYR_PORT_BASE as a number; raises StackError naming what it takes."""
    if not text:
        return DEFAULT_PORT_BASE
    if not (text.isascii() and text.isdigit() and 1024 <= int(text) <= 65000):
        raise StackError(
            f"VALKYR_PORT_BASE={text} is not a port from 1024 to 65000",
            hint="the services listen on it and the ones above",
        )
    return int(text)


def require_free(rooms: Sequence[Room], port_base: int) -> None:
    """Raises StackError naming every port that is taken, and by whom where the system tells."""
    taken = [(room, room.port(port_base)) for room in rooms if not is_free(room.port(port_base))]
    if taken:
        listed = " and ".join(f"port {port} (for {room.name}) is in use{_by_whom(port)}" for room, port in taken)
        raise StackError(
            listed, hint=f"end what uses it, or set VALKYR_PORT_BASE, for example VALKYR_PORT_BASE={port_base + 100}"
        )


def is_free(port: int) -> bool:
    """Whether a server could listen there now; connections that linger from an earlier one do not matter."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _by_whom(port: int) -> str:
    """` by pid 12 (command line)`, or nothing: only Linux tells, and only about processes we may look into."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        if any(_target(link) in sockets for link in process.glob("fd/*")):
            return f" by pid {process.name} ({command_line(int(process.name))[:80]})"
    return ""


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # it was closed meanwhile, or is not ours to look at
        return ""


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(columns[9])
    return inodes
