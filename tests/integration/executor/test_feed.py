"""The feed: what others commit is found however late they do; each stream is told the newest state, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from services.executor import feed as feeds
from services.executor.feed import Feed, Subscription
from services.executor.model import ExecutionView
from services.executor.signals import Signals
from services.executor.store.session import Session
from tests.builders import a_graph
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.errors import Overloaded, Unavailable

TOUCH = """UPDATE executor.workflow_execution SET revision = revision + 1,
    changed_in = pg_current_xact_id()::text::bigint WHERE id = $1"""
SOON = timedelta(seconds=20)


@pytest.fixture
async def quick(make_stack: OpenStack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    """A stack whose feed looks often, as what is tested here comes by looks."""
    monkeypatch.setattr(feeds, "LOOK_INTERVAL", timedelta(milliseconds=50))
    async with make_stack() as stack:
        yield stack


def a_feed(stack: Stack) -> Feed:
    """One that hears nothing of what happens in this process."""
    signals = Signals()
    return Feed(Session(stack.app.database, unsure=signals.anything), signals)


async def next_change(subscription: Subscription) -> ExecutionView:
    [view] = await subscription.changed_within(SOON)
    return view


async def test_what_commits_late_is_found_though_later_transactions_were_told_before(quick: Stack) -> None:
    first = (await quick.run(a_graph("a"))).id
    second = (await quick.run(a_graph("a"))).id
    feed = a_feed(quick)
    late = await asyncpg.connect(quick.database_url)
    try:
        async with feed.subscription("default", ids=[UUID(first), UUID(second)]) as told:
            transaction = late.transaction()
            await transaction.start()
            await late.execute(TOUCH, first)
            await quick.sql.execute(TOUCH, second)
            assert (await next_change(told)).id == UUID(second)
            await transaction.commit()
            assert (await next_change(told)).id == UUID(first)
    finally:
        await late.close()


async def test_a_mark_is_before_everything_that_was_not_told(quick: Stack) -> None:
    execution_id = (await quick.run(a_graph("a"))).id
    feed = a_feed(quick)
    async with feed.subscription("default", ids=[UUID(execution_id)]) as told:
        mark = feed.mark
        await quick.sql.execute(TOUCH, execution_id)
        changed = await next_change(told)
    written = await quick.sql.fetchval("SELECT changed_in FROM executor.workflow_execution WHERE id = $1", execution_id)
    assert mark <= written
    assert changed.revision > 2


async def test_a_change_is_told_once(quick: Stack) -> None:
    execution_id = (await quick.run(a_graph("a"))).id
    feed = a_feed(quick)
    async with feed.subscription("default") as told:
        for _ in range(3):
            await quick.sql.execute(TOUCH, execution_id)
            await next_change(told)
        assert await told.changed_within(10 * feeds.LOOK_INTERVAL) == []


async def test_a_row_of_another_databases_life_is_not_told_for_ever(quick: Stack) -> None:
    execution_id = (await quick.run(a_graph("a"))).id
    feed = a_feed(quick)
    async with feed.subscription("default") as told:
        beyond = "UPDATE executor.workflow_execution SET revision = 90, changed_in = 4611686018427387904 WHERE id = $1"
        await quick.sql.execute(beyond, execution_id)
        assert await told.changed_within(10 * feeds.LOOK_INTERVAL) == []


async def test_i24_with_the_database_away_every_stream_is_told_and_a_new_one_is_refused(quick: Stack) -> None:
    feed = a_feed(quick)
    async with feed.subscription("default") as told:
        await quick.app.database.pool.close()
        with pytest.raises(Unavailable):
            await told.changed_within(SOON)
    with pytest.raises(Unavailable):
        async with feed.subscription("default"):
            pass


END = """UPDATE executor.workflow_execution SET state = 'SUCCESS', revision = revision + 1, finished_at = now(),
    changed_in = pg_current_xact_id()::text::bigint WHERE id = $1"""


async def test_who_waits_hears_of_an_end_that_another_replica_made_between_the_question_and_the_first_look(
    quick: Stack,
) -> None:
    execution_id = await quick.start(a_graph("a", modules={"a": "HeldModule"}))
    executions = quick.app.parts.executions
    asked = executions._read

    async def asked_and_then_ended(namespace: str, which: UUID, *, only_settled: bool) -> ExecutionView:
        view = await asked(namespace, which, only_settled=only_settled)
        await quick.sql.execute(END, execution_id)
        return view

    executions._read = asked_and_then_ended  # type: ignore[method-assign]
    started = asyncio.get_running_loop().time()
    view = await executions.wait("default", UUID(execution_id), timedelta(minutes=10))
    assert view.state is ExecutionState.SUCCESS
    assert asyncio.get_running_loop().time() - started < SOON.total_seconds(), "not at its timeout"


async def test_ids_that_a_crash_may_give_out_again_are_not_taken_for_seen(quick: Stack) -> None:
    """A notification's commit is not waited for: PostgreSQL may forget it, and a change may get its id."""
    await quick.run(a_graph("a"))
    _, before = await feeds.store.changes_since(quick.sql, None)
    for _ in range(3):
        await quick.sql.execute("SELECT pg_notify('nobody', ''), pg_current_xact_id()")
    _, after = await feeds.store.changes_since(quick.sql, before)
    written = await quick.sql.fetchval("SELECT max(changed_in) FROM executor.workflow_execution")
    # Not `oldest_open`: tests beside this one have transactions of theirs open in the same cluster.
    assert before.top == after.top == written + 1


async def test_a_moment_of_overload_breaks_no_stream(quick: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = (await quick.run(a_graph("a"))).id
    feed = a_feed(quick)
    async with feed.subscription("default") as told:
        good = feeds.store.changes_since
        failures = 0

        async def overloaded(*_: object) -> object:
            nonlocal failures
            failures += 1
            raise Overloaded("busy", retry_after=timedelta(seconds=1))

        monkeypatch.setattr(feeds.store, "changes_since", overloaded)
        await quick.sql.execute(TOUCH, execution_id)
        await until_true(lambda: failures > 1, "looks have failed")
        monkeypatch.setattr(feeds.store, "changes_since", good)
        assert (await next_change(told)).id == UUID(execution_id)


async def test_what_changed_while_a_transaction_stays_open_is_read_once(quick: Stack) -> None:
    ids = [(await quick.run(a_graph("a"))).id for _ in range(3)]
    feed = a_feed(quick)
    reads: list[int] = []
    good = feeds.store.read_executions

    async def counted(connection: object, found: list[UUID]) -> list[ExecutionView]:
        reads.append(len(found))
        return await good(connection, found)

    late = await asyncpg.connect(quick.database_url)
    try:
        async with feed.subscription("default") as told:
            await late.execute("BEGIN")
            await late.execute(TOUCH, ids[0])
            feeds.store.read_executions = counted  # type: ignore[assignment]
            feed._told.clear()
            for execution_id in ids[1:]:
                await quick.sql.execute(TOUCH, execution_id)
                await next_change(told)
                feed._told.clear()  # as if it was too long ago to be remembered
            assert await told.changed_within(10 * feeds.LOOK_INTERVAL) == []
            assert sum(reads) == 2
    finally:
        feeds.store.read_executions = good
        await late.close()
