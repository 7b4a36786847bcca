"""docs/writing_modules.md: every example runs, and every word of the context is explained."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from services.local.home import PROJECT
from valkyr.module import Context, _registered

PAGE = (PROJECT / "docs" / "writing_modules.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
NAMES = [name for block in BLOCKS for name in re.findall(r"^def (test_\w+)", block, flags=re.MULTILINE)]


@pytest.fixture(scope="module")
def page() -> Iterator[dict[str, Any]]:
    """What the page defines, read from top to bottom as one program; its modules are forgotten afterwards."""
    before = dict(_registered)
    program = ModuleType("writing_modules")
    sys.modules[program.__name__] = program
    for block in BLOCKS:
        exec(compile(block, "docs/writing_modules.md", "exec"), program.__dict__)
    yield program.__dict__
    del sys.modules[program.__name__]
    _registered.clear()
    _registered.update(before)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_of_the_page_does_what_it_says(page: dict[str, Any], name: str) -> None:
    example: Callable[[], None] = page[name]
    example()


def test_every_example_is_run() -> None:
    assert len(BLOCKS) == len(re.findall("^```", PAGE, flags=re.MULTILINE)) / 2
    assert len(NAMES) == len(set(NAMES)) >= 12


@pytest.mark.parametrize("name", [name for name in dir(Context) if not name.startswith("_")])
def test_the_page_explains_everything_that_the_context_has(name: str) -> None:
    if name == "said_progress":  # the runner's
        return
    table = PAGE.partition("## What the context has")[2].partition("```python")[0]
    assert f"`{name}" in table
