"""A session knows where a COMMIT was refused, and where nobody knows whether it was made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from services.chassis.database import Database
from services.chassis.settings import DatabaseSettings
from services.executor.store.session import Session
from valkyr.errors import Overloaded, Unavailable

# What is done at the end of a transaction that writes into `toy`: refuse it, or end the session.
AT_COMMIT = """
    CREATE TABLE public.toy (deed text);
    CREATE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        CASE new.deed
            WHEN 'refuse' THEN RAISE EXCEPTION 'no';
            WHEN 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid());
            ELSE NULL;
        END CASE;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON public.toy DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION public.at_commit();
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    settings = DatabaseSettings.model_validate({"url": database_url, "pool_size": 2})
    database = await Database.open(settings, schema="toys", application_name="toys")
    async with database.acquire() as connection:
        await connection.execute(AT_COMMIT)
    yield database
    await database.close()


class Waker:
    """Counts how often nobody knew."""

    def __init__(self, database: Database) -> None:
        self.woken = 0
        self.session = Session(database, unsure=self._wake)

    def _wake(self) -> None:
        self.woken += 1


def doing(deed: str) -> Any:
    async def work(tx: Any) -> str:
        await tx.execute("INSERT INTO public.toy VALUES ($1)", deed)
        return deed

    return work


async def test_a_commit_that_was_refused_wakes_nobody(database: Database) -> None:
    waker = Waker(database)
    for carried_out in (waker.session.repeat, waker.session.repeat_single):
        with pytest.raises(asyncpg.RaiseError):
            await carried_out(doing("refuse"))
        assert await carried_out(doing("nothing")) == "nothing"
    assert waker.woken == 0


async def test_a_statement_that_took_too_long_wakes_nobody(database: Database) -> None:
    waker = Waker(database)

    async def too_long(tx: Any) -> None:
        await tx.execute("SET statement_timeout = '100ms'")
        await tx.execute("SELECT pg_sleep(60)")

    for carried_out in (waker.session.repeat, waker.session.repeat_single):
        with pytest.raises(Overloaded):
            await carried_out(too_long)
    assert waker.woken == 0


async def test_what_broke_off_before_its_commit_wakes_nobody(database: Database) -> None:
    waker = Waker(database)

    async def broken(tx: Any) -> None:
        await doing("nothing")(tx)
        tx.terminate()
        await tx.fetchval("SELECT 1")

    with pytest.raises(Unavailable):
        await waker.session.repeat(broken)
    assert waker.woken == 0
    async with waker.session.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.toy") == 0


async def test_i24_where_the_session_ended_in_a_commit_everybody_is_woken(database: Database) -> None:
    waker = Waker(database)
    with pytest.raises(Unavailable):
        await waker.session.repeat(doing("die"))
    assert waker.woken == 1
    with pytest.raises(Unavailable):
        await waker.session.repeat_single(doing("die"))
    assert waker.woken == 2


async def test_i24_where_the_answer_to_a_commit_was_lost_everybody_is_woken_and_what_was_written_is_there(
    database: Database,
) -> None:
    waker = Waker(database)

    async def unheard(tx: Any) -> None:
        await doing("nothing")(tx)
        await tx.execute("COMMIT")
        tx.terminate()

    with pytest.raises(Unavailable):
        await waker.session.repeat(unheard)
    assert waker.woken == 1
    async with waker.session.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.toy") == 1


async def test_what_was_committed_wakes_whoever_waits_though_its_connection_cannot_be_given_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    waker = Waker(database)
    release = asyncpg.Pool.release

    async def fails(pool: asyncpg.Pool, connection: Any, **options: Any) -> None:
        await release(pool, connection, **options)
        raise asyncpg.InterfaceError("the connection is closing")

    for carried_out in (waker.session.repeat, waker.session.repeat_single):
        with monkeypatch.context() as broken:
            broken.setattr(asyncpg.Pool, "release", fails)
            with pytest.raises(Unavailable):
                await carried_out(doing("nothing"))
    assert waker.woken == 2
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.toy") == 2
