"""docs/operations.md in one shell, from top to bottom: what it says to type is typed, what it shows is what comes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from services.breaker.settings import BreakerSettings
from services.dlq.settings import DlqSettings
from services.executor.settings import ExecutorSettings
from services.local.home import PROJECT
from services.local.stack import LocalStack
from tests.e2e.page import a_shell, blocks, command_line_equivalents, follow
from tests.free_ports import a_port_base
from valkyr import errors
from valkyr.duration import format_duration
from valkyr.flow.results import FailureType

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PAGE = PROJECT / "docs" / "operations.md"
ROOMS: dict[str, type[BaseModel]] = {"executor": ExecutorSettings, "breaker": BreakerSettings, "dlq": DlqSettings}


def rehearsal(page: str) -> dict[str, str]:
    """The settings of the stack that the page rehearses on."""
    [line] = [line for line in page.splitlines() if line.endswith(" make up")]
    return {name: value for name, value in re.findall(r"(VALKYR_\w+)=(\S+)", line) if name != "VALKYR_HOME"}


def test_the_operators_day_goes_as_the_page_says(tmp_path: Path) -> None:
    port_base = a_port_base()
    with (
        LocalStack(tmp_path / "home", port_base, extra_env=rehearsal(PAGE.read_text())),
        a_shell(tmp_path, port_base) as shell,
    ):
        follow(shell, PAGE, port_base)


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
