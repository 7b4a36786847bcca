"""valkyr new: what it makes works, and nothing that is there is lost."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from services.local.home import PROJECT
from tests.unit.cli.test_command_line import environment
from valkyr.cli.exits import ExitCode
from valkyr.cli.new_command import package_of
from valkyr.errors import InvalidRequest


def valkyr_new(*arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
    return _run("-m", "valkyr.cli", "new", *arguments, at=at)


def _run(*arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=at,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(PYTHONPATH=str(PROJECT)),
        check=False,
    )


def test_a_new_project_is_whole_and_its_own_tests_pass(tmp_path: Path) -> None:
    made = valkyr_new("my-payments", at=tmp_path)
    assert made.returncode == ExitCode.OK, made.stderr
    folder = tmp_path / "my-payments"
    listed = {tmp_path / line for line in made.stdout.splitlines()}
    assert listed == {path for path in folder.rglob("*") if path.is_file()}
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], "my_payments.yaml" in {path.name for path in listed}) == ("my-payments", True)
    tested = _run("-m", "pytest", "-q", "-p", "no:cacheprovider", at=folder)
    assert tested.returncode == 0, tested.stdout
    assert "5 passed" in tested.stdout


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("weeks")
    refused = valkyr_new("mine", at=tmp_path)
    assert refused.returncode == ExitCode.CONFLICT
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.txt"]
    assert valkyr_new("mine", "--into", "mine/new", at=tmp_path).returncode == ExitCode.OK


@pytest.mark.parametrize("name", ["", "1st", "a b", "../up", "class", "valkyr", "Tests", "ä"])
def test_what_python_cannot_import_is_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="Python package"):
        package_of(name)


@pytest.mark.parametrize("name", ["json", "Email", "concurrent", "pytest", "pydantic", "Typing-Extensions", "PyYAML"])
def test_what_would_hide_a_module_of_python_or_of_what_is_installed_is_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="would hide"):
        package_of(name)
