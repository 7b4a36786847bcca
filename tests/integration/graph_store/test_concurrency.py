"""Many saves at once, reads between them, and a database that dies in the middle of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import event

from services.chassis.database import Database
from services.chassis.engine import Connection
from services.graph_store.graphs import Graphs
from services.graph_store.model import Author, CorruptVersion, SavedVersion, StoredWorkflow
from services.graph_store.store import Store, Transaction
from tests.builders import a_chain, a_graph
from tests.integration.graph_store.conftest import Saves, graphs_of
from tests.postgres import PostgresForTests
from valkyr.errors import NameTaken, RequestIdReused, Unavailable, VersionConflict, VersionRequired
from valkyr.graph.document import content_hash
from valkyr.graph.findings import Code
from valkyr.graph.validate import validate

Result = TypeVar("Result")
Sql = Callable[..., Any]
ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"


async def test_i02_of_fifty_concurrent_saves_exactly_one_wins(save: Saves, graphs: Graphs, sql: Sql) -> None:
    await save("a", id=ID)
    outcomes = await asyncio.gather(
        *(save(a_graph(f"a -> b{number}"), id=ID, version=1) for number in range(50)), return_exceptions=True
    )
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, VersionConflict)]
    assert len(losers) == 49
    assert {loser.current_version for loser in losers} == {2}
    stored, graph = await graphs.get("default", ID, None)
    assert (stored, graph) == (winner.stored, winner.graph)
    (row,) = await sql("select version, (select count(*) from graph_store.audit_event) from graph_store.workflow")
    assert tuple(row) == (2, 2)


async def test_i02_of_fifty_identical_saves_by_one_author_one_makes_a_version(save: Saves, sql: Sql) -> None:
    await save("a", id=ID)
    answers = await asyncio.gather(*(save("a -> b", id=ID, version=1) for _ in range(50)))
    assert sorted(answer.unchanged for answer in answers) == [False] + [True] * 49
    assert {answer.stored.workflow.version for answer in answers} == {2}
    (row,) = await sql("select version, (select count(*) from graph_store.audit_event) from graph_store.workflow")
    assert tuple(row) == (2, 2)


async def test_i02_of_fifty_identical_saves_by_different_authors_one_wins(save: Saves) -> None:
    await save("a", id=ID)
    outcomes = await asyncio.gather(
        *(save("a -> b", id=ID, version=1, author=Author(f"author {number}")) for number in range(50)),
        return_exceptions=True,
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 49


async def test_of_fifty_callers_who_create_one_id_one_creates_it(save: Saves, sql: Sql) -> None:
    outcomes = await asyncio.gather(
        *(save(a_graph(f"a -> b{number}"), id=ID) for number in range(50)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, VersionRequired) for outcome in outcomes) == 49
    assert (await sql("select count(*) from graph_store.workflow_version"))[0][0] == 1


class _MeetingTransaction(Transaction):
    """Waits for the other one when it has looked its request up and is about to create the workflow."""

    def __init__(self, connection: Connection, barrier: asyncio.Barrier) -> None:
        super().__init__(connection)
        self._barrier = barrier

    async def insert_workflow(self, values: Mapping[str, Any]) -> StoredWorkflow | None:
        await self._barrier.wait()
        return await super().insert_workflow(values)


class _MeetingStore(Store):
    """Its transactions create nothing until two of them are about to."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._meeting_database = database
        self._barrier = asyncio.Barrier(2)

    async def in_transaction(self, work: Callable[[Transaction], Awaitable[Result]]) -> Result:
        async with self._meeting_database.transaction() as connection:
            return await work(_MeetingTransaction(connection, self._barrier))


async def racing_creations(database: Database, *saves: Mapping[str, Any]) -> list[SavedVersion | BaseException]:
    """The outcomes of two creations that both have found their request unknown before either has written anything."""
    save = Saves(graphs_of(_MeetingStore(database)))
    async with asyncio.timeout(30):
        return await asyncio.gather(*(save("a -> b", **said) for said in saves), return_exceptions=True)


async def test_i09_a_racing_repeat_of_a_named_creation_gets_the_first_answer(database: Database, sql: Sql) -> None:
    first, second = await racing_creations(database, *[{"name": "orders", "request_id": "r"}] * 2)
    assert isinstance(first, SavedVersion)
    assert first == second
    assert (await sql("select count(*) from graph_store.workflow"))[0][0] == 1


async def test_a_racing_creation_under_the_same_name_without_its_request_is_refused(database: Database) -> None:
    outcomes = await racing_creations(
        database, {"name": "orders", "request_id": "r"}, {"name": "orders", "request_id": "s"}
    )
    assert {type(outcome) for outcome in outcomes} == {NameTaken, SavedVersion}


async def test_a_racing_creation_with_the_same_request_id_and_another_body_is_refused(database: Database) -> None:
    said = {"name": "orders", "request_id": "r"}
    outcomes = await racing_creations(database, said, {**said, "description": "another"})
    assert {type(outcome) for outcome in outcomes} == {RequestIdReused, SavedVersion}


async def test_two_saves_that_would_make_a_cycle_together_do_not(save: Saves, graphs: Graphs) -> None:
    await save("a, b", id=ID)
    outcomes = await asyncio.gather(
        save("a -> b", id=ID, version=1), save("b -> a", id=ID, version=1), return_exceptions=True
    )
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 1
    assert Code.CYCLE not in {found.code for found in validate((await graphs.get("default", ID, None))[1])}


async def test_i01_readers_see_whole_versions_while_they_are_saved(save: Saves, graphs: Graphs) -> None:
    await save(a_chain(3), id=ID)
    done = asyncio.Event()
    seen: set[int] = set()

    async def read() -> None:
        while not done.is_set():
            stored, graph = await graphs.get("default", ID, None)
            assert content_hash(graph) == stored.workflow.content_hash
            assert len(graph.nodes) == len(stored.ids.tasks) == stored.workflow.version + 2
            seen.add(stored.workflow.version)

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for version in range(1, 40):
        await save(a_chain(version + 3), id=ID, version=version)
    done.set()
    await asyncio.gather(*readers)
    assert len(seen) > 5
    for version in (1, 20, 40):
        assert (await graphs.get("default", ID, version))[1] == a_chain(version + 2)


@pytest.mark.parametrize("table", ["workflow_version", "audit_event"])
@pytest.mark.parametrize("statement", ["update {} set message = 'forged'", "delete from {}", "truncate {}"])
async def test_i01_i04_versions_and_audit_events_never_change(
    save: Saves, sql: Sql, table: str, statement: str
) -> None:
    await save("a", id=ID)
    with pytest.raises(asyncpg.RestrictViolationError, match="never change"):
        await sql(statement.format(f"graph_store.{table}"))


async def test_a_version_that_does_not_match_its_hash_is_not_answered(
    save: Saves, graphs: Graphs, postgres: PostgresForTests, graph_store_database_url: str
) -> None:
    await save("a -> b", id=ID)
    postgres.execute(
        "alter table graph_store.workflow_version disable trigger all",
        "update graph_store.workflow_version set document = replace(document, '\"b\"', '\"c\"')",
        url=postgres.admin_url_in(graph_store_database_url),
    )
    with pytest.raises(CorruptVersion):
        await graphs.get("default", ID, None)


@contextmanager
def statements(database: Database, ahead: Callable[[int], object] = lambda _number: None) -> Iterator[list[str]]:
    """The statements that the database gets within the block; `ahead` is called before each with its number."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        ahead(len(seen))
        seen.append(statement)

    engine = database.engine.sync
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def before(cut: int, act: Callable[[], object]) -> Callable[[int], object]:
    """Acts ahead of the statement with the number `cut`."""
    return lambda number: act() if number == cut else None


async def test_i01_a_save_cut_off_at_any_statement_leaves_the_old_version_whole(
    save: Saves,
    graphs: Graphs,
    database: Database,
    sql: Sql,
    postgres: PostgresForTests,
    graph_store_database_url: str,
) -> None:
    old = a_graph("a -> b -> c", modules={"c": None})
    new = a_graph("a -> b -> d, x -> a", nodes={"b": {"label": "renamed"}}, modules={"a": "LogModule"})
    saved = await save(old, id=ID)
    with statements(database) as seen:
        await save(new, id=ID, version=1, request_id="r", validate_only=True)
    assert len(seen) >= 14
    rows = "select (select jsonb_agg(t order by t::text)::text from graph_store.{} t)"
    tables = ("workflow", "workflow_version", "task", "connection", "module", "audit_event", "answered_request")
    untouched = [await sql(rows.format(table)) for table in tables]

    def kill_backends() -> None:
        postgres.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'graph store under test' and xact_start is not null and datname ="
            " current_database()",
            url=postgres.admin_url_in(graph_store_database_url),
        )

    for cut in range(1, len(seen)):
        with statements(database, before(cut, kill_backends)), pytest.raises(Unavailable):
            await save(new, id=ID, version=1, request_id="r")
        assert await graphs.get("default", ID, None) == (saved.stored, old)
        assert [await sql(rows.format(table)) for table in tables] == untouched
    assert (await save(new, id=ID, version=1, request_id="r")).stored.workflow.version == 2
    assert (await graphs.get("default", ID, None))[1] == new


async def test_a_save_whose_caller_went_away_can_be_repeated(save: Saves, database: Database) -> None:
    first = await save("a", id=ID)
    task = asyncio.create_task(save("a -> b", id=ID, version=1, request_id="r"))
    with statements(database, before(5, task.cancel)), pytest.raises(asyncio.CancelledError):
        await task
    answer = await save("a -> b", id=ID, version=1, request_id="r")
    assert answer.stored.workflow.version == first.stored.workflow.version + 1


@pytest.mark.parametrize("size", [10, 1_000])
async def test_the_number_of_statements_does_not_grow_with_the_graph(
    save: Saves, graphs: Graphs, database: Database, size: int
) -> None:
    with statements(database) as created:
        await save(a_chain(size), id=ID, request_id="r")
    changed = a_chain(size, prefix="m")
    with statements(database) as saved:
        await save(changed, id=ID, version=1, request_id="s")
    with statements(database) as read:
        await graphs.get("default", ID, None)
    assert (len(created), len(saved), len(read)) == (9, 13, 1)
