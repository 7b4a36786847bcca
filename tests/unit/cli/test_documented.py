"""docs/cli.md names every graph command, and the help of each says what it does and teaches by an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from services.local.home import PROJECT
from valkyr.cli.main import app

PAGE = (PROJECT / "docs" / "cli.md").read_text()


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


GRAPH_COMMANDS = dict(commands(get_command(app).commands["graph"], "graph "))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(GRAPH_COMMANDS))
def test_the_page_of_the_command_line_names_every_graph_command(name: str) -> None:
    table = PAGE.partition("## Commands")[2].partition("## Graph files")[0]
    assert re.search(rf"`{re.escape(name)}[ `]", table)


@pytest.mark.parametrize("name", sorted(GRAPH_COMMANDS))
def test_the_first_line_of_help_is_a_sentence_of_its_own(name: str) -> None:
    first = (GRAPH_COMMANDS[name].help or "").splitlines()[0]
    assert first.endswith(".")


@pytest.mark.parametrize("name", sorted(GRAPH_COMMANDS))
def test_every_command_teaches_by_an_example(name: str) -> None:
    examples = (GRAPH_COMMANDS[name].help or "").partition("Examples:\n")[2]
    assert f"valkyr {name}" in examples
