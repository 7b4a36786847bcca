"""docs/graph_store.md in one shell, from top to bottom, with nothing of the service left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.local.home import PROJECT
from services.local.stack import LocalStack
from tests.e2e.page import a_shell, blocks, command_line_equivalents, follow
from tests.free_ports import a_port_base
from valkyr.api.graph.v1 import graph_pb2
from valkyr.errors import ValkyrError, all_kinds

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PAGE = PROJECT / "docs" / "graph_store.md"
CONTRACT = PROJECT / "protos" / "valkyr" / "api" / "graph" / "v1" / "graph.proto"
RPCS = [method.name for method in graph_pb2.DESCRIPTOR.services_by_name["GraphStoreService"].methods]


def test_every_call_is_answered_as_the_page_says(tmp_path: Path) -> None:
    port_base = a_port_base()
    with LocalStack(tmp_path / "home", port_base), a_shell(tmp_path, port_base) as shell:
        follow(shell, PAGE, port_base)


@pytest.mark.parametrize("rpc", RPCS)
def test_no_rpc_of_the_service_is_left_out(rpc: str) -> None:
    page = PAGE.read_text()
    assert f"\n## {rpc}\n" in page
    section = page.split(f"\n## {rpc}\n")[1].split("\n## ")[0]
    answered = [block for block in blocks(section) if f"$STORE/{rpc}" in block.commands and block.shown is not None]
    assert answered, f"docs/graph_store.md does not show what {rpc} answers"


def test_every_block_of_the_page_is_found() -> None:
    page = PAGE.read_text()
    found = blocks(page)
    assert len(found) == page.count("```sh\n")
    assert sum(block.shown is not None for block in found) == page.count("```json\n") + page.count("```text\n")
    assert len(command_line_equivalents(page)) == page.count("*CLI:*")


def test_every_refusal_of_the_contract_is_in_the_table() -> None:
    reasons = {kind.reason for kind in all_kinds()}
    kinds = {kind.reason for kind in ValkyrError.__subclasses__()}
    service = CONTRACT.read_text().split("\nservice ")[1].split("\n}\n")[0]
    table = PAGE.read_text().split("\n## Refusals\n")[1]
    named = {name for row in table.splitlines()[3:] for name in row.strip("| ").split(" | ")[0].split(", ")}
    assert named <= reasons
    assert set(re.findall(r"[A-Z]+_[A-Z_]+", service)) & (reasons - kinds) <= named
