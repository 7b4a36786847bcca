"""docs/operations.md in one shell, from top to bottom: what it says to type is typed, what it shows is what comes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from services.breaker.settings import BreakerSettings
from services.chassis.settings import DEFAULT_PORT_BASE, PORT_OFFSETS
from services.dlq.settings import DlqSettings
from services.executor.settings import ExecutorSettings
from services.local.home import PROJECT
from services.local.stack import LocalStack
from tests.free_ports import a_port_base
from valkyr import errors
from valkyr.duration import format_duration
from valkyr.flow.results import FailureType

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGE = PROJECT / "docs" / "operations.md"
PATIENCE = 60.0
"""Seconds until a block that only reads has to show what the page shows, and until any block has to end."""

LOOK = 0.3
ROOMS: dict[str, type[BaseModel]] = {"executor": ExecutorSettings, "breaker": BreakerSettings, "dlq": DlqSettings}
READS = re.compile(r"/(?:Get|List|Watch|Wait|Find|Check)\w*$")
CALL = re.compile(r"\b(?:valkyr\.api\.\w+\.v1\.\w+|grpc\.health\.v1\.Health)/\w+")


@dataclass(frozen=True)
class Block:
    """Commands, and what the page says that they print; None where it says nothing."""

    line: int
    commands: str
    shown: str | None

    @property
    def only_reads(self) -> bool:
        return all(READS.search(call) for call in CALL.findall(self.commands))

    @property
    def is_refused(self) -> bool:
        return "ERROR:" in (self.shown or "")


def blocks(page: str) -> list[Block]:
    """The ```sh blocks in order; an output is the fenced block right below its commands."""
    found = re.finditer(r"^```sh\n(.*?)^```\n(?:```(?:json|text)\n(.*?)^```\n)?", page, re.DOTALL | re.MULTILINE)
    return [Block(page.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


def rehearsal(page: str) -> dict[str, str]:
    """The settings of the stack that the page rehearses on."""
    [line] = [line for line in page.splitlines() if line.endswith(" make up")]
    return {name: value for name, value in re.findall(r"(VALKYR_\w+)=(\S+)", line) if name != "VALKYR_HOME"}


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


def follow(shell: Shell, found: Sequence[Block], commands_of: dict[str, str]) -> None:
    """Runs the blocks; AssertionError names the page's line that is not so."""
    for block in found:
        commands = block.commands
        for shown, real in commands_of.items():
            commands = commands.replace(shown, real)
        deadline = time.monotonic() + PATIENCE
        while True:
            code, printed = shell.run(commands)
            problem = difference(block.shown, printed.strip("\n")) if block.shown is not None else None
            if problem is None and (code == 0 or block.is_refused):
                break
            if not block.only_reads or time.monotonic() > deadline:
                pytest.fail(
                    f"docs/operations.md:{block.line}: expected {problem or 'exit code 0'!r}, "
                    f"the block ended with {code} and printed\n{printed}"
                )
            time.sleep(LOOK)


def test_the_operators_day_goes_as_the_page_says(tmp_path: Path) -> None:
    page = PAGE.read_text()
    port_base = a_port_base()
    ports = {
        f"127.0.0.1:{DEFAULT_PORT_BASE + offset}": f"127.0.0.1:{port_base + offset}" for offset in PORT_OFFSETS.values()
    }
    with (
        LocalStack(tmp_path / "home", port_base, extra_env=rehearsal(page)),
        a_shell(tmp_path, port_base) as shell,
    ):
        follow(shell, blocks(page), ports)
        for line in command_line_equivalents(page):
            # Whether the command exists and takes these options; --help ends it before it does anything.
            code, printed = shell.run(f"{line} --help")
            assert code == 0, f"{line}: {printed}"


def command_line_equivalents(page: str) -> list[str]:
    return re.findall(r"^\*CLI:\* `(.*)`$", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("shown", "printed", "problem"),
    [
        pytest.param('{\n  "a": 1\n}', '{\n    "a": 1\n}', None, id="indentation-does-not-count"),
        pytest.param('{\n...\n"c": 3\n}', '{\n"a": 1,\n"b": 2,\n"c": 3\n}', None, id="lines-left-out"),
        pytest.param('{\n...\n"a": 1\n}', '{\n"a": 1\n}', None, id="no-line-left-out"),
        pytest.param('"id": "..."', '"id": "7"', None, id="text-left-out"),
        pytest.param('...\n"a": 1\n...', '"a": 1\n"a": 2\n"a": 1\n"b"', None, id="the-same-line-twice"),
        pytest.param('{\n"a": 2\n}', '{\n"a": 1\n}', '"a": 2', id="another-value"),
        pytest.param('{\n"b": 2\n}', '{\n"a": 1,\n"b": 2\n}', '"b": 2', id="a-line-not-shown"),
        pytest.param('{\n"a": 1', '{\n"a": 1\n}', 'the end, after "a": 1', id="more-than-is-shown"),
        pytest.param('{\n...\n"c": 3\n}', '{\n"a": 1\n}', '"c": 3', id="a-line-that-never-comes"),
        pytest.param('"a": "x.y"', '"a": "xzy"', '"a": "x.y"', id="a-dot-is-a-dot"),
    ],
)
def test_an_output_is_compared_line_by_line(shown: str, printed: str, problem: str | None) -> None:
    assert difference(shown, printed) == problem


def test_every_block_of_the_page_is_found() -> None:
    page = PAGE.read_text()
    found = blocks(page)
    assert len(found) == page.count("```sh\n")
    assert sum(block.shown is not None for block in found) == page.count("```json\n") + page.count("```text\n")
    assert {"VALKYR_BREAKER__FAILURE_THRESHOLD", "VALKYR_BREAKER__TIMEOUT_DURATION"} <= rehearsal(page).keys()
    assert len(command_line_equivalents(page)) == page.count("*CLI:*")


def table_below(page: str, heading: str, column: str) -> list[list[str]]:
    """The cells of the rows of the table whose first column is named so."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    first = next(at for at, row in enumerate(rows) if row[0] == column)
    return rows[first + 2 :]


def default_of(key: str) -> object:
    """Of a setting, as it is written in YAML."""
    section, *names = key.split(".")
    model: type[BaseModel] = ROOMS[section]
    for name in names[:-1]:
        [annotation] = [field.annotation for field in model.model_fields.values() if field.alias == name]
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    [default] = [field.default for field in model.model_fields.values() if field.alias == names[-1]]
    return format_duration(default) if isinstance(default, timedelta) else default


def test_settings_are_called_so_and_have_these_defaults() -> None:
    rows = table_below(PAGE.read_text(), "Settings that matter", "Setting")
    assert len(rows) > 10
    for keys, defaults, _ in rows:
        [first, *others] = [key.strip("`") for key in keys.split(", ")]
        named = [first, *(key if key.count(".") else f"{first.rpartition('.')[0]}.{key}" for key in others)]
        shown = [str(default_of(key)).replace("True", "true") for key in named]
        assert defaults.split(", ") == shown, keys


def test_reasons_of_refusals_exist() -> None:
    reasons = {value.reason for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "reason")}
    for row in table_below(PAGE.read_text(), "What a refusal looks like", "`reason`")[:-1]:
        assert set(row[0].split(", ")) <= reasons


def test_events_are_logged_somewhere() -> None:
    code = "".join(path.read_text() for room in ("services", "valkyr") for path in (PROJECT / room).rglob("*.py"))
    named = [name for row in table_below(PAGE.read_text(), "Logs", "Event") for name in re.findall(r"`(.+?)`", row[0])]
    assert [name for name in named if f'"{name}"' not in code] == []


def test_outcomes_of_attempts_are_those_there_are() -> None:
    named = [row[0] for row in table_below(PAGE.read_text(), "Why did this execution fail?", "`outcome` of an attempt")]
    assert {name for names in named for name in names.split(", ")} == {*FailureType, "SNOOZED", "RELEASED", "OMITTED"}
