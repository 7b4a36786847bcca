"""docs/runners.md in one shell, from top to bottom, with no call of a runner left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.local.home import PROJECT
from services.local.stack import LocalStack
from tests.e2e.page import a_shell, blocks, follow
from tests.free_ports import a_port_base
from valkyr.api.executor.v1 import runner_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PAGE = PROJECT / "docs" / "runners.md"
RPCS = [method.name for method in runner_pb2.DESCRIPTOR.services_by_name["RunnerService"].methods]


def test_every_call_is_answered_as_the_page_says(tmp_path: Path) -> None:
    port_base = a_port_base()
    with LocalStack(tmp_path / "home", port_base), a_shell(tmp_path, port_base) as shell:
        try:
            follow(shell, PAGE, port_base)
        finally:
            shell.run("kill $(jobs -p) 2>/dev/null; wait")


@pytest.mark.parametrize("rpc", RPCS)
def test_no_call_of_a_runner_is_left_out(rpc: str) -> None:
    called = [block for block in blocks(PAGE.read_text()) if f"$RUNNERS/{rpc}" in block.commands]
    assert any(block.shown is not None for block in called), f"docs/runners.md does not show what {rpc} answers"


def test_every_block_of_the_page_is_found() -> None:
    page = PAGE.read_text()
    found = blocks(page)
    assert len(found) == page.count("```sh\n")
    assert sum(block.shown is not None for block in found) == page.count("```json\n") + page.count("```text\n")
