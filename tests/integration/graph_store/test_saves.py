"""What a save writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from services.graph_store.graphs import Graphs
from services.graph_store.model import Author
from services.graph_store.store import Store
from services.graph_store.store_requests import Requests
from tests.builders import a_graph
from tests.integration.graph_store.conftest import AUTHOR, KEPT, Saves
from valkyr.errors import (
    InvalidGraph,
    NameTaken,
    RequestIdReused,
    VersionConflict,
    VersionNotFound,
    VersionRequired,
    WorkflowNotFound,
)
from valkyr.graph.document import content_hash
from valkyr.graph.model import Graph, Module

Sql = Callable[..., Any]
ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
TABLES = ("workflow", "workflow_version", "task", "connection", "module", "audit_event", "answered_request")


async def counts(sql: Sql) -> dict[str, int]:
    return {table: (await sql(f"select count(*) from graph_store.{table}"))[0][0] for table in TABLES}


async def rows_of(sql: Sql, table: str) -> dict[str, tuple[str, str]]:
    """Id of each row -> where it lies and which transaction wrote it."""
    rows = await sql(f"select id::text, ctid::text, xmin::text from graph_store.{table}")
    return {row[0]: (row[1], row[2]) for row in rows}


async def test_a_new_graph_is_stored_whole(save: Saves, graphs: Graphs, sql: Sql) -> None:
    graph = a_graph("a -> b -> c, a -> c", modules={"b": ("LogModule", {"x": "${1}"}), "c": None})
    saved = await save(graph, name="orders", description="about", labels={"k": "v"})
    workflow = saved.stored.workflow
    assert (workflow.version, workflow.name, workflow.labels) == (1, "orders", {"k": "v"})
    assert workflow.content_hash == content_hash(graph)
    assert [warning.code for warning in saved.warnings] == ["MISSING_MODULE"]
    assert await graphs.get("default", workflow.id, None) == (saved.stored, graph)
    assert {**await counts(sql), "answered_request": 0} == {
        "workflow": 1,
        "workflow_version": 1,
        "task": 3,
        "connection": 3,
        "module": 2,
        "audit_event": 1,
        "answered_request": 0,
    }
    (edge,) = await sql(
        "select c.kind, s.node_id as source, t.node_id as target from graph_store.connection c"
        " join graph_store.task s on s.id = c.source_task_id join graph_store.task t on t.id = c.target_task_id"
        " where c.edge_id = 'b->c'"
    )
    assert tuple(edge) == ("SUCCESS", "b", "c")


async def test_a_second_save_writes_only_the_rows_that_changed(save: Saves, sql: Sql) -> None:
    graph = a_graph("a -> b -> c -> d", modules={"a": ("LogModule", {"flag": True}), "b": ("LogModule", {"n": 1})})
    first = await save(graph)
    before = {table: await rows_of(sql, table) for table in ("task", "connection", "module")}
    changed = a_graph(
        "a -> b -> c -> x, a -> c",
        nodes={"b": {"label": "renamed"}},
        modules={"a": ("LogModule", {"flag": 1}), "b": ("LogModule", {"n": 1})},
    )
    second = await save(changed, id=first.stored.workflow.id, version=1)
    after = {table: await rows_of(sql, table) for table in before}
    ids = first.stored.ids
    assert second.stored.ids.tasks[:3] == ids.tasks[:3]
    assert second.stored.ids.connections[:2] == ids.connections[:2]
    untouched = {
        "task": {ids.tasks[0], ids.tasks[2]},
        "connection": set(ids.connections[:2]),
        "module": {*ids.modules[1:3]},
    }
    for table, expected in untouched.items():
        same = {row_id for row_id in before[table] if after[table].get(row_id) == before[table][row_id]}
        assert same == expected, table
    assert ids.tasks[3] not in after["task"]
    assert len(after["task"]) == 4
    assert after["task"].keys() == set(second.stored.ids.tasks)
    assert after["connection"].keys() == set(second.stored.ids.connections)
    assert after["module"].keys() == set(second.stored.ids.modules)
    (config,) = await sql("select config from graph_store.module where id = $1", ids.modules[0])
    assert orjson.loads(config[0]) == {"flag": 1}
    assert config[0] == '{"flag":1}'


async def test_a_module_that_comes_goes_and_changes_keeps_its_node(save: Saves, graphs: Graphs) -> None:
    first = await save(a_graph("a -> b", modules={"b": None}))
    workflow_id = first.stored.workflow.id
    second = await save(a_graph("a -> b", modules={"a": None, "b": "LogModule"}), id=workflow_id, version=1)
    third = await save(
        a_graph("a -> b", modules={"a": None, "b": Module("b", "Other", "{}")}), id=workflow_id, version=2
    )
    assert first.stored.ids.tasks == second.stored.ids.tasks == third.stored.ids.tasks
    assert second.stored.ids.modules == third.stored.ids.modules
    assert [len((await graphs.get("default", workflow_id, version))[1].modules) for version in (1, 2, 3)] == [1, 1, 1]


async def test_an_equal_graph_makes_no_version_and_no_audit_event(save: Saves, sql: Sql) -> None:
    first = await save("a -> b", name="n", description="d", labels={"k": "v"})
    before = await counts(sql)
    again = await save("a -> b", id=first.stored.workflow.id, version=1, description="d", labels={"k": "v"})
    assert again.unchanged
    assert again.stored == first.stored
    assert await counts(sql) == before


@pytest.mark.parametrize("said", [{"description": "other"}, {"labels": {"k": "w"}}, {"name": "other"}])
async def test_what_is_said_of_the_workflow_is_versioned_too(save: Saves, graphs: Graphs, said: dict[str, Any]) -> None:
    before = {"name": "n", "description": "d", "labels": {"k": "v"}}
    first = await save("a -> b", **before)
    second = await save("a -> b", id=first.stored.workflow.id, version=1, **(before | said))
    assert (second.stored.workflow.version, second.unchanged) == (2, False)
    assert second.stored.workflow.content_hash == first.stored.workflow.content_hash
    assert second.stored.ids == first.stored.ids
    assert (await graphs.get("default", first.stored.workflow.id, 1))[0] == first.stored


async def test_a_save_without_a_name_keeps_the_name(save: Saves) -> None:
    first = await save("a", name="n")
    second = await save("b", id=first.stored.workflow.id, version=1)
    assert second.stored.workflow.name == "n"


async def test_an_unknown_id_creates_a_workflow_with_that_id(save: Saves) -> None:
    saved = await save("a", id=ID, version=5)
    assert (saved.stored.workflow.id, saved.stored.workflow.version) == (ID, 1)


async def test_a_stored_workflow_is_saved_only_with_the_version_that_was_edited(save: Saves) -> None:
    await save("a", id=ID)
    with pytest.raises(VersionRequired) as required:
        await save("b", id=ID)
    assert required.value.details.metadata["currentVersion"] == "1"
    for stale in (2, 7):
        with pytest.raises(VersionConflict) as conflict:
            await save("b", id=ID, version=stale)
        assert conflict.value.current_version == 1
    assert (await save("b", id=ID, version=1)).stored.workflow.version == 2


async def test_an_unchanged_graph_with_a_stale_version_is_a_conflict(save: Saves) -> None:
    await save("a", id=ID)
    await save("b", id=ID, version=1)
    with pytest.raises(VersionConflict):
        await save("b", id=ID, version=1, author=Author("somebody else"))


async def test_i03_a_graph_with_errors_is_never_stored_and_costs_no_version(save: Saves, sql: Sql) -> None:
    with pytest.raises(InvalidGraph):
        await save("a -> b -> a", id=ID, request_id="r")
    assert set((await counts(sql)).values()) == {0}
    await save("a", id=ID, request_id="r")
    before = await counts(sql)
    with pytest.raises(InvalidGraph) as caught:
        await save("a -> a, b -> b", id=ID, version=1)
    assert await counts(sql) == before
    assert caught.value.details.metadata["total"] == "2"
    assert [violation.field for violation in caught.value.details.violations] == ["edges[0]", "edges[1]"]
    assert (await save("b", id=ID, version=1)).stored.workflow.version == 2


async def test_i04_every_change_leaves_one_audit_event(save: Saves, sql: Sql) -> None:
    principal = "5f0e7a52-9d1c-4c59-8f43-0a8f1f0d8a11"
    first = await save("a", id=ID, message="first")
    second = await save("b", id=ID, version=1, message="then", author=Author(principal, principal, "ab" * 16))
    rows = await sql("select * from graph_store.audit_event order by created_date")
    assert [(row["action"], row["from_version"], row["to_version"], row["message"]) for row in rows] == [
        ("workflow.created", None, 1, "first"),
        ("workflow.saved", 1, 2, "then"),
    ]
    assert [(row["from_hash"], row["to_hash"]) for row in rows] == [
        (None, first.stored.workflow.content_hash),
        (first.stored.workflow.content_hash, second.stored.workflow.content_hash),
    ]
    assert [(row["principal_name"], str(row["principal_id"] or ""), row["trace_id"]) for row in rows] == [
        ("tester", "", AUTHOR.trace_id),
        (principal, principal, "ab" * 16),
    ]


async def test_names_are_unique_in_a_namespace(save: Saves) -> None:
    await save("a", name="orders")
    other = await save("a", name="else")
    with pytest.raises(NameTaken, match="orders"):
        await save("a", name="orders")
    with pytest.raises(NameTaken, match="orders"):
        await save("b", id=other.stored.workflow.id, version=1, name="orders")
    assert (await save("a", name="orders", namespace="elsewhere")).stored.workflow.version == 1


async def test_an_id_of_another_namespace_is_not_found_and_may_be_used_again(save: Saves, graphs: Graphs) -> None:
    await save("a", id=ID, namespace="mine")
    with pytest.raises(WorkflowNotFound):
        await graphs.get("theirs", ID, None)
    await save("b", id=ID, namespace="theirs")
    assert (await graphs.get("mine", ID, None))[1] == a_graph("a")
    assert (await graphs.get("theirs", ID, None))[1] == a_graph("b")
    with pytest.raises(VersionNotFound, match="no version 2"):
        await graphs.get("mine", ID, 2)


async def test_a_save_that_is_only_tried_out_answers_as_if_and_stores_nothing(save: Saves, sql: Sql) -> None:
    tried = await save("a -> b", id=ID, validate_only=True, request_id="r")
    assert (tried.stored.workflow.version, len(tried.stored.ids.tasks)) == (1, 2)
    assert set((await counts(sql)).values()) == {0}
    await save("a", id=ID)
    before = await counts(sql)
    tried = await save("a -> b", id=ID, version=1, validate_only=True)
    assert (tried.stored.workflow.version, tried.unchanged) == (2, False)
    assert await counts(sql) == before
    with pytest.raises(VersionConflict):
        await save("a -> b", id=ID, version=9, validate_only=True)
    with pytest.raises(InvalidGraph):
        await save("a -> a", id=ID, version=1, validate_only=True)


async def test_a_repeated_request_gets_the_first_answer(save: Saves, sql: Sql) -> None:
    graph = a_graph("a -> b", modules={"a": None})
    first = await save(graph, request_id="r", name="n")
    assert await save(graph, request_id="r", name="n") == first
    workflow_id = first.stored.workflow.id
    second = await save("b", id=workflow_id, version=1, request_id="s")
    await save("c", id=workflow_id, version=2)
    assert await save("b", id=workflow_id, version=1, request_id="s") == second
    assert (await counts(sql))["workflow_version"] == 3


async def test_an_unchanged_save_is_remembered_too(save: Saves) -> None:
    await save("a", id=ID)
    first = await save("a", id=ID, version=1, request_id="r")
    await save("b", id=ID, version=1)
    assert await save("a", id=ID, version=1, request_id="r") == first
    assert first.unchanged


@pytest.mark.parametrize(
    "other",
    [
        {"graph": "b"},
        {"name": "m"},
        {"description": "d"},
        {"labels": {"k": "v"}},
        {"message": "m"},
        {"version": 2},
        {"id": ID},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_request_id_of_another_request_is_refused(save: Saves, other: dict[str, Any]) -> None:
    await save("a", request_id="r")
    with pytest.raises(RequestIdReused):
        await save(**{"graph": "a", "request_id": "r", **other})
    assert (await save("b", request_id="r", namespace="elsewhere")).stored.workflow.version == 1


async def test_a_failed_request_is_not_remembered(save: Saves) -> None:
    await save("a", id=ID)
    with pytest.raises(VersionConflict):
        await save("b", id=ID, version=9, request_id="r")
    assert (await save("b", id=ID, version=1, request_id="r")).stored.workflow.version == 2


async def test_requests_are_forgotten_after_a_day(save: Saves, store: Store, sql: Sql) -> None:
    first = await save("a", request_id="old")
    await save("a", request_id="young")
    await sql(
        "update graph_store.answered_request set created_date = now() - interval '24 hours 1 second'"
        " where request_id = 'old'"
    )
    again = await save("a", request_id="old")
    assert again.stored.workflow.id != first.stored.workflow.id
    assert await save("a", request_id="old") == again
    requests = Requests(KEPT)
    assert await requests.prune(store, 10) == 0
    await sql("update graph_store.answered_request set created_date = now() - interval '2 days'")
    assert [await requests.prune(store, 1) for _ in range(3)] == [1, 1, 0]


async def test_of_twenty_callers_with_one_request_id_and_one_name_all_get_one_answer(save: Saves, sql: Sql) -> None:
    for attempt in range(5):
        answers = await asyncio.gather(
            *(save("a -> b", request_id=f"r{attempt}", name=f"n{attempt}") for _ in range(20)), return_exceptions=True
        )
        assert [answer for answer in answers if answer != answers[0]] == []
        assert not isinstance(answers[0], BaseException)
        with pytest.raises(NameTaken):
            await save("a -> b", request_id=f"s{attempt}", name=f"n{attempt}")
        with pytest.raises(RequestIdReused):
            await save("a -> c", request_id=f"r{attempt}", name=f"n{attempt}")
    assert (await sql("select count(*) from graph_store.workflow_version"))[0][0] == 5


async def test_i02_a_save_of_unknown_outcome_may_be_repeated_without_a_request_id(save: Saves, sql: Sql) -> None:
    created = await save("a", id=ID)
    repeated = await save("a", id=ID)
    assert (repeated.unchanged, repeated.stored) == (True, created.stored)
    saved = await save("a -> b", id=ID, version=1, description="d")
    repeated = await save("a -> b", id=ID, version=1, description="d", message="again")
    assert (repeated.unchanged, repeated.stored) == (True, saved.stored)
    assert (await counts(sql))["audit_event"] == 2


@pytest.mark.parametrize(
    "other",
    [{"graph": "b"}, {"labels": {"k": "v"}}, {"description": "d"}, {"name": "m"}, {"author": Author("somebody else")}],
    ids=["graph", "labels", "description", "name", "author"],
)
async def test_i02_what_differs_from_the_save_before_is_no_repetition(save: Saves, other: dict[str, Any]) -> None:
    await save("x", id=ID, name="n")
    await save("a", id=ID, version=1, name="n")
    with pytest.raises(VersionConflict):
        await save(**{"graph": "a", "id": ID, "version": 1, "name": "n", **other})
    with pytest.raises(VersionRequired):
        await save("a", id=ID, name="n")


async def test_a_save_of_two_versions_ago_is_no_repetition(save: Saves) -> None:
    await save("x", id=ID)
    await save("y", id=ID, version=1)
    await save("a", id=ID, version=2)
    with pytest.raises(VersionConflict):
        await save("a", id=ID, version=1)


async def test_of_many_callers_with_one_request_id_all_get_one_answer(save: Saves, sql: Sql) -> None:
    answers = await asyncio.gather(*(save("a -> b", request_id="r") for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert (await counts(sql))["workflow"] == 1
    workflow_id = answers[0].stored.workflow.id
    again = await asyncio.gather(*(save("b", id=workflow_id, version=1, request_id="s") for _ in range(8)))
    assert {answer.stored.workflow.version for answer in again} == {2}


async def test_an_empty_graph_can_be_saved_and_filled(save: Saves, graphs: Graphs) -> None:
    await save(Graph(), id=ID)
    assert (await graphs.get("default", ID, None))[1] == Graph()
    await save("a -> b", id=ID, version=1)
    await save(Graph(), id=ID, version=2)
    assert (await graphs.get("default", ID, 2))[1] == a_graph("a -> b")


async def test_texts_of_every_kind_come_back_as_they_were(save: Saves, graphs: Graphs) -> None:
    odd = "'; drop table x; -- \"\\ %s :x {1} $1 \u202e\u0301é🙂\n\t\x01" + "ü" * 200
    graph = a_graph("a -> b", nodes={"a": {"label": odd, "pool": odd}}, modules={"a": ("M", {odd: [odd]})})
    graph = replace(
        graph, modules=(*graph.modules[:1], Module("b", odd, module_data=orjson.dumps({odd: odd}).decode()))
    )
    await save(graph, id=ID, name=odd, description=odd, labels={odd: odd}, message=odd, request_id=odd)
    stored, read = await graphs.get("default", ID, None)
    assert read == graph
    assert (stored.workflow.name, stored.workflow.description, stored.workflow.labels) == (odd, odd, {odd: odd})
