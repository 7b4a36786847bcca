"""Changes of workflows as they are told: from the moment on, each once, whatever commits late or breaks off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import uuid_utils

from services.chassis.database import Database
from services.graph_store import feed as feeding
from services.graph_store import queries_history as queries
from services.graph_store import watch as watching
from services.graph_store.events import Events
from services.graph_store.feed import Feed
from services.graph_store.hints import Hints
from services.graph_store.history import History
from services.graph_store.model_history import Batch, Change, Position, RestoreCommand, Snapshot, Watched
from services.graph_store.store import Store
from services.graph_store.watch import Watching
from services.graph_store.wire_history import read_watch, resume_token
from tests.builders import a_graph
from tests.integration.graph_store.conftest import AUTHOR, Saves, graphs_of, saving_of
from tests.postgres import PostgresForTests
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest, Unavailable
from valkyr.graph.model import Position as NodePosition

Sql = Callable[..., Any]
ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
OTHER = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f81"
NEVER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Replica:
    """What one graph store has of the watch, and a store whose commits it hears of."""

    feed: Feed
    watching: Watching
    store: Store

    def watch(self, *workflow_ids: str, since: Position | None = None, namespace: str = "default") -> Any:
        return aclosing(self.watching.batches(Watched(namespace, workflow_ids, since)))

    @property
    def save(self) -> Saves:
        return Saves(graphs_of(self.store))


@asynccontextmanager
async def a_replica(database: Database) -> AsyncIterator[Replica]:
    events = Events(database)
    hints = Hints(database, events)
    feed = Feed(events, hints.listen)

    def changed() -> None:
        feed.look_now()
        hints.changed()

    async def tell() -> None:
        while True:
            await hints.wake.wait()
            hints.wake.clear()
            await hints.tell()

    telling = asyncio.create_task(tell())
    try:
        yield Replica(feed, Watching(events, feed), Store(database, changed=changed))
    finally:
        await feed.close()
        telling.cancel()
        await asyncio.wait([telling])


@pytest.fixture
async def replica(database: Database) -> AsyncIterator[Replica]:
    async with a_replica(database) as replica:
        yield replica


@pytest.fixture
async def other(database: Database) -> AsyncIterator[Replica]:
    async with a_replica(database) as replica:
        yield replica


async def next_of(batches: AsyncGenerator[Batch, None]) -> Batch:
    async with asyncio.timeout(60):
        return await anext(batches)


async def next_changes(batches: AsyncGenerator[Batch, None]) -> tuple[Sequence[Change], Position]:
    """Those of the next batch that is not empty."""
    while True:
        batch = await next_of(batches)
        if batch.changes:
            return batch.changes, batch.position


def told(changes: Sequence[Change]) -> list[tuple[str, int, str]]:
    return [(change.workflow.id, change.workflow.version, change.action) for change in changes]


async def test_a_watch_begins_now_and_tells_what_is_saved(replica: Replica) -> None:
    await replica.save("a", id=ID)
    async with replica.watch() as batches:
        first = await next_of(batches)
        assert not first.changes
        saved = await replica.save("b", id=ID, version=1, name="orders", description="about", labels={"k": "v"})
        changes, _ = await next_changes(batches)
        assert [change.workflow for change in changes] == [saved.stored.workflow]
        assert (changes[0].action, changes[0].principal, changes[0].layout) == ("workflow.saved", "tester", False)
        await replica.save(a_graph("b", nodes={"b": {"position": NodePosition(1, 2)}}), id=ID, version=2, name="orders")
        changes, _ = await next_changes(batches)
        assert changes[0].layout is False  # what it says of itself has changed as well
        await replica.save(a_graph("b", nodes={"b": {"position": NodePosition(3, 2)}}), id=ID, version=3, name="orders")
        changes, _ = await next_changes(batches)
        assert (told(changes), changes[0].layout) == ([(ID, 4, "workflow.saved")], True)
        await replica.save("c", id=OTHER)
        assert told((await next_changes(batches))[0]) == [(OTHER, 1, "workflow.created")]


async def test_restores_are_told_and_saves_that_change_nothing_are_not(replica: Replica, database: Database) -> None:
    history = History(replica.store, Events(database), saving_of(replica.store))
    await replica.save("a", id=ID)
    async with replica.watch() as batches:
        await next_of(batches)
        await replica.save("a", id=ID, version=1)
        await replica.save("b", id=ID, version=1, validate_only=True)
        await replica.save("b", id=ID, version=1)
        assert told((await next_changes(batches))[0]) == [(ID, 2, "workflow.saved")]
        await history.restore(RestoreCommand("default", ID, 1, 2, AUTHOR))
        assert told((await next_changes(batches))[0]) == [(ID, 3, "workflow.restored")]


async def test_an_archived_workflow_is_told_as_such(replica: Replica, sql: Sql) -> None:
    saved = await replica.save("a", id=ID)
    async with replica.watch() as batches:
        await next_of(batches)
        for action in ("archived", "unarchived"):
            await sql(
                "insert into graph_store.audit_event (namespace, id, workflow_id, action, principal_name, from_version,"
                " to_version) values ('default', gen_random_uuid(), $1::uuid, $2, 'ada', 1, 1)",
                ID,
                f"workflow.{action}",
            )
            ((change,), _) = await next_changes(batches)
            assert (change.action, change.principal, change.layout) == (f"workflow.{action}", "ada", False)
            assert change.workflow.archived == (action == "archived")
            assert change.workflow.updated_at == saved.stored.workflow.updated_at


async def test_a_watch_of_some_workflows_tells_of_no_others(replica: Replica) -> None:
    async with replica.watch(ID) as mine, replica.watch(namespace="other") as elsewhere:
        await next_of(mine)
        await next_of(elsewhere)
        await replica.save("a", id=OTHER)
        await replica.save("a", id=ID, namespace="other")
        await replica.save("a", id=ID)
        (change,), _ = await next_changes(mine)
        assert (change.workflow.id, change.workflow.namespace) == (ID, "default")
        (change,), _ = await next_changes(elsewhere)
        assert (change.workflow.id, change.workflow.namespace) == (ID, "other")


async def test_of_a_workflow_that_was_saved_often_the_newest_state_is_told(replica: Replica) -> None:
    async with replica.watch() as batches:
        start = (await next_of(batches)).position
    await replica.save("a", id=ID)
    await replica.save(a_graph("a", nodes={"a": {"position": NodePosition(3, 2)}}), id=ID, version=1)
    async with replica.watch(since=start) as batches:
        (change,), _ = await next_changes(batches)
        assert (change.workflow.version, change.layout) == (2, False)  # the first of both was more than layout


async def test_what_a_replica_changes_is_told_at_another_by_its_hint(
    replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch, sql: Sql
) -> None:
    monkeypatch.setattr(feeding, "LOOK_INTERVAL", NEVER)
    async with replica.watch() as batches:
        await next_of(batches)
        await until_listening(sql)
        await other.save("a", id=ID)
        assert told((await next_changes(batches))[0]) == [(ID, 1, "workflow.created")]


async def until_listening(sql: Sql) -> None:
    listening = "select 1 from pg_stat_activity where application_name like '% listen' and query ilike 'listen%'"
    async with asyncio.timeout(20):
        while not await sql(listening + " and datname = current_database()"):
            await asyncio.sleep(0.01)


async def test_a_hint_that_is_lost_delays_a_change_and_loses_nothing(replica: Replica, save: Saves) -> None:
    async with replica.watch() as batches:
        await next_of(batches)
        await save("a", id=ID)  # by a store that tells nobody
        assert told((await next_changes(batches))[0]) == [(ID, 1, "workflow.created")]


async def test_a_connection_for_hints_that_is_cut_is_made_again(
    replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch, sql: Sql, postgres: PostgresForTests,
    graph_store_database_url: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(feeding, "LOOK_INTERVAL", NEVER)
    monkeypatch.setattr(feeding, "RELISTEN", timedelta(milliseconds=10))
    async with replica.watch() as batches:
        await next_of(batches)
        await until_listening(sql)
        listeners = "from pg_stat_activity where application_name like '% listen' and datname = current_database()"
        url = postgres.admin_url_in(graph_store_database_url)
        ((cut,),) = await sql(f"select pid {listeners}")
        postgres.execute(f"select pg_terminate_backend(pid) {listeners}", url=url)
        async with asyncio.timeout(20):
            while not await sql(f"select pid {listeners} and pid <> $1 and query ilike 'listen%'", cut):
                await asyncio.sleep(0.01)
        await other.save("a", id=ID)
        assert told((await next_changes(batches))[0]) == [(ID, 1, "workflow.created")]


async def test_nobody_looks_or_listens_while_nobody_watches(replica: Replica, sql: Sql) -> None:
    for _ in range(2):
        async with replica.watch() as batches, replica.watch() as others:
            await next_of(batches)
            await next_of(others)
            assert replica.feed.watched == 2
        assert replica.feed.watched == 0
        async with asyncio.timeout(20):
            while [task for task in asyncio.all_tasks() if task.get_name().startswith("workflow ")]:
                await asyncio.sleep(0.01)


class Writer:
    """Changes of workflows that are there, in transactions of its own, told only by the audit that they leave."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transaction: Any = None

    async def change(self, workflow_id: str) -> None:
        if self._transaction is None:
            self._transaction = self._connection.transaction()
            await self._transaction.start()
        await self._connection.execute(
            "insert into graph_store.audit_event (namespace, id, workflow_id, action, principal_name, from_version,"
            " to_version) values ('default', $1::uuid, $2::uuid, 'workflow.saved', 'writer', 1, 1)",
            str(uuid_utils.uuid7()),
            workflow_id,
        )

    async def end(self, *, commit: bool = True) -> None:
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            await (transaction.commit() if commit else transaction.rollback())


@pytest.fixture
async def writers(graph_store_database_url: str) -> AsyncIterator[list[Writer]]:
    connections = [await asyncpg.connect(graph_store_database_url) for _ in range(6)]
    try:
        yield [Writer(connection) for connection in connections]
    finally:
        for connection in connections:
            await connection.close()


async def workflows_named(sql: Sql, count: int) -> list[str]:
    """Workflows with one version each and no audit."""
    ids = [str(uuid_utils.uuid7()) for _ in range(count)]
    await sql(
        "insert into graph_store.workflow (id, content_hash) select id, 'x' from unnest($1::uuid[]) as id",
        ids,
    )
    await sql(
        "insert into graph_store.workflow_version (workflow_id, version, document, content_hash, row_ids, node_count,"
        " edge_count) select id, 1, '{}', 'x', '{}', 0, 0 from unnest($1::uuid[]) as id",
        ids,
    )
    return ids


async def test_what_commits_late_is_told_when_it_commits(replica: Replica, sql: Sql, writers: list[Writer]) -> None:
    early, late = await workflows_named(sql, 2)
    await writers[0].change(late)
    async with replica.watch() as batches:
        first = await next_of(batches)
        await writers[1].change(early)
        await writers[1].end()
        changes, position = await next_changes(batches)
        assert [change.workflow.id for change in changes] == [early]
        await writers[0].end()
        assert [change.workflow.id for change in (await next_changes(batches))[0]] == [late]
    async with replica.watch(since=position) as batches:
        assert [change.workflow.id for change in (await next_changes(batches))[0]] == [late]
    async with replica.watch(since=first.position) as batches:
        assert [change.workflow.id for change in (await next_changes(batches))[0]] == [late, early]


async def test_a_save_gets_its_transaction_id_only_when_it_has_the_lock(
    save: Saves, sql: Sql, graph_store_database_url: str
) -> None:
    """So that the events of a workflow are in order by transaction."""
    await save("a", id=ID)
    holder = await asyncpg.connect(graph_store_database_url)
    waiting = (
        "select backend_xid from pg_stat_activity where application_name = 'graph store under test'"
        " and datname = current_database() and wait_event_type = 'Lock'"
    )
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("select 1 from graph_store.workflow for update")
        saving = asyncio.create_task(save("b", id=ID, version=1, request_id="r"))
        async with asyncio.timeout(20):
            while not (found := await sql(waiting)):
                await asyncio.sleep(0.01)
        assert [row[0] for row in found] == [None]
        await transaction.rollback()
        assert (await saving).stored.workflow.version == 2
    finally:
        await holder.close()


async def test_what_was_committed_before_the_watch_began_is_not_told(
    replica: Replica, sql: Sql, writers: list[Writer]
) -> None:
    before, after = await workflows_named(sql, 2)
    async with replica.watch() as already:
        await next_of(already)
        await writers[0].change(before)
        await writers[0].end()
        async with replica.watch() as batches:
            await next_of(batches)
            await writers[0].change(after)
            await writers[0].end()
            assert [change.workflow.id for change in (await next_changes(batches))[0]] == [after]


@pytest.mark.parametrize("seed", range(4))
async def test_every_change_is_told_once_however_streams_break_and_transactions_overlap(
    replica: Replica,
    other: Replica,
    sql: Sql,
    writers: list[Writer],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(feeding, "LOOK_INTERVAL", timedelta(milliseconds=5))
    monkeypatch.setattr(feeding, "LEAST_PAUSE", timedelta(milliseconds=1))
    monkeypatch.setattr(feeding, "AT_ONCE", chance.choice([5, 40]))
    monkeypatch.setattr(watching, "AT_ONCE", chance.choice([1, 3, 10]))
    *ids, last = await workflows_named(sql, 401)
    seen: list[str] = []
    expected: list[str] = []

    async def write() -> None:
        waiting: dict[Writer, list[str]] = {writer: [] for writer in writers}
        for workflow_id in ids:
            writer = chance.choice(writers)
            await writer.change(workflow_id)
            waiting[writer].append(workflow_id)
            if chance.random() < 0.3:
                writer = chance.choice(writers)
                commit = chance.random() < 0.8
                await writer.end(commit=commit)
                ended, waiting[writer] = waiting[writer], []
                expected.extend(ended if commit else [])
            if chance.random() < 0.05:
                await asyncio.sleep(0.01)
        for writer, ended in waiting.items():
            await writer.end()
            expected.extend(ended)
        await writers[0].change(last)  # told after all that was committed before it
        await writers[0].end()
        expected.append(last)

    async def watch() -> None:
        position: Position | None = None
        while last not in seen:
            request = pb.WatchWorkflowsRequest(resume_token=resume_token(position) if position else "")
            since = read_watch(request, "default").since
            assert since == position
            async with chance.choice([replica, other]).watch(since=since) as batches:
                for _ in range(chance.choice([1, 2, 5, 50])):
                    if last in seen:
                        break
                    batch = await next_of(batches)
                    seen.extend(change.workflow.id for change in batch.changes)
                    position = batch.position
                    started.set()

    started = asyncio.Event()
    watcher = asyncio.create_task(watch())
    await started.wait()
    async with asyncio.timeout(60):
        await asyncio.gather(write(), watcher)
    assert len(seen) == len(set(seen))
    assert set(seen) == set(expected)
    # Nothing comes after it.
    async with replica.watch() as batches:
        assert not (await next_of(batches)).changes


async def test_a_stream_that_does_not_read_is_told_all_the_same(
    replica: Replica, sql: Sql, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "AT_ONCE", 10)
    monkeypatch.setattr(watching, "AT_ONCE", 7)
    ids = await workflows_named(sql, 50)
    async with replica.watch() as slow, replica.watch(ids[49]) as quick:
        await next_of(slow)
        await next_of(quick)
        for workflow_id in ids:
            await writers[0].change(workflow_id)
            await writers[0].end()
            replica.feed.look_now()
        await next_changes(quick)  # the feed has come to the end
        seen: list[str] = []
        while len(seen) < len(ids):
            seen += [change.workflow.id for change in (await next_changes(slow))[0]]
        assert seen == ids


async def test_a_position_of_another_database_is_refused(replica: Replica) -> None:
    async with replica.watch() as batches:
        position = (await next_of(batches)).position
    ahead = Snapshot(position.seen.top + 1_000)
    for since in (Position(ahead), Position(position.seen, ahead), Position(ahead, position.seen)):
        async with replica.watch(since=since) as batches:
            with pytest.raises(InvalidRequest, match="restored") as refused:
                await next_of(batches)
        assert refused.value.details.violations[0].field == "resumeToken"


async def test_ids_that_a_crash_may_give_out_again_are_not_taken_for_seen(
    database: Database, replica: Replica, sql: Sql
) -> None:
    """A notification's commit is not waited for: PostgreSQL may forget it, and a save may get its id."""
    await replica.save("a", id=ID)
    events = Events(database)
    _, before = await events.changes_since(None, ["default"], limit=10)
    for _ in range(3):
        await sql("select pg_notify('nobody', ''), pg_current_xact_id()")
    _, after = await events.changes_since(before, ["default"], limit=10)
    [(written_in,)] = await sql("select max(written_in) from graph_store.audit_event")
    # Whatever is `open`: tests beside this one have transactions of theirs in the same cluster.
    assert before.top == after.top == written_in + 1


async def test_i24_streams_end_when_the_service_stops_and_no_new_ones_begin(replica: Replica, other: Replica) -> None:
    async with replica.watch() as batches, replica.watch() as fresh:
        position = (await next_of(batches)).position
        await replica.feed.close()
        for stream in (batches, fresh):
            with pytest.raises(Unavailable, match="stopping"):
                await next_of(stream)
    await replica.save("a", id=ID)
    async with other.watch(since=position) as batches:
        assert told((await next_changes(batches))[0]) == [(ID, 1, "workflow.created")]


async def test_i24_a_database_that_is_away_for_long_ends_the_streams(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(feeding, "LOOK_INTERVAL", timedelta(milliseconds=5))
    async with replica.watch() as batches:
        await next_of(batches)
        with monkeypatch.context() as patch:
            patch.setattr(Events, "changes_since", fail)
            for _ in range(3):
                replica.feed.look_now()
                await asyncio.sleep(0)
        await replica.save("a", id=ID)
        assert await next_changes(batches)  # a moment of it ends nothing
        monkeypatch.setattr(feeding, "PATIENCE", timedelta(milliseconds=20))
        monkeypatch.setattr(Events, "changes_since", fail)
        with pytest.raises(Unavailable, match="away"):
            await next_of(batches)
        async with replica.watch() as refused:
            with pytest.raises(Unavailable, match="away"):
                await next_of(refused)


@pytest.mark.parametrize("planned", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("part", ["live", "missed"])
async def test_what_changed_is_read_by_keys_however_it_is_planned(sql: Sql, part: str, planned: str) -> None:
    ids = await workflows_named(sql, 3_000)
    await sql(
        "insert into graph_store.audit_event (namespace, id, workflow_id, action, principal_name, to_version,"
        " written_in) select 'default', gen_random_uuid(), ($1::uuid[])[1 + g % 3000], 'workflow.saved', 'x', 1, 10 + g"
        " from generate_series(1, 30000) g",
        ids,
    )
    for table in ("audit_event", "workflow", "workflow_version"):
        await sql(f"analyze graph_store.{table}")
    await sql(f"set plan_cache_mode = {planned}")
    if part == "live":
        await sql("prepare read as " + queries.CHANGES_SINCE)
        plan = await sql("explain execute read (29900, '{40,50}', '{default}', 5001)")
    else:
        await sql("prepare read as " + queries.CHANGES_BETWEEN)
        plan = await sql("explain execute read ('default', 29000, '{40}', 40000, '{39000}', 0, 0, 500, null)")
    text = "\n".join(row[0] for row in plan)
    assert ("$1" in text) == (planned == "force_generic_plan")
    assert text.count("audit_event_written_idx") == (3 if part == "live" else 2)
    assert "Index Scan using workflow_pkey" in text
    assert "Index Scan using workflow_version_pkey" in text
    assert "Seq Scan" not in text
