"""Workflows by example, over what saves have stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from services.chassis.database import Database
from services.chassis.example.query import fetch, read_query
from services.chassis.example.resource import Group, Many, columns_of
from services.graph_store.examples import ROWS, SCOPE, WORKFLOWS
from services.graph_store.wire import write_workflow
from tests.builders import a_graph
from tests.example_lab import asking
from tests.integration.graph_store.conftest import Saves
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.graph.model import Edge, EdgeKind, Join, Module, Position, Retry

ORDERS = a_graph(
    "fetch -> store -> mail, lonely",
    modules={"fetch": ("HttpRequestModule", {"url": "https://x/orders", "retry": {"on": [500, 503]}}), "lonely": None},
    nodes={
        "store": {"timeout": timedelta(seconds=1.5), "pool": "big", "priority": 7, "join": Join.ANY},
        "mail": {"label": "E-Mail an\nКлиент", "retry": Retry(max_attempts=5), "position": Position(-1.5, 2.0)},
    },
    edges={"store->mail": {"kind": EdgeKind.FAILURE, "condition": "error.type == 'X'"}},
)


@pytest.mark.parametrize(
    ("example", "found"),
    [
        ({}, ["orders", "other"]),
        ({"name": "orders"}, ["orders"]),
        ({"version": "1", "archived": "FALSE"}, ["orders", "other"]),
        ({"description": None}, ["other"]),
        ({"description": ""}, ["other"]),
        ({"name": ""}, []),
        ({"labels": {"team": "shop"}}, ["orders"]),
        ({"modules": [{"className": "HttpRequestModule"}]}, ["orders"]),
        ({"modules": [{"className": "HttpRequestModule", "nodeId": "store"}]}, []),
        ({"modules": [{"config": {"url": "https://x/orders", "retry": {"on": [503]}}}]}, ["orders"]),
        ({"modules": [{"config": {"retry": {"on": [404]}}}]}, []),
        ({"modules": [{"config": {"retry": {}}}]}, ["orders", "other"]),
        ({"modules": [{"config": {"to": "ann@example.com"}}]}, ["other"]),
        ({"namespace": "default"}, ["orders", "other"]),
        ({"namespace": "elsewhere"}, []),
        ({"nodes": [{"nodeId": "lonely"}]}, ["orders"]),
        ({"nodes": [{"timeout": "1.5s", "pool": "big", "priority": 7.0, "join": "any"}]}, ["orders"]),
        ({"nodes": [{"nodeId": "a", "timeout": None, "pool": "default", "priority": 0, "join": "ALL"}]}, ["other"]),
        ({"nodes": [{"retry": {"maxAttempts": 5}, "position": {"x": -1.5, "y": 2}}]}, ["orders"]),
        ({"nodes": [{"label": "E-Mail an\nКлиент"}]}, ["orders"]),
        ({"edges": [{"source": "store", "target": "mail", "kind": "failure"}]}, ["orders"]),
        ({"edges": [{"source": "a", "target": "b", "kind": "SUCCESS", "condition": None}]}, ["other"]),
        ({"edges": [{"source": "mail", "target": "store"}]}, []),
    ],
    ids=str,
)
async def test_workflows_are_found_by_example(
    save: Saves, database: Database, example: dict[str, Any], found: list[str]
) -> None:
    await save(ORDERS, name="orders", description="All orders", labels={"team": "shop"})
    told = {"a": Module("a", "MailModule", module_data='{"to": "ann@example.com"}')}
    await save(a_graph("a -> b", modules=told), name="other")
    await save(ORDERS, name="orders", namespace="elsewhere")
    statement = read_query(asking(example, orderBy="name"), WORKFLOWS).statement("w.name", ROWS, SCOPE, ["default"])
    async with database.acquire() as connection:
        assert [row["name"] for row in await fetch(connection, statement)] == found


@pytest.mark.parametrize(
    ("path", "message"),
    [("", pb.Workflow), ("nodes", pb.Node), ("edges", pb.Edge), ("modules", pb.Module), ("nodes.retry", pb.Retry)],
)
def test_every_field_that_is_answered_is_described(path: str, message: Any) -> None:
    fields = WORKFLOWS.fields
    for name in path.split(".") if path else ():
        inner = fields[name]
        assert isinstance(inner, Many | Group)
        fields = inner.fields
    beside = {"nodes", "edges", "modules", "settings"} if not path else set()
    assert set(fields) == {field.json_name for field in message.DESCRIPTOR.fields} | beside


async def test_every_column_can_be_asked_for_and_ordered_by(save: Saves, database: Database) -> None:
    await save("a -> b", name="w")
    orders = [path for path, column in columns_of(WORKFLOWS.fields) if column.orderable]
    whole = {path: None for path in WORKFLOWS.fields if path != "settings"}
    nested = {
        path: [dict.fromkeys(inner.fields)] for path, inner in WORKFLOWS.fields.items() if isinstance(inner, Many)
    }
    async with database.acquire() as connection:
        for order in orders:
            for example in (whole, nested, {}):
                query = read_query(asking(example, orderBy=order), WORKFLOWS)
                rows = await fetch(connection, query.statement("w.id", ROWS, SCOPE, ["default"]))
                assert len(rows) == (0 if example else 1)


async def test_a_workflow_that_was_answered_is_its_own_example(save: Saves, database: Database) -> None:
    saved = await save("a -> b", name="w", description="d", labels={"k": "v"})
    await save("a -> b", name="v", description="d", labels={"k": "v"})
    answered = json_format.MessageToDict(write_workflow(saved.stored.workflow))
    statement = read_query(asking(answered), WORKFLOWS).statement("w.name", ROWS, SCOPE, ["default"])
    async with database.acquire() as connection:
        assert [row["name"] for row in await fetch(connection, statement)] == ["w"]


def test_an_edge_has_no_kind_that_cannot_be_asked_for() -> None:
    assert {kind.value for kind in EdgeKind} | {"KIND_UNSPECIFIED"} == set(pb.Edge.Kind.keys())
    assert Edge("e", "a", "b").kind in EdgeKind
