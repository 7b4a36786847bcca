"""The command line as a process of its own, against services that answer by a script."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable

import pytest

from tests.forked_cli import ForkedCli
from tests.scripted_services import address, nowhere, script

__all__ = ["address", "nowhere", "script"]

Cli = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def cli(address: str, forked_cli: ForkedCli) -> Cli:
    """`await cli("dlq", "list")`: what the process said and how it ended."""

    async def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        environment = environment_of(address) | more
        return await asyncio.to_thread(forked_cli.run, *arguments, stdin=stdin, environment=environment)

    return run


def environment_of(address: str) -> dict[str, str]:
    """With all four services at `address`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_") and name != "COLUMNS"}
    services = dict.fromkeys(("VALKYR_GRAPH_STORE", "VALKYR_EXECUTOR", "VALKYR_BREAKER", "VALKYR_DLQ"), address)
    return kept | services | {"VALKYR_PRINCIPAL": "ada", "TZ": "UTC"}
