"""The last line of `make test` counts what every run has said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.total import main


def results(folder: Path, name: str, code: int = 0, *, tests: int, failures: int = 0, errors: int = 0) -> str:
    file = folder / name
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="1" time="1.5"'
    file.write_text(f'<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite {counts}/></testsuites>')
    return f"{file}={code}"


def test_two_runs_are_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([results(tmp_path, "first", tests=10), results(tmp_path, "second", tests=6)]) == 0
    assert capsys.readouterr().out == "14 passed, 2 skipped in 3.00s\n"


@pytest.mark.parametrize(
    ("code", "second", "said"),
    [
        (1, {"tests": 5, "failures": 2}, "2 failed, 11 passed, 2 skipped in 3.00s"),
        (1, {"tests": 5, "errors": 1}, "12 passed, 2 skipped, 1 errors in 3.00s"),
        (2, {"tests": 5}, "13 passed, 2 skipped, the second run broke off (exit code 2) in 3.00s"),
        (5, {"tests": 1}, "9 passed, 2 skipped, the second run broke off (exit code 5) in 3.00s"),
        (4, None, "9 passed, 1 skipped, the second run broke off (exit code 4) in 1.50s"),
    ],
    ids=["a failure", "an error", "interrupted", "no tests", "no results"],
)
def test_whatever_is_wrong_in_any_run_fails_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, second: dict[str, int] | None, said: str
) -> None:
    first = results(tmp_path, "first", tests=10)
    other = f"{tmp_path / 'second'}={code}" if second is None else results(tmp_path, "second", code, **second)
    assert main([first, other]) == 1
    assert capsys.readouterr().out == said + "\n"
