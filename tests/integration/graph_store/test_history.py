"""Versions compared and restored, versions of the layout alone, and the audit of every change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.chassis.database import Database
from services.graph_store.events import Events
from services.graph_store.graphs import Graphs
from services.graph_store.history import History
from services.graph_store.model import CorruptVersion, SavedVersion
from services.graph_store.model_history import RestoreCommand
from services.graph_store.store import Store
from services.graph_store.workflows import Workflows
from tests.builders import a_graph
from tests.integration.graph_store.conftest import AUTHOR, Saves, graphs_of, saving_of
from tests.postgres import PostgresForTests
from valkyr.errors import (
    InvalidGraph,
    RequestIdReused,
    VersionConflict,
    VersionNotFound,
    VersionRequired,
    WorkflowNotFound,
)
from valkyr.graph.diff import ABSENT, Change, ChangeKind
from valkyr.graph.limits import DEFAULT_LIMITS, Limits
from valkyr.graph.model import Position
from valkyr.graph.parts import Part

Sql = Callable[..., Any]
ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
OTHER = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f81"


def history_of(store: Store, database: Database, limits: Limits = DEFAULT_LIMITS) -> History:
    return History(store, Events(database), saving_of(store, limits=limits))


@pytest.fixture
def history(store: Store, database: Database) -> History:
    return history_of(store, database)


def a_restore(version: int, current: int | None, **said: Any) -> RestoreCommand:
    return RestoreCommand("default", ID, version, current, **{"author": AUTHOR, **said})


async def layouts(workflows: Workflows) -> list[bool]:
    """Of each version, oldest first."""
    versions = await workflows.list_versions("default", ID, below=None, limit=100)
    return [version.layout for version in reversed(versions)]


async def test_a_version_whose_nodes_were_only_moved_is_marked_as_layout(save: Saves, workflows: Workflows) -> None:
    await save("a -> b, c", id=ID, description="about")
    moved = a_graph("a -> b, c", nodes={"a": {"position": Position(1, 2)}})
    await save(moved, id=ID, version=1, description="about")
    further = a_graph("a -> b, c", nodes={"a": {"position": Position(5, 2)}, "c": {"position": Position(0, 0)}})
    await save(further, id=ID, version=2, description="about")
    await save("a -> b, c", id=ID, version=3, description="about")
    await save("c, a -> b", id=ID, version=4, description="about")
    assert await layouts(workflows) == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (a_graph("a -> b", nodes={"a": {"position": Position(1, 2), "label": "A"}}), {}),
        (a_graph("a -> b, c", nodes={"a": {"position": Position(1, 2)}}), {}),
        (a_graph("a, b", nodes={"a": {"position": Position(1, 2)}}), {}),
        (a_graph("a", nodes={"a": {"position": Position(1, 2)}}), {}),
        (a_graph("a -> b", nodes={"a": {"position": Position(1, 2)}}, modules={"b": "LogModule"}), {}),
        (a_graph("a -> b", nodes={"a": {"position": Position(1, 2)}}, edges={"a->b": {"kind": "ALWAYS"}}), {}),
        (a_graph("a -> b", nodes={"a": {"position": Position(1, 2)}}), {"description": "other"}),
        (a_graph("a -> b", nodes={"a": {"position": Position(1, 2)}}), {"name": "other"}),
        (a_graph("a -> b", nodes={"a": {"position": Position(1, 2)}}), {"labels": {"k": "w"}}),
    ],
    ids=["label", "added", "edge", "removed", "module", "kind", "description", "name", "labels"],
)
async def test_a_version_with_more_than_moves_is_none_of_the_layout(
    save: Saves, workflows: Workflows, graph: Any, said: dict[str, Any]
) -> None:
    first: dict[str, Any] = {"name": "orders", "description": "about", "labels": {"k": "v"}}
    await save("a -> b", id=ID, **first)
    await save(graph, id=ID, version=1, **{**first, **said})
    assert await layouts(workflows) == [False, False]


async def test_versions_are_compared_whichever_is_older(save: Saves, history: History) -> None:
    await save("a -> b", id=ID, name="one")
    await save(a_graph("a -> b", nodes={"a": {"label": "A"}}), id=ID, version=1, description="about")
    await save(a_graph("a -> b", nodes={"a": {"label": "A", "position": Position(1, 2)}}), id=ID, version=2)
    changed = Change(ChangeKind.CHANGED, Part.NODE, "a", "label", "a", "A")
    said = Change(ChangeKind.CHANGED, Part.WORKFLOW, "", "description", ABSENT, "about")
    moved = Change(ChangeKind.MOVED, Part.NODE, "a", "position", ABSENT, {"x": 1, "y": 2})
    unsaid = Change(ChangeKind.CHANGED, Part.WORKFLOW, "", "description", "about", ABSENT)

    async def diff(first: int | None, second: int | None) -> tuple[int, int, Any, Any]:
        found = await history.diff_versions("default", ID, first, second)
        return found.from_version, found.to_version, found.diff.changes, found.diff.moves

    assert await diff(1, 2) == (1, 2, (changed, said), ())
    assert await diff(None, None) == await diff(2, 3) == (2, 3, (unsaid,), (moved,))
    assert await diff(1, None) == (1, 3, (changed,), (moved,))
    assert await diff(3, 3) == (3, 3, (), ())
    back = (await history.diff_versions("default", ID, 2, 1)).diff
    assert [(change.old, change.new) for change in back.changes] == [("A", "a"), ("about", ABSENT)]


async def test_the_first_version_is_compared_with_nothing(save: Saves, history: History) -> None:
    await save("a -> b", id=ID, name="orders")
    found = await history.diff_versions("default", ID, None, None)
    assert (found.from_version, found.to_version, found.diff.is_layout) == (0, 1, False)
    assert [(change.kind, change.part, change.id or change.path) for change in found.diff.changes] == [
        ("ADDED", "NODE", "a"),
        ("ADDED", "NODE", "b"),
        ("ADDED", "EDGE", "a->b"),
        ("ADDED", "MODULE", "a"),
        ("ADDED", "MODULE", "b"),
        ("CHANGED", "WORKFLOW", "name"),
    ]
    assert (await history.diff_versions("default", ID, 0, 1)).diff == found.diff


async def test_versions_that_are_not_there_cannot_be_compared(save: Saves, history: History) -> None:
    await save("a", id=ID)
    for first, second in ((1, 2), (2, 1), (5, None)):
        with pytest.raises(VersionNotFound, match="no version [25]"):
            await history.diff_versions("default", ID, first, second)
    for namespace, workflow_id in (("other", ID), ("default", OTHER)):
        with pytest.raises(WorkflowNotFound):
            await history.diff_versions(namespace, workflow_id, None, None)


async def test_a_restore_makes_a_new_version_of_an_old_graph(
    save: Saves, graphs: Graphs, history: History, workflows: Workflows, sql: Sql
) -> None:
    old = a_graph("a -> b -> c", modules={"c": ("LogModule", {"x": 1})})
    first = await save(old, id=ID, name="old", description="old", labels={"k": "old"})
    await save("a -> x", id=ID, version=1, name="new", description="new", labels={"k": "new"})
    restored = await history.restore(a_restore(1, 2))
    workflow = restored.stored.workflow
    assert (workflow.version, workflow.content_hash) == (3, first.stored.workflow.content_hash)
    assert (workflow.name, workflow.description, workflow.labels) == ("new", "new", {"k": "new"})
    assert (restored.graph, restored.unchanged) == (old, False)
    assert await graphs.get("default", ID, None) == (restored.stored, old)
    newest, *_ = await workflows.list_versions("default", ID, below=None, limit=10)
    assert (newest.restored_from, newest.message, newest.layout) == (1, "restores version 1", False)
    (event,) = await sql("select * from graph_store.audit_event where action = 'workflow.restored'")
    assert (event["from_version"], event["to_version"], event["to_hash"]) == (2, 3, workflow.content_hash)


async def test_what_a_restore_brings_back_has_the_ids_that_it_had(save: Saves, history: History, sql: Sql) -> None:
    first = await save("a -> b -> c", id=ID)
    second = await save("x -> b -> a", id=ID, version=1)
    restored = await history.restore(a_restore(1, 2))
    assert restored.stored.ids == first.stored.ids
    assert not set(second.stored.ids.connections) & set(restored.stored.ids.connections)
    tasks = await sql("select node_id, id::text from graph_store.task")
    assert dict(tasks) == dict(zip("abc", first.stored.ids.tasks, strict=True))


async def test_what_came_back_by_a_save_keeps_its_new_ids_at_a_restore(save: Saves, history: History) -> None:
    await save("a -> b", id=ID)
    await save("a", id=ID, version=1)
    third = await save("a -> b -> c", id=ID, version=2)
    restored = await history.restore(a_restore(1, 3))
    assert restored.stored.ids.tasks == third.stored.ids.tasks[:2]
    assert restored.stored.ids.connections == third.stored.ids.connections[:1]


async def test_restoring_what_is_there_already_makes_no_version(save: Saves, history: History, sql: Sql) -> None:
    await save("a", id=ID)
    await save("b", id=ID, version=1)
    await save("a", id=ID, version=2, description="about")
    for version in (1, 3):
        answer = await history.restore(a_restore(version, 3))
        assert (answer.unchanged, answer.stored.workflow.version) == (True, 3)
        assert answer.stored.workflow.description == "about"
    assert (await sql("select count(*) from graph_store.audit_event"))[0][0] == 3


async def test_i02_a_restore_over_a_version_that_is_not_current_is_refused(save: Saves, history: History) -> None:
    await save("a", id=ID)
    await save("b", id=ID, version=1)
    with pytest.raises(VersionRequired):
        await history.restore(a_restore(1, None))
    for stale in (1, 3):
        with pytest.raises(VersionConflict) as conflict:
            await history.restore(a_restore(1, stale))
        assert conflict.value.current_version == 2


async def test_what_cannot_be_restored_is_not_found(save: Saves, history: History) -> None:
    await save("a", id=ID)
    with pytest.raises(VersionNotFound):
        await history.restore(a_restore(2, 1))
    with pytest.raises(WorkflowNotFound):
        await history.restore(RestoreCommand("other", ID, 1, 1, AUTHOR))


async def test_i03_a_version_that_would_be_refused_today_is_not_restored(
    save: Saves, store: Store, database: Database, sql: Sql
) -> None:
    await save("a -> b -> c", id=ID)
    await save("a", id=ID, version=1)
    stricter = history_of(store, database, Limits(nodes=2))
    with pytest.raises(InvalidGraph, match="LIMIT_EXCEEDED"):
        await stricter.restore(a_restore(1, 2))
    assert (await sql("select version from graph_store.workflow"))[0][0] == 2


async def test_a_repeated_restore_gets_the_first_answer(
    save: Saves, history: History, store: Store, database: Database
) -> None:
    await save("a -> b", id=ID, description="then")
    await save("b", id=ID, version=1, description="now")
    first = await history.restore(a_restore(1, 2, request_id="r"))
    await save("c", id=ID, version=3)
    again = await history.restore(a_restore(1, 2, request_id="r"))
    assert again == first
    assert (await save("d", id=ID, version=4, request_id="r")).stored.workflow.version == 5  # of another method
    with pytest.raises(RequestIdReused):
        await history.restore(a_restore(2, 2, request_id="r"))
    stricter = history_of(store, database, Limits(nodes=1))
    assert await stricter.restore(a_restore(1, 2, request_id="r")) == first


async def test_a_restore_that_is_sent_again_without_a_request_id_is_unchanged(save: Saves, history: History) -> None:
    await save("a", id=ID)
    await save("b", id=ID, version=1)
    await history.restore(a_restore(1, 2))
    again = await history.restore(a_restore(1, 2))
    assert (again.unchanged, again.stored.workflow.version) == (True, 3)


async def test_a_repeated_save_gets_its_answer_though_it_would_be_refused_by_now(store: Store, save: Saves) -> None:
    first: SavedVersion = await save("a -> b", id=ID, request_id="r")
    stricter = Saves(graphs_of(store, limits=Limits(nodes=1)))
    again = await stricter("a -> b", id=ID, request_id="r")
    assert again == first
    with pytest.raises(InvalidGraph):
        await stricter("a -> b", id=ID, request_id="s")
    with pytest.raises(RequestIdReused):
        await stricter("a -> c", id=ID, request_id="r")


async def test_i04_every_change_leaves_one_event_newest_first(save: Saves, history: History) -> None:
    saved = [await save("a", id=ID, message="first"), await save("b", id=OTHER)]
    saved.append(await save("c", id=ID, version=1, message="second"))
    saved.append(await history.restore(a_restore(1, 2, message="oops")))
    await save("a", id=ID, version=3, validate_only=True)
    events = await history.list_audit_events("default", None, below=None, limit=10)
    assert [(event.workflow_id, event.action, event.from_version, event.to_version) for event in events] == [
        (ID, "workflow.restored", 2, 3),
        (ID, "workflow.saved", 1, 2),
        (OTHER, "workflow.created", None, 1),
        (ID, "workflow.created", None, 1),
    ]
    hashes = [saved.stored.workflow.content_hash for saved in saved]
    assert [(event.from_hash, event.to_hash) for event in events] == [
        (hashes[2], hashes[3]),
        (hashes[0], hashes[2]),
        (None, hashes[1]),
        (None, hashes[0]),
    ]
    assert {(event.principal, event.trace_id) for event in events} == {(AUTHOR.principal, AUTHOR.trace_id)}
    assert [event.message for event in events] == ["oops", "second", "", "first"]
    assert await history.list_audit_events("default", ID, below=events[0].number, limit=1) == [events[1]]
    assert await history.list_audit_events("default", OTHER, below=None, limit=10) == [events[2]]
    assert await history.list_audit_events("other", None, below=None, limit=10) == []


@pytest.mark.parametrize("whose", ["read", "diffed", "restored", "replaced", "repeated"])
async def test_i01_a_document_is_held_against_its_hash_wherever_it_is_read(
    save: Saves,
    graphs: Graphs,
    history: History,
    postgres: PostgresForTests,
    graph_store_database_url: str,
    whose: str,
) -> None:
    await save("a -> b", id=ID)
    await save("c", id=ID, version=1, request_id="r")
    postgres.execute(
        "alter table graph_store.workflow_version disable trigger all",
        'update graph_store.workflow_version set document = replace(document, \'"label":"\', \'"label":"x\')',
        url=postgres.admin_url_in(graph_store_database_url),
    )
    reads: dict[str, Callable[[], Any]] = {
        "read": lambda: graphs.get("default", ID, 1),
        "diffed": lambda: history.diff_versions("default", ID, 1, 2),
        "restored": lambda: history.restore(a_restore(1, 2)),
        "replaced": lambda: save("d", id=ID, version=2),
        "repeated": lambda: save("c", id=ID, version=1, request_id="r"),
    }
    with pytest.raises(CorruptVersion):
        await reads[whose]()


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("select * from graph_store.audit_event where namespace = 'default' and workflow_id = '{}'", "workflow_idx"),
        ("select * from graph_store.audit_event where namespace = 'default'", "number_idx"),
    ],
    ids=["of one workflow", "of all"],
)
async def test_audit_events_are_read_by_an_index(save: Saves, sql: Sql, statement: str, index: str) -> None:
    await save("a", id=ID)
    await sql(
        "insert into graph_store.audit_event (namespace, id, workflow_id, action, principal_name, written_in)"
        " select 'default', gen_random_uuid(), gen_random_uuid(), 'workflow.saved', 'x', 1"
        " from generate_series(1, 20000)"
    )
    await sql("analyze graph_store.audit_event")
    plan = await sql("explain " + statement.format(ID) + " and number < 1000000 order by number desc limit 100")
    text = "\n".join(row[0] for row in plan)
    assert index in text
    assert "Seq Scan" not in text
    assert "Sort" not in text
