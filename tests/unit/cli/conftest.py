"""The command line as a process of its own, against services that answer by a script."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.scripted_services import address, nowhere, script

__all__ = ["address", "nowhere", "script"]

Cli = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def cli(address: str) -> Cli:
    """`await cli("dlq", "list")`: what the process said and how it ended."""

    async def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(_run, address, arguments, stdin, more)

    return run


def _run(
    address: str, arguments: tuple[str, ...], stdin: str, more: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_") and name != "COLUMNS"}
    services = dict.fromkeys(("VALKYR_GRAPH_STORE", "VALKYR_EXECUTOR", "VALKYR_BREAKER", "VALKYR_DLQ"), address)
    return subprocess.run(
        [sys.executable, "-m", "valkyr.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=kept | services | {"PYTHONIOENCODING": "utf-8", "VALKYR_PRINCIPAL": "ada", "TZ": "UTC"} | more,
        check=False,
    )
