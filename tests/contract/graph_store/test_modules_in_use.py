"""The catalogue from a program and from the command line, against a real graph store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from services.graph_store.app import App
from tests.builders import a_graph
from tests.forked_cli import ForkedCli
from tests.unit.cli.conftest import environment_of
from valkyr.client import CatalogueModule, Client
from valkyr.errors import InvalidGraph, InvalidRequest
from valkyr.graph.model import Retry
from valkyr.module import Context, spec_of
from valkyr.modules import builtin_modules

MODULES = """modules:
  - className: ChargeCard
    description: Charges a card.
    pool: payments
    retry: {maxAttempts: 5}
    dedupe: {scope: WORKFLOW, ttl: PT1H}
    configSchema:
      type: object
      properties:
        amount: {type: %s}
"""
BAD_GRAPH = a_graph("a", modules={"a": ("Charge", {"amount": "much"})})


class ChargeConfig(BaseModel):
    """What to charge."""

    amount: int


def charge(context: Context, config: ChargeConfig) -> None:
    """Charges a card, once.

    More of it."""


SPEC = spec_of("Charge", charge, target="http:bank", retry=Retry(4))


@pytest.fixture
async def client(app: App) -> AsyncIterator[Client]:
    async with Client(app.server.address, principal="ada") as client:
        yield client


async def test_a_module_of_code_is_registered_with_the_schema_of_its_config(client: Client) -> None:
    (module,) = await client.modules.register([SPEC])
    assert (module.class_name, module.description) == ("Charge", "Charges a card, once.")
    assert (module.target, module.retry, module.registered_by) == ("http:bank", Retry(4), "ada")
    assert module.config_schema is not None
    assert module.config_schema["required"] == ["amount"]
    with pytest.raises(InvalidGraph) as caught:
        await client.graphs.save(BAD_GRAPH)
    assert [found.path for found in caught.value.findings if found.is_error] == ["modules[0].config.amount"]


async def test_the_same_findings_are_had_here_with_the_catalogue(client: Client) -> None:
    await client.modules.register([SPEC])
    there = await client.graphs.validate(BAD_GRAPH)
    assert list(await client.graphs.validate(BAD_GRAPH, local=True)) != list(there)
    catalogue = await client.modules.catalogue()
    assert list(await client.graphs.validate(BAD_GRAPH, local=True, catalogue=catalogue)) == list(there)


async def test_a_bad_schema_is_refused_before_any_call() -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.modules.register([{"className": "M", "configSchema": {"items": {"type": "strng"}}}])
    assert caught.value.details.violations[0].field == "modules[0].configSchema.items.type"


async def test_a_list_is_everything(client: Client) -> None:
    await client.modules.register([CatalogueModule("B"), {"className": "A", "timeout": "30s"}])
    modules = await client.modules.list(page_size=2).all()
    assert [module.class_name for module in modules] == sorted([*builtin_modules(), "A", "B"])


async def test_the_command_line_registers_a_file_and_lists_the_catalogue(
    app: App, forked_cli: ForkedCli, tmp_path: Path
) -> None:
    async def cli(*arguments: str) -> tuple[int, str]:
        environment = environment_of(app.server.address)
        answer = await asyncio.to_thread(forked_cli.run, "modules", *arguments, stdin="", environment=environment)
        return answer.returncode, answer.stdout + answer.stderr

    file = tmp_path / "modules.yaml"
    file.write_text(MODULES % "strng")
    code, text = await cli("register", str(file))
    assert (
        code,
        f"{file}:10:18: error INVALID_REQUEST: modules[0].configSchema.properties.amount.type: 'strng' is no type"
        in text,
    ) == (
        3,
        True,
    )
    file.write_text(MODULES % "integer")
    code, text = await cli("register", str(file))
    assert (code, text) == (0, "registered ChargeCard  pool payments, 5 attempts, dedupe WORKFLOW for 3600s\n")
    code, text = await cli("list")
    assert code == 0
    line = next(line for line in text.splitlines() if line.startswith("ChargeCard"))
    assert "pool payments, 5 attempts" in line
    assert "ada" in line
    assert "comes with Valkyr" in text
    code, text = await cli("list", "--json")
    listed = {module["className"]: module for module in json.loads(text)["modules"]}
    assert listed["ChargeCard"]["configSchema"]["properties"] == {"amount": {"type": "integer"}}
    code, text = await cli("register", "--import", "tests.executor_modules")
    assert (code, "registered BriefModule" in text) == (0, True)
    assert "registered DedupedEverywhereModule  dedupe GLOBAL for 3600s\n" in text
    assert (await cli("register"))[0] == 2
    assert (await cli("register", str(file), "--import", "x"))[0] == 3
    assert (await cli("register", "--import", "no.such"))[0] == 3
    (tmp_path / "broken.yaml").write_text("modules: [")
    assert (await cli("register", str(tmp_path / "broken.yaml")))[0] == 3
