"""How PostgreSQL goes about what is typically asked of a hundred thousand workflows: along an index, always."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import pytest

from services.chassis.database import Database
from services.chassis.example.query import Statement, fetch, read_query
from services.graph_store.examples import COLUMNS, ROWS, SCOPE, WORKFLOWS
from tests.example_lab import asking
from tests.many_workflows import add_workflows

STARTS = {"stringMode": "STARTS_WITH"}
ANY_CASE = {"ignoreCase": True}
IN_MARCH = {"field": "createTime", "startTime": "2026-03-01T00:00:00Z", "endTime": "2026-03-01T01:00:00Z"}
CASES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("workflow_newest_idx", {}, {}),
    ("workflow_newest_idx", {}, {"orderBy": "createTime"}),
    ("workflow_newest_idx", {}, {"timeRanges": [IN_MARCH]}),
    ("workflow_recent_idx", {}, {"orderBy": "updateTime desc"}),
    ("workflow_recent_idx", {}, {"timeRanges": [IN_MARCH | {"field": "updateTime"}]}),
    ("workflow_by_name_idx", {}, {"orderBy": "name"}),
    ("workflow_pkey", {"id": "00000000-0000-7000-8000-000000000007"}, {}),
    ("_name_", {"name": "Order-777"}, {}),
    ("_name_", {"name": "Order-777"}, {"matcher": STARTS}),
    ("workflow_lower_name_idx", {"name": "oRDER-777"}, {"matcher": ANY_CASE}),
    ("workflow_lower_name_idx", {"name": "oRDER-7777"}, {"matcher": STARTS | ANY_CASE}),
    ("workflow_labels_idx", {"labels": {"owner": "owner-77"}}, {}),
    ("workflow_newest_idx", {"labels": {"team": "team-3"}}, {}),
    ("workflow_newest_idx", {"archived": True}, {}),
    ("module_class_idx", {"modules": [{"className": "RareModule"}]}, {}),
    ("module_class_idx", {"modules": [{"className": "RareModule", "nodeId": "start"}]}, {"orderBy": "name"}),
    ("module_class_idx", {"modules": [{"className": "NoSuchModule"}]}, {}),
    ("workflow_newest_idx", {"modules": [{"className": "HttpRequestModule"}]}, {}),
    ("module_target_idx", {"modules": [{"target": "http:rare.example.com"}]}, {}),
    ("task_node_idx", {"nodes": [{"nodeId": "step-77"}]}, {}),
    ("workflow_newest_idx", {"nodes": [{"nodeId": "start"}]}, {}),
    ("module_class_idx", {"archived": False, "modules": [{"className": "RareModule"}]}, {}),
)  # fmt: skip


async def ask(database: Database, example: dict[str, Any], *, explain: bool = False, **fields: Any) -> list[Any]:
    statement = read_query(asking(example, **fields), WORKFLOWS).statement(COLUMNS, ROWS, SCOPE, ["default"])
    if explain:
        statement = Statement(f"EXPLAIN {statement.text}", statement.parameters)
    async with database.acquire() as connection:
        return await fetch(connection, statement)


async def goes_on_at_its_place(database: Database, order: str) -> None:
    """Pages from all parts of the list: each reads about what it answers, wherever it begins."""
    for begin in (0.1, 0.5, 0.89, 0.95):
        all_rows = read_query(asking({}, orderBy=order), WORKFLOWS)
        place = all_rows.statement(COLUMNS, ROWS, SCOPE, ["default"])
        async with database.acquire() as connection:
            skipped = Statement(place.text.replace("LIMIT", f"OFFSET {int(begin * 100_000)} LIMIT"), place.parameters)
            rows = await fetch(connection, skipped)
            _, token = all_rows.page(rows)
            query = read_query(asking({}, orderBy=order, pageToken=token), WORKFLOWS)
            asked = query.statement(COLUMNS, ROWS, SCOPE, ["default"])
            plan = await fetch(connection, Statement(f"EXPLAIN (ANALYZE, TIMING OFF) {asked.text}", asked.parameters))
            assert [row["id"] for row in (await fetch(connection, asked))[:1]] == [rows[-1]["id"]], order
        told = "\n".join(row[0] for row in plan)
        passed_over = sum(map(int, re.findall(r"Rows Removed by Filter: (\d+)", told)))
        assert "Seq Scan" not in told, (order, begin, told)
        assert passed_over < 200, (order, begin, told)


@pytest.mark.timeout(180)
async def test_what_is_typical_is_answered_along_an_index(database: Database, graph_store_database_url: str) -> None:
    # Over a connection of its own: the service's gives up on a statement that takes so long.
    connection = await asyncpg.connect(graph_store_database_url)
    await add_workflows(connection, 100_000)
    await connection.close()
    for index, example, fields in CASES:
        plan = "\n".join(row[0] for row in await ask(database, example, explain=True, **fields))
        assert "Seq Scan" not in plan, (example, fields, plan)
        assert index in plan, (example, fields, plan)
    for order in ("name", "name desc", "createTime", "updateTime desc"):
        await goes_on_at_its_place(database, order)
    for found, example in (
        (1, {"name": "Order-777"}),
        (20, {"labels": {"owner": "owner-77"}}),
        (20, {"modules": [{"className": "RareModule"}]}),
        (33, {"modules": [{"target": "http:rare.example.com"}]}),
    ):
        assert len(await ask(database, example)) == found, example
