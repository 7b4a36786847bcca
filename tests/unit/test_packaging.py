"""What installing relies on: the lock, packages that do not overwrite each other; and words that stay in one place."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path

from hatch_build import generate
from services.chassis.settings import TOP_LEVEL_VARIABLES

ROOT = Path(__file__).resolve().parents[2]


def test_no_file_belongs_to_two_installed_distributions() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for distribution in distributions():
        for file in distribution.files or ():
            if file.suffix in (".py", ".pyi", ".so"):
                owners[str(file)].add(distribution.metadata["Name"].lower())
    shared = {file: names for file, names in owners.items() if len(names) > 1}
    assert shared == {}


def test_the_lock_holds_hashes_and_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if "://" in line or line.startswith("-")] == []
    pinned = [line for line in lines if re.match(r"^[A-Za-z0-9]", line)]
    assert len(pinned) > 50
    assert all(re.match(r"^[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+", line) and line.endswith("\\") for line in pinned)


def test_the_types_of_valkyr_are_for_its_users_too() -> None:
    """PEP 561: without the marker a type checker ignores every annotation of the installed package."""
    assert (ROOT / "valkyr" / "py.typed").is_file()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["valkyr"]}


def test_stubs_of_a_deleted_proto_are_removed(tmp_path: Path) -> None:
    protos = tmp_path / "protos/valkyr/api"
    for name in ("kept", "gone"):
        (protos / name / "v1").mkdir(parents=True)
        package = f"valkyr.api.{name}.v1"
        (protos / name / "v1" / f"{name}.proto").write_text(f'syntax = "proto3"; package {package}; message M {{}}')
    assert len(generate(tmp_path)) == 8
    (protos / "gone/v1/gone.proto").unlink()
    assert {path.name.partition("_pb2")[0] for path in generate(tmp_path)} == {"kept"}
    assert not (tmp_path / "valkyr/api/gone").exists()
    assert (tmp_path / "valkyr/api/kept/v1/kept_pb2.py").is_file()


def test_status_codes_stand_in_one_table() -> None:
    users = [
        path.relative_to(ROOT).as_posix()
        for folder in ("valkyr", "services")
        for path in (ROOT / folder).rglob("*.py")
        if "valkyr/api" not in path.as_posix() and re.search(r"\bgrpc\.StatusCode\b", path.read_text())
    ]
    assert users == ["valkyr/rpc/status.py"]


def test_every_variable_that_the_code_reads_is_known_to_the_settings() -> None:
    read = {
        name
        for folder in ("valkyr", "services", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r'"(VALKYR_[A-Z_]+)"', path.read_text())
        if "__" not in name
    }
    assert read - set(TOP_LEVEL_VARIABLES) == set()
