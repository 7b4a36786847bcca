"""WatchBreakers under its servicer: snapshot, changes of this and of other replicas, late commits, slow readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import pytest

from services.breaker import listening as listening_module
from services.breaker import queries
from services.breaker import watch as watch_module
from services.breaker.listening import Listener
from services.breaker.model.states import State
from services.breaker.model.views import BreakerView
from services.breaker.store import Changed
from services.breaker.watch import LOOK_INTERVAL, Batch, Watch
from services.chassis.loops import Step, run_every
from tests.chaos.proxy import Proxy, Way
from tests.executor_stack import PATIENCE, until_true
from tests.integration.breaker.conftest import TARGET, MovableClock, OpenReplica, Replica, Sql
from tests.postgres import patient
from valkyr.errors import Unavailable


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where notifications come late, they come all the same."""
    monkeypatch.setattr(listening_module, "TIME_TO_ARRIVE", timedelta(seconds=PATIENCE))


async def becomes(condition: Callable[[], bool]) -> None:
    await until_true(condition, "it becomes so")


@asynccontextmanager
async def looking(
    replica: Replica, *, every: timedelta = LOOK_INTERVAL, step: Step | None = None
) -> AsyncIterator[None]:
    """The loop of its process, by looking alone."""
    changes = replica.changes
    task = asyncio.create_task(run_every(every, step or changes.step, name="look", wake=changes.wake))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def listening(
    replica: Replica, *, url: str | None = None, watched: Callable[[], bool] | None = None
) -> AsyncIterator[None]:
    """Beside it the connection that hears of other replicas, by another address if one is given."""
    changes, database = replica.changes, replica.database
    if url is not None:
        database = copy(database)
        database.settings = patient(url)
    listener = Listener(
        database,
        replica.store,
        heard=changes.changed,
        hearing=changes.hearing,
        watched=watched or (lambda: changes.is_watched),
    )
    task = asyncio.create_task(listener.listen())
    try:
        await becomes(lambda: changes._hearing)
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(batches: AsyncIterator[Batch], fits: Callable[[BreakerView], bool]) -> BreakerView:
    """The first breaker that fits. TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        async for batch in batches:
            for view in batch.views:
                if fits(view):
                    return view
    raise AssertionError("the stream ended")


async def through_the_snapshot(batches: AsyncIterator[Batch]) -> list[BreakerView]:
    views: list[BreakerView] = []
    async for batch in batches:
        assert batch.in_snapshot
        views += batch.views
        if batch.is_last:
            return views
    raise AssertionError("the stream ended")


def is_open_of(target: str, view: BreakerView) -> bool:
    return view.key.target == target and is_open(view)


def is_open(view: BreakerView) -> bool:
    return view.circuit.state is State.OPEN


async def test_the_snapshot_is_of_those_that_ever_opened(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "PAGE", 2)
    for number in range(5):
        await replica.report(*"FFFFF", target=f"target-{number}", namespace="default" if number % 2 else "other")
    await replica.report("F", target="never-opened")
    async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        views = await through_the_snapshot(batches)
    keys = [(view.key.namespace, view.key.target) for view in views]
    assert sorted(keys) == sorted({("default" if n % 2 else "other", f"target-{n}") for n in range(5)})
    async with aclosing(Watch(replica.store, replica.changes, "other").batches()) as batches:
        assert len(await through_the_snapshot(batches)) == 3


@pytest.mark.parametrize("by_listening", [False, True], ids=["by looking", "by listening"])
async def test_i17_a_trip_at_another_replica_is_seen_by_the_next_look_or_by_a_notification(
    open_replica: OpenReplica, by_listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next look, of which there are two a second, or, while notifications arrive, by these alone."""
    assert timedelta(seconds=0.5) >= LOOK_INTERVAL
    if by_listening:
        monkeypatch.setattr(watch_module, "LOOK_INTERVAL_HEARING", timedelta(hours=1))
    here, there = await open_replica(), await open_replica()
    async with (
        looking(here),
        listening(here) if by_listening else AsyncExitStack(),
        aclosing(Watch(here.store, here.changes, "default").batches()) as batches,
    ):
        assert await through_the_snapshot(batches) == []
        for target in ("one", "two", "three"):
            await there.report(*"FFFFF", target=target)
            seen = await until(batches, partial(is_open_of, target))
            assert seen.circuit.generation == 1


async def test_every_step_of_a_recovery_is_seen(replica: Replica, clock: MovableClock) -> None:
    async with looking(replica), aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        await through_the_snapshot(batches)
        await replica.report(*"FFFFF")
        await until(batches, is_open)
        clock.advance(seconds=30)
        probes = [await replica.probe(run) for run in "ab"]
        await until(batches, lambda view: view.permits_in_flight == 2)
        await replica.report("S", generation=2, permit=probes[0].permit_id)
        await until(batches, lambda view: view.circuit.success_count == 1 and view.permits_in_flight == 1)
        await replica.report("S", generation=2, permit=probes[1].permit_id)
        closed = await until(batches, lambda view: view.circuit.state is State.CLOSED)
        assert closed.circuit.generation == 3


async def test_a_change_that_was_committed_late_is_not_missed(replica: Replica, breaker_database_url: str) -> None:
    await replica.report(*"FFFFF")
    connection = await asyncpg.connect(breaker_database_url)
    try:
        async with looking(replica), aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
            await through_the_snapshot(batches)
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(
                "update breaker.circuit_breaker_state set generation = 7, revision = revision + 1, "
                "last_modified_date = clock_timestamp()"
            )
            # Looks go by, and another breaker changes after it and is seen before it.
            for target in ("one", "two"):
                await replica.report(*"FFFFF", target=target)
                await until(batches, partial(is_open_of, target))
            await transaction.commit()
            seen = await until(batches, lambda view: view.circuit.generation == 7)
            assert seen.key.target == TARGET
    finally:
        await connection.close()


async def test_a_slow_reader_gets_the_newest_state_only(replica: Replica, clock: MovableClock) -> None:
    watch = Watch(replica.store, replica.changes, None)
    async with aclosing(watch.batches()) as batches:
        await through_the_snapshot(batches)
        await replica.report(*"FFFFF")
        generation = 1
        for _ in range(10):
            clock.advance(seconds=30)
            probe = await replica.probe()
            await replica.report("F", generation=generation + 1, permit=probe.permit_id)
            generation += 2
            await replica.changes.look()
        assert len(watch._pending) == 1
        batch = await anext(batches)
        assert [view.circuit.generation for view in batch.views] == [21]


async def test_a_reader_that_fell_behind_too_far_gets_everything_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "REMEMBERED", 3)
    watch = Watch(replica.store, replica.changes, None)
    async with aclosing(watch.batches()) as batches:
        await through_the_snapshot(batches)
        for number in range(6):
            await replica.report(*"FFFFF", target=f"target-{number}")
        await replica.changes.look()
        batch = await anext(batches)
    assert not batch.in_snapshot
    assert sorted(view.key.target for view in batch.views) == [f"target-{number}" for number in range(6)]


async def test_many_watchers_share_one_look(replica: Replica) -> None:
    looks = 0
    changed_since = replica.store.changed_since

    async def counted(*arguments: object) -> object:
        nonlocal looks
        looks += 1
        return await changed_since(*arguments)  # type: ignore[arg-type]

    replica.store.changed_since = counted  # type: ignore[method-assign, assignment]
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(20):
            stream = Watch(replica.store, replica.changes, None).batches()
            streams.append(await stack.enter_async_context(aclosing(stream)))
            await through_the_snapshot(stream)
        assert looks == 1
        await replica.report(*"FFFFF")
        await replica.changes.step()
        assert looks == 2
        for stream in streams:
            await until(stream, is_open)


async def test_nobody_looks_while_nobody_watches(replica: Replica) -> None:
    async def never(*_: object) -> object:
        raise AssertionError("looked")

    replica.store.changed_since = never  # type: ignore[method-assign, assignment]
    await replica.report(*"FFFFF")
    await replica.changes.step()


async def test_silence_is_broken_by_an_empty_response(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SILENCE", timedelta(milliseconds=50))
    async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        await through_the_snapshot(batches)
        for _ in range(3):
            async with asyncio.timeout(PATIENCE):
                assert await anext(batches) == Batch([])


async def test_a_stream_that_sees_nothing_any_more_ends(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SILENCE", timedelta(milliseconds=50))
    monkeypatch.setattr(watch_module, "BLIND_AFTER", timedelta(milliseconds=100))
    async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        await through_the_snapshot(batches)
        with pytest.raises(Unavailable):
            await until(batches, is_open)


async def test_streams_end_when_the_service_stops(replica: Replica) -> None:
    async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        await through_the_snapshot(batches)
        await replica.changes.close()
        with pytest.raises(Unavailable, match="stopping"):
            await until(batches, is_open)
    with pytest.raises(Unavailable, match="stopping"):
        await anext(Watch(replica.store, replica.changes, None).batches())


async def test_streams_of_a_breaker_that_is_switched_off_end_as_well(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "SILENCE", timedelta(milliseconds=50))
    async with aclosing(replica.changes.watch_nothing(None)) as batches:
        assert await through_the_snapshot(batches) == []
        async with asyncio.timeout(PATIENCE):
            assert await anext(batches) == Batch(())
        await replica.changes.close()
        with pytest.raises(Unavailable, match="stopping"):
            await until(batches, is_open)


async def test_i17_a_connection_of_the_listener_that_dies_without_a_word_brings_looking_back(
    open_replica: OpenReplica, breaker_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await open_replica(), await open_replica()
    url = urlsplit(breaker_database_url)
    place = dict(parse_qsl(url.query))
    name = f".s.PGSQL.{place['port']}"
    by_proxy = urlunsplit(url._replace(query=urlencode(place | {"host": str(tmp_path)})))
    async with (
        Proxy(Path(place["host"]) / name, socket=tmp_path / name) as proxy,
        looking(here),
        listening(here, url=by_proxy),
        aclosing(Watch(here.store, here.changes, None).batches()) as batches,
    ):
        await through_the_snapshot(batches)
        await there.report(*"FFFFF", target="before")
        await until(batches, partial(is_open_of, "before"))
        monkeypatch.setattr(watch_module, "LOOK_INTERVAL_HEARING", timedelta(hours=1))
        await proxy.set(Way.SILENT)
        await becomes(lambda: not here.changes._hearing)
        for target in ("one", "two"):
            await there.report(*"FFFFF", target=target)
            await until(batches, partial(is_open_of, target))


async def test_the_listener_asks_nothing_while_nobody_watches(
    replica: Replica, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_module, "PROOF_INTERVAL", timedelta(milliseconds=20))
    monkeypatch.setattr(listening_module, "TIME_TO_ANSWER", timedelta(seconds=PATIENCE))
    asked = (
        "select query from pg_stat_activity "
        "where application_name = 'valkyr breaker listen' and datname = current_database()"
    )
    rounds = 0

    def watched() -> bool:
        nonlocal rounds
        rounds += 1
        return replica.changes.is_watched

    async with listening(replica, watched=watched):
        await becomes(lambda: rounds > 3)
        assert "LISTEN" in (await sql(asked))[0]["query"]
        async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
            await through_the_snapshot(batches)
            before = rounds
            await becomes(lambda: rounds > before + 1)
            assert (await sql(asked))[0]["query"] == queries.ARE_YOU_THERE


@pytest.mark.parametrize(("found", "milliseconds"), [(0, 50), (2_000, 200), (10_000, 500)])
async def test_a_look_that_found_many_is_followed_by_a_longer_pause(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, found: int, milliseconds: int
) -> None:
    view = await replica.get()
    looks = []

    async def changed_since(*_: object) -> Changed:
        looks.append(asyncio.get_running_loop().time())
        return Changed(datetime.now(UTC), [view] * found)

    monkeypatch.setattr(replica.store, "changed_since", changed_since)
    async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        await anext(batches)
        for _ in range(2):
            replica.changes.changed()
            await replica.changes.step()
    pauses = [after - before for before, after in pairwise(looks)]
    assert len(pauses) == 2
    assert all(pause >= milliseconds / 1000 - 0.01 for pause in pauses), pauses
    assert replica.changes._pause == timedelta(milliseconds=milliseconds)


async def test_a_lost_connection_of_the_listener_brings_looking_back(replica: Replica, sql: Sql) -> None:
    async with listening(replica):
        await sql(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'valkyr breaker listen' and datname = current_database()"
        )
        await becomes(lambda: not replica.changes._hearing)


async def test_i17_the_loop_that_rested_while_nobody_watched_looks_as_soon_as_somebody_does(
    open_replica: OpenReplica,
) -> None:
    here, there = await open_replica(), await open_replica()
    rested = asyncio.Event()

    async def step() -> timedelta | None:
        due = await here.changes.step()
        if due is None:
            rested.set()
        return due

    async with looking(here, every=timedelta(hours=1), step=step):
        await rested.wait()
        async with aclosing(Watch(here.store, here.changes, None).batches()) as batches:
            await through_the_snapshot(batches)
            await there.report(*"FFFFF")
            await until(batches, is_open)
