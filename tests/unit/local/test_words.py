"""What the stack says, and where its programs come from."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from services.local.binaries import find_binaries
from services.local.command import main
from services.local.errors import StackError
from services.local.process import describe_exit
from services.local.process_table import command_line, is_postgres_of
from services.local.speech import RED, Speech
from services.local.supervisor import without_password


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_only() -> None:
    for stream, environ, expected in [
        (Terminal(), {"TERM": "xterm"}, "\x1b[31mno\x1b[0m\n"),
        (Terminal(), {"NO_COLOR": "1"}, "no\n"),
        (io.StringIO(), {"TERM": "xterm"}, "no\n"),
    ]:
        Speech(stream, environ).say("no", RED)
        assert stream.getvalue() == expected


@pytest.mark.parametrize(
    ("code", "said"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_exit_is_described(code: int, said: str) -> None:
    assert describe_exit(code) == said


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/valkyr", "postgresql://me:***@host:5432/valkyr"),
        ("postgresql://me@/valkyr?host=/run", "postgresql://me@/valkyr?host=/run"),
        ("postgresql:///valkyr?user=me&password=secret", "postgresql:///valkyr?user=me&password=***"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_the_wheel_has_postgresql_18() -> None:
    assert find_binaries().major == 18


def test_a_folder_without_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"VALKYR_POSTGRES_BIN={tmp_path}: there is no postgres"):
        find_binaries(str(tmp_path))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'", "too old"),
        ("#!/bin/sh\nexit 4", "does not run"),
        ("", "does not run"),
    ],
    ids=["too old", "fails", "no program"],
)
def test_programs_that_will_not_do_are_refused(tmp_path: Path, script: str, message: str) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    with pytest.raises(StackError, match=message):
        find_binaries(str(tmp_path))


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in (
        "VALKYR_HOME",
        "VALKYR_PORT_BASE",
        "VALKYR_DATABASE_URL",
        "VALKYR_POSTGRES_BIN",
        "exit codes",
        "examples",
    ):
        assert word in said


def test_a_process_is_asked_before_it_is_signalled() -> None:
    assert "pytest" in command_line(os.getpid()) or "python" in command_line(os.getpid())
    assert is_postgres_of(os.getpid(), Path.cwd())
    assert not is_postgres_of(os.getpid(), Path("/nonexistent"))
    assert command_line(2**22 + 1) == ""
