"""The migrations: each can be undone with data in the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.chassis import migrate
from tests.builders import a_graph
from tests.integration.graph_store.conftest import Saves

Sql = Callable[..., Any]


async def test_the_migration_can_be_undone_with_data_and_done_again(
    save: Saves, sql: Sql, graph_store_database_url: str
) -> None:
    saved = await save(a_graph("a -> b"), request_id="r")
    await save(a_graph("a -> c"), id=saved.stored.workflow.id, version=1)
    await migrate.downgrade(graph_store_database_url, "graph_store")
    left = (
        "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'graph_store'"
    )
    functions = (
        "select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'graph_store'"
    )
    assert (await sql(left + " and relname not like 'alembic_version%'"))[0][0] == 0
    assert (await sql(functions))[0][0] == 0
    await migrate.upgrade(graph_store_database_url, "graph_store")
    assert (await save(a_graph("a -> b"))).stored.workflow.version == 1
