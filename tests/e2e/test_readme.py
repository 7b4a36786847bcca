"""What the README shows works as it is written there, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.local.home import PROJECT
from services.local.stack import LocalStack
from tests.free_ports import a_port_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGES = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_workflow_program_and_module_run_as_written(tmp_path: Path) -> None:
    [workflow] = blocks("yaml")
    [program, charge_card] = blocks("python")
    (tmp_path / "greet.yaml").write_text(workflow)
    (tmp_path / "my_modules.py").write_text(charge_card)
    (tmp_path / "charge.yaml").write_text(
        "workflow: {name: charge}\nnodes: [{nodeId: charge}]\n"
        "modules: [{nodeId: charge, className: ChargeCard, config: {card: visa, cents: 5}}]\n"
    )
    port = a_port_base()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_")}
    search = {"PYTHONPATH": f"{PROJECT}:{tmp_path}"}
    environment = kept | search | {"VALKYR_PORT_BASE": str(port), "NO_COLOR": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    modules = {"VALKYR_EXECUTOR__RUNNER__MODULES": "my_modules"}
    with LocalStack(tmp_path / "home", port, extra_env=search | modules):
        run("-m", "valkyr.cli", "graph", "save", "greet.yaml")
        greeted = run("-m", "valkyr.cli", "run", "greet", "--payload", '{"title": "Dr", "name": "Ada"}', "--watch")
        assert "SKIPPED  brief" in greeted
        assert "SUCCESS  answer" in greeted

        (tmp_path / "program.py").write_text(program.replace("Client()", f"Client({addresses(port)})"))
        assert "SUCCESS {'done': 'Hello, Ada'}" in run("program.py")

        run("-m", "valkyr.cli", "graph", "save", "charge.yaml")
        assert '"charged": 5' in run("-m", "valkyr.cli", "run", "charge", "--wait")


@pytest.mark.parametrize("page", sorted(path.relative_to(PROJECT).as_posix() for path in PAGES))
def test_every_link_of_the_pages_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", (PROJECT / page).read_text())
    assert [link for link in links if not (PROJECT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", sorted(path.relative_to(PROJECT).as_posix() for path in PAGES))
def test_every_file_that_the_pages_name_exists(page: str) -> None:
    named = re.findall(
        r"`((?:services|valkyr|tests|deploy|docs|examples|protos)/[\w./-]+)`", (PROJECT / page).read_text()
    )
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_the_readmes_map_names_every_page() -> None:
    map_of_pages = (PROJECT / "README.md").read_text()
    assert [path.name for path in (PROJECT / "docs").glob("*.md") if f"(docs/{path.name})" not in map_of_pages] == []


def addresses(port: int) -> str:
    """The README's stack has the default ports; this one has others."""
    return f"graph_store='127.0.0.1:{port}', executor='127.0.0.1:{port + 1}'"
