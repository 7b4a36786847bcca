"""The database as services see it: sessions, transactions, pools, faults."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from sqlalchemy import text

from services.chassis import database as chassis_database
from services.chassis.database import CONNECT_SLACK, DRIVER_SLACK, Database, translated, with_retries
from services.chassis.health import Health
from services.chassis.settings import DatabaseSettings, SettingsError, require_supported
from tests.postgres import PostgresForTests
from valkyr.client.client import DEFAULT_TIMEOUT
from valkyr.errors import Conflict, InvalidRequest, Overloaded, Unavailable

QUICK = timedelta(milliseconds=300)
PATIENT = timedelta(seconds=20)


def settings_of(url: str, **changes: object) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": url, "pool_size": 2, "transaction_pool_size": 2} | changes)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(
        settings_of(database_url, acquire_timeout=PATIENT, statement_timeout=PATIENT * 2, lock_timeout=PATIENT),
        schema="toys",
        application_name="toys",
    )
    async with database.acquire() as connection:
        await connection.execute("create table public.toy (id int primary key, n int not null default 0)")
        await connection.execute("insert into public.toy values (1), (2)")
    yield database
    await database.close()


@contextmanager
def hurried(database: Database) -> Iterator[None]:
    """Nobody waits long for a connection within the block; those that are open have had their time to come up."""
    patient, pool = database.settings, database.engine.sync.pool
    database.settings = patient.model_copy(update={"acquire_timeout": QUICK})
    before, pool._timeout = pool._timeout, QUICK.total_seconds()  # type: ignore[attr-defined]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chassis_database, "CONNECT_SLACK", PATIENT)
            yield
    finally:
        database.settings, pool._timeout = patient, before  # type: ignore[attr-defined]


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_every_session_has_the_services_settings(database: Database) -> None:
    expected = {
        "statement_timeout": "40s",
        "lock_timeout": "20s",
        "idle_in_transaction_session_timeout": "10s",
        "default_transaction_isolation": "read committed",
        "TimeZone": "UTC",
        "application_name": "toys",
    }
    async with database.acquire() as hot, database.transaction() as cold:
        for name, value in expected.items():
            assert await hot.fetchval("select current_setting($1)", name) == value
            assert (await cold.execute(text("select current_setting(:name)"), {"name": name})).scalar() == value


async def test_json_is_text_on_hot_connections(database: Database) -> None:
    async with database.acquire() as connection:
        assert await connection.fetchval("""select '{"a": 1}'::jsonb""") == '{"a": 1}'


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_exception(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("update public.toy set n = 1 where id = 1"))
    with pytest.raises(KeyError):
        async with database.transaction() as tx:
            await tx.execute(text("update public.toy set n = 2 where id = 1"))
            raise KeyError
    async with database.acquire() as connection:
        assert await connection.fetchval("select n from public.toy where id = 1") == 1


async def test_a_pool_that_is_used_up_is_overloaded_and_the_reserved_one_still_serves(database: Database) -> None:
    async with database.acquire(), database.acquire():
        with hurried(database), pytest.raises(Overloaded) as caught:
            async with database.acquire():
                pass
        assert caught.value.details.retry_after == timedelta(seconds=1)
        async with database.acquire(reserved=True) as connection:
            assert await connection.fetchval("select 1") == 1
    async with database.transaction(), database.transaction():
        with hurried(database), pytest.raises(Overloaded):
            async with database.transaction():
                pass


async def test_what_takes_too_long_or_waits_for_a_lock_is_overloaded(database: Database) -> None:
    with pytest.raises(Overloaded, match="took too long"):
        async with database.transaction() as tx:
            await tx.execute(text("set local statement_timeout = 300"))
            await tx.execute(text("select pg_sleep(20)"))
    async with database.transaction() as holder:
        await holder.execute(text("update public.toy set n = 5 where id = 1"))
        with pytest.raises(Overloaded, match="hold the rows"):
            async with database.acquire() as connection, connection.transaction():
                await connection.execute("set local lock_timeout = 300")
                await connection.execute("update public.toy set n = 6 where id = 1")


async def test_lists_leave_most_of_the_pool_to_what_is_hot(database_url: str) -> None:
    settings = settings_of(database_url, pool_size=6, acquire_timeout=PATIENT, statement_timeout=QUICK)
    database = await Database.open(settings, schema="toys", application_name="toys")
    try:
        async with database.listing(), database.listing():
            with hurried(database), pytest.raises(Overloaded, match="too many lists") as refused:
                async with database.listing():
                    pytest.fail("a third list at once")
            assert refused.value.details.retry_after
            async with database.acquire() as one, database.acquire() as two:
                assert await one.fetchval("select 1") == await two.fetchval("select 1") == 1
        with pytest.raises(Overloaded, match=r"longer than the 0\.3 s") as refused:
            async with database.listing() as connection:
                await connection.fetchval("select pg_sleep(2)")
        assert "time range" in refused.value.hint
        assert refused.value.details.retry_after is None, "the same list would take as long again"
        async with database.listing() as connection:
            assert await connection.fetchval("select 1") == 1
    finally:
        await database.close()


async def test_i25_a_text_that_cannot_be_stored_is_an_invalid_request(database: Database) -> None:
    for unstorable in ("a\x00b", "\ud800"):
        with pytest.raises(InvalidRequest):
            async with database.acquire() as connection:
                await connection.fetchval("select $1::text", unstorable)
        with pytest.raises(InvalidRequest):
            async with database.transaction() as tx:
                await tx.execute(text("select cast(:x as text)"), {"x": unstorable})


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("select $1::int", 2**31),
        ("select ($1::bigint)::int", 2**31),
        ("insert into public.short values ($1)", "four"),
        ("select ($1::text)::numeric", "1e200000"),
    ],
    ids=["by the driver", "22003", "22001", "far too large"],
)
async def test_i25_a_value_too_large_to_be_stored_is_an_invalid_request(
    database: Database, statement: str, value: object
) -> None:
    async with database.acquire() as connection:
        await connection.execute("create table public.short (text varchar(3))")
    with pytest.raises(InvalidRequest, match="too long or too large to be stored"):
        async with database.acquire() as connection:
            await connection.fetchval(statement, value)


async def test_a_violated_constraint_passes_as_it_is(database: Database) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.acquire() as connection:
            await connection.execute("insert into public.toy values (1)")


async def test_i24_a_connection_cut_in_the_middle_is_unavailable_and_the_pools_recover(
    database: Database, postgres: PostgresForTests, database_url: str
) -> None:
    cut = partial(
        postgres.execute,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name like 'toys%' and datname = current_database()",
        url=postgres.admin_url_in(database_url),
    )
    for reserved in (False, True):
        with pytest.raises(Unavailable) as caught:
            async with database.acquire(reserved=reserved) as connection:
                await asyncio.to_thread(cut)
                await connection.fetchval("select 1")
        assert caught.value.details.retry_after is not None
    with pytest.raises(Unavailable):
        async with database.transaction() as tx:
            await tx.execute(text("select 1"))
            await asyncio.to_thread(cut)
            await tx.execute(text("select 1"))

    async def works() -> bool:
        try:
            async with database.acquire() as connection, database.transaction() as tx:
                await tx.execute(text("select 1"))
                return bool(await connection.fetchval("select 1"))
        except Unavailable:
            return False

    await until(works)


async def test_i24_a_postgresql_that_hangs_is_unavailable_before_a_client_gives_up(
    postgres: PostgresForTests, database_url: str
) -> None:
    database = await Database.open(
        settings_of(database_url, statement_timeout=QUICK * 4), schema="toys", application_name="toys"
    )
    async with database.transaction() as tx:
        await tx.execute(text("select 1"))
    name = urlsplit(database_url).path[1:]
    sessions = "select pid from pg_stat_activity where datname = $1 and backend_type = 'client backend'"
    pids = [row[0] for row in await asyncio.to_thread(postgres.fetch, sessions, name)]

    async def hot() -> None:
        async with database.acquire() as connection:
            await connection.fetchval("select 1")

    async def cold() -> None:
        async with database.transaction() as tx:
            await tx.execute(text("select 1"))

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(DEFAULT_TIMEOUT.total_seconds()):
            answers = await asyncio.gather(hot(), cold(), return_exceptions=True)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    for told in answers:
        assert isinstance(told, Unavailable)
        assert told.details.retry_after is not None
    closing = timedelta(seconds=2.5)
    defaults = settings_of(database_url)
    assert defaults.statement_timeout + DRIVER_SLACK + closing < DEFAULT_TIMEOUT
    assert defaults.acquire_timeout + CONNECT_SLACK + defaults.statement_timeout + DRIVER_SLACK < DEFAULT_TIMEOUT
    await hot()
    await cold()
    await database.close()


async def test_i24_nobody_listening_is_unavailable_within_the_time_allowed() -> None:
    settings = settings_of("postgresql://u@127.0.0.1:1/d", startup_timeout=timedelta(milliseconds=200))
    with structlog.testing.capture_logs() as events, pytest.raises(Unavailable, match="does not come up"):
        await Database.open(settings, schema="toys", application_name="toys")
    assert [event["event"] for event in events] == ["database.awaited"]


async def test_a_database_that_is_not_there_is_said_at_once(database_url: str) -> None:
    with pytest.raises(SettingsError, match="no_such_database"):
        await Database.open(
            settings_of(database_url.replace("/test_", "/no_such_database_test_")), schema="t", application_name="t"
        )


@pytest.mark.parametrize(("major", "fits"), [(14, False), (15, True), (18, True), (19, False)])
def test_only_versions_15_to_18_are_taken(major: int, fits: bool) -> None:
    if fits:
        require_supported(major)
    else:
        with pytest.raises(SettingsError, match=f"PostgreSQL {major}; takes 15 to 18"):
            require_supported(major)


async def test_a_deadlock_is_tried_again_as_a_whole_until_it_succeeds(database: Database) -> None:
    both_hold_one = asyncio.Barrier(2)
    tries = 0

    async def swap(first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        async with database.acquire() as connection, connection.transaction():
            # The server takes a second until it looks for a deadlock: nothing else may end the wait before.
            await connection.execute("set local lock_timeout = 0; set local statement_timeout = 0")
            await connection.execute("update public.toy set n = n + 1 where id = $1", first)
            if tries <= 2:
                await both_hold_one.wait()
            await connection.execute("update public.toy set n = n + 1 where id = $1", second)

    await asyncio.gather(with_retries(lambda: swap(1, 2)), with_retries(lambda: swap(2, 1)))
    assert tries == 3
    async with database.acquire() as connection:
        assert [row["n"] for row in await connection.fetch("select n from public.toy")] == [2, 2]


async def test_what_never_serializes_is_a_conflict_after_five_repeats(database: Database) -> None:
    tries = 0

    async def never() -> None:
        nonlocal tries
        tries += 1
        async with database.acquire() as connection:
            await connection.execute("do $$ begin raise exception sqlstate '40001'; end $$")

    with pytest.raises(Conflict):
        await with_retries(never)
    assert tries == 6


@pytest.mark.parametrize("hot", [True, False], ids=["asyncpg", "sqlalchemy"])
async def test_cancelling_at_any_moment_leaks_no_connection(database: Database, hot: bool) -> None:
    async def work() -> None:
        if hot:
            async with database.acquire() as connection:
                await connection.fetchval("select pg_sleep(0.002)")
        else:
            async with database.transaction() as tx:
                await tx.execute(text("select pg_sleep(0.002)"))

    for round_number in range(200):
        tasks = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep((round_number % 20) * 0.0003)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(2):
        await asyncio.gather(work(), work())
    assert database.engine.sync.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_commit_once_begun_is_seen_to_its_end_though_the_caller_is_cancelled(
    database: Database, postgres: PostgresForTests, database_url: str
) -> None:
    slow = """
        create function public.slowly() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock(7); return null; end $$;
        create constraint trigger slow after update on public.toy deferrable initially deferred
        for each row execute function public.slowly()
    """
    waiting = """
        select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())
    """

    async def change() -> None:
        async with database.transaction() as tx:
            await tx.execute(text("update public.toy set n = 9 where id = 1"))

    async with database.acquire() as connection:
        await connection.execute(slow)
        await connection.fetchval("select pg_advisory_lock(7)")
        task = asyncio.create_task(change())
        await until(lambda: connection.fetchval(waiting))
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.5)
        assert not done, "it waits for its commit"
        await connection.fetchval("select pg_advisory_unlock(7)")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await connection.fetchval("select n from public.toy where id = 1") == 9


@pytest.mark.parametrize("setting", ["synchronous_commit"])
async def test_a_database_that_would_lose_commits_is_not_served_from_and_logged_loudly(
    database: Database, postgres: PostgresForTests, database_url: str, setting: str
) -> None:
    name = database_url.split("@/")[1].split("?")[0]
    await asyncio.to_thread(postgres.execute, f"alter database {name} set {setting} = off")
    other = await Database.open(settings_of(database_url), schema="toys", application_name="toys")
    health = Health()
    with structlog.testing.capture_logs() as events:
        watching = asyncio.create_task(other.watch(health))

        async def is_unfit() -> bool:
            return "database" in health.problems

        await until(is_unfit)
        watching.cancel()
        await asyncio.wait([watching])
    assert f"{setting} = off" in health.problems["database"]
    assert [event["log_level"] for event in events if event["event"] == "database.unfit"] == ["critical"]
    await other.close()


def test_i24_a_connection_cut_in_the_midst_of_the_protocol_is_unavailable() -> None:
    with pytest.raises(Unavailable), translated():
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")


async def test_a_value_of_a_wrong_type_is_a_bug_and_passes(database: Database) -> None:
    with pytest.raises(asyncpg.DataError):
        async with database.acquire() as connection:
            await connection.fetchval("select $1::int", "one")


def test_a_bug_is_not_hidden_as_an_outage() -> None:
    with pytest.raises(asyncpg.UndefinedTableError), translated():
        raise asyncpg.UndefinedTableError("relation does not exist")
    with pytest.raises(asyncpg.InterfaceError), translated():
        raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
