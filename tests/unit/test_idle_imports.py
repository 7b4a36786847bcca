"""What a service does not load: its memory at idle is mostly the code of libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOWHERE = ("alembic", "mako", "httpx", "httpcore", "opentelemetry.sdk", "opentelemetry.exporter", "rich", "ruamel")
"""Migrations run in a process of their own; the rest is loaded by those who use it: an HTTP request of a graph, a
collector of traces, a file of settings, the command line."""
ORM = ("sqlalchemy.orm", "sqlalchemy.ext.asyncio")
FORBIDDEN = {
    "breaker": (*NOWHERE, "sqlalchemy", "jsonschema_rs", "cel_expr_python"),
    "dlq": (*NOWHERE, *ORM, "jsonschema_rs", "cel_expr_python"),
    "executor": (*NOWHERE, "sqlalchemy", "jsonschema_rs"),
    "graph_store": (*NOWHERE, *ORM),
}


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_service_loads_no_library_that_it_has_no_use_for_at_idle(room: str) -> None:
    listing = f"import sys, services.{room}.__main__, services.chassis.settings_sources; print('\\n'.join(sys.modules))"
    told = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    loaded = told.splitlines()
    assert f"services.{room}.app" in loaded
    found = [name for name in loaded for root in FORBIDDEN[room] if name == root or name.startswith(f"{root}.")]
    assert found == []


def test_rich_can_be_used_all_the_same() -> None:
    used = "import services.chassis.process, structlog, rich.console; assert structlog.dev.rich is None"
    subprocess.run([sys.executable, "-c", used], check=True)
