"""A page of docs in one shell, from top to bottom: what it says to type is typed, what it shows is what comes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.chassis.settings import DEFAULT_PORT_BASE, PORT_OFFSETS
from services.local.home import PROJECT

PATIENCE = 60.0
"""Seconds until a block that only reads has to show what the page shows, and until any block has to end."""

LOOK = 0.3
READS = re.compile(r"/(?:Get|List|Watch|Wait|Find|Check|Validate|Diff|Merge|Resolve)\w*$")
WRITES = re.compile(r"\bvalkyr (?:graph save|runner) ")
CALL = re.compile(r"(?:\bvalkyr\.api\.\w+\.v1\.\w+|\bgrpc\.health\.v1\.Health|\$STORE|\$RUNNERS)/\w+")


@dataclass(frozen=True)
class Block:
    """Commands, and what the page says that they print; None where it says nothing."""

    line: int
    commands: str
    shown: str | None

    @property
    def only_reads(self) -> bool:
        return not WRITES.search(self.commands) and all(READS.search(call) for call in CALL.findall(self.commands))

    @property
    def is_refused(self) -> bool:
        return "ERROR:" in (self.shown or "")


def blocks(page: str) -> list[Block]:
    """The ```sh blocks in order; an output is the fenced block right below its commands."""
    found = re.finditer(r"^```sh\n(.*?)^```\n(?:```(?:json|text)\n(.*?)^```\n)?", page, re.DOTALL | re.MULTILINE)
    return [Block(page.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


def command_line_equivalents(page: str) -> list[str]:
    return re.findall(r"^\*CLI:\* `(.*)`$", page, re.MULTILINE)


def difference(shown: str, printed: str) -> str | None:
    """The first line that is shown and was not printed there; None if all is as shown.

    `...` alone stands for any lines, within a line for any text; indentation does not count.
    """
    wanted = [line.strip() for line in shown.splitlines()]
    lines = [line.strip() for line in printed.splitlines()]
    reached, furthest = {0}, ""
    for line in wanted:
        if line == "...":
            reached = set(range(min(reached), len(lines) + 1))
            continue
        pattern = re.compile(re.escape(line).replace(re.escape("..."), ".*"))
        reached = {at + 1 for at in reached if at < len(lines) and pattern.fullmatch(lines[at])}
        if not reached:
            return line
        furthest = line
    return None if len(lines) in reached else f"the end, after {furthest}"


class Shell:
    """One bash for the whole page, as one terminal would be."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, commands: str) -> tuple[int, str]:
        """The last command's exit code, and all that was printed."""
        mark = "=== the block has ended:"
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"eval {shlex.quote(commands)} </dev/null\nprintf '\\n%s %s\\n' {shlex.quote(mark)} $?\n")
        process.stdin.flush()
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        printed: list[str] = []
        try:
            for line in process.stdout:
                if line.startswith(mark):
                    return int(line.removeprefix(mark)), "".join(printed)
                printed.append(line)
        finally:
            watchdog.cancel()
        raise AssertionError(f"the shell ended within:\n{commands}\n{''.join(printed)}")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


@contextmanager
def a_shell(folder: Path, port_base: int) -> Iterator[Shell]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_")}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = Shell(kept | {"PATH": programs, "VALKYR_PORT_BASE": str(port_base), "NO_COLOR": "1", "TMPDIR": str(folder)})
    try:
        yield shell
    finally:
        shell.close()


def follow(shell: Shell, path: Path, port_base: int) -> None:
    """Runs the page's blocks and asks whether its command lines are some; a failure names the line that is not so.

    `port_base` is that of the stack that stands for the page's, which listens at the usual ports.
    """
    page = path.read_text()
    for block in blocks(page):
        follow_block(shell, block, f"docs/{path.name}:{block.line}", _elsewhere(block.commands, port_base))
    for line in command_line_equivalents(page):
        # Whether the command exists and takes these options; --help ends it before it does anything.
        code, printed = shell.run(f"{line} --help")
        assert code == 0, f"{line}: {printed}"


def _elsewhere(commands: str, port_base: int) -> str:
    for offset in PORT_OFFSETS.values():
        commands = commands.replace(f"127.0.0.1:{DEFAULT_PORT_BASE + offset}", f"127.0.0.1:{port_base + offset}")
    return commands


def follow_block(shell: Shell, block: Block, place: str, commands: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        code, printed = shell.run(commands)
        problem = difference(block.shown, printed.strip("\n")) if block.shown is not None else None
        if problem is None and (code == 0 or block.is_refused):
            return
        if not block.only_reads or time.monotonic() > deadline:
            expected = problem or "exit code 0"
            pytest.fail(f"{place}: expected {expected!r}, the block ended with {code} and printed\n{printed}")
        time.sleep(LOOK)
