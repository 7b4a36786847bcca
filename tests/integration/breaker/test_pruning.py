"""What is forgotten, and what is not."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

import pytest

from services.breaker.model.states import Answer, State
from services.breaker.pruning import Pruner
from services.breaker.settings import RetentionSettings
from services.breaker.watch import Watch
from tests.integration.breaker.conftest import MovableClock, Replica, Sql

AGE = "update breaker.{table} set {column} = {column} - $1::interval"
AGED = {
    "circuit_breaker_state": "last_modified_date",
    "counted_report": "created_date",
    "permit": "expires_at",
    "episode": "recovered_at",
}


async def age(sql: Sql, table: str, by: timedelta) -> None:
    await sql(AGE.format(table=table, column=AGED[table]), by)


async def prune(replica: Replica, limit: int = 1_000) -> int:
    """How many steps there were until nothing more was to be done."""
    pruner, steps = Pruner(replica.store, RetentionSettings(), limit=limit), 1
    while await pruner.step() is not None:
        steps += 1
    return steps


async def test_breakers_that_never_opened_go_after_a_quiet_day(replica: Replica, sql: Sql) -> None:
    for number in range(5):
        await replica.report("F", target=f"target-{number}")
    await age(sql, "circuit_breaker_state", timedelta(hours=23))
    assert await prune(replica) == 1
    assert len(await sql("select 1 from breaker.circuit_breaker_state")) == 5
    await age(sql, "circuit_breaker_state", timedelta(hours=2))
    assert await prune(replica, limit=2) == 3
    assert await sql("select 1 from breaker.circuit_breaker_state") == []


async def test_a_breaker_that_opened_is_kept_for_a_week_and_while_its_retry_time_is_to_come(
    replica: Replica, sql: Sql, clock: MovableClock
) -> None:
    await replica.report(*"FFFFF", target="open")
    await sql("update breaker.circuit_breaker_state set next_retry_at = now() - interval '6 d'")
    await replica.report(*"FFFFF", target="recovered")
    clock.advance(seconds=30)
    for run in "ab":
        probe = await replica.probe(run, target="recovered")
        await replica.report("S", target="recovered", generation=2, permit=probe.permit_id)
    await age(sql, "circuit_breaker_state", timedelta(days=6))
    await prune(replica)
    assert len(await sql("select 1 from breaker.circuit_breaker_state")) == 2
    await age(sql, "circuit_breaker_state", timedelta(days=2))
    await prune(replica)
    [row] = await sql("select target, state from breaker.circuit_breaker_state")
    assert tuple(row) == ("open", "OPEN")


@pytest.mark.parametrize("half_open", [False, True], ids=["open", "half open"])
async def test_an_outage_that_nobody_asks_about_is_over_after_a_week_and_forgotten_after_another(
    replica: Replica, sql: Sql, clock: MovableClock, half_open: bool
) -> None:
    await replica.report(*"FFFFF")
    clock.advance(seconds=30)
    if half_open:
        await replica.probe()
    before = await replica.get()
    await age(sql, "circuit_breaker_state", timedelta(days=8))
    await sql("update breaker.circuit_breaker_state set next_retry_at = next_retry_at - interval '8 d'")
    async with aclosing(Watch(replica.store, replica.changes, None).batches()) as batches:
        await anext(batches)
        await prune(replica)
        await replica.changes.look()
        [seen] = (await anext(batches)).views
    assert (seen.circuit.state, seen.circuit.generation) == (State.CLOSED, before.circuit.generation + 1)
    assert (seen.circuit.failure_count, seen.circuit.next_retry_at, seen.permits_in_flight) == (0, None, 0)
    [episode] = await sql("select * from breaker.episode")
    assert (episode["recovered_at"] is not None, episode["recovered_generation"]) == (True, seen.circuit.generation)
    [told] = await sql("select * from breaker.transition where to_state = 'CLOSED'")
    assert (told["from_state"], told["cause"], told["generation"]) == (
        before.circuit.state,
        "FORGOTTEN",
        seen.circuit.generation,
    )
    await age(sql, "circuit_breaker_state", timedelta(days=8))
    await prune(replica)
    assert await sql("select 1 from breaker.circuit_breaker_state") == []


async def test_what_an_operator_holds_open_is_never_forgotten(replica: Replica, sql: Sql) -> None:
    await replica.report(*"FFFFF")
    await sql("update breaker.circuit_breaker_state set state = 'FORCED_OPEN', forced = true, next_retry_at = null")
    await age(sql, "circuit_breaker_state", timedelta(days=999))
    await prune(replica)
    assert (await replica.get()).circuit.state is State.FORCED_OPEN


async def test_i18_a_breaker_that_was_forgotten_takes_no_generation_twice(replica: Replica, sql: Sql) -> None:
    await replica.report(*"FFFFF")
    await sql("update breaker.circuit_breaker_state set state = 'CLOSED', generation = 9, failure_count = 0")
    await age(sql, "circuit_breaker_state", timedelta(days=8))
    await prune(replica)
    assert await replica.report(*"FFFFF", generation=9) == [Answer.COUNTED] * 5
    view = await replica.get()
    assert (view.circuit.state, view.circuit.generation) == (State.OPEN, 10)


async def test_report_ids_and_expired_permits_go(replica: Replica, sql: Sql, clock: MovableClock) -> None:
    await replica.report(*"FFFFF")
    clock.advance(seconds=30)
    await replica.probe()
    await age(sql, "counted_report", timedelta(hours=25))
    await prune(replica)
    assert await sql("select 1 from breaker.counted_report") == []
    assert len(await sql("select 1 from breaker.permit")) == 1
    await age(sql, "permit", timedelta(days=6))
    await prune(replica)
    assert len(await sql("select 1 from breaker.permit")) == 1, "its call may be answered yet"
    await age(sql, "permit", timedelta(days=2))
    await prune(replica)
    assert await sql("select 1 from breaker.permit") == []


async def test_expired_permits_of_what_is_half_open_no_more_go_after_a_minute(
    replica: Replica, sql: Sql, clock: MovableClock
) -> None:
    await replica.report(*"FFFFF")
    clock.advance(seconds=30)
    await replica.probe()
    await sql("update breaker.permit set generation = 1")
    await age(sql, "permit", timedelta(minutes=3))
    await prune(replica)
    assert await sql("select 1 from breaker.permit") == []


async def test_history_goes_when_it_is_old_and_outages_only_when_they_are_over(
    replica: Replica, sql: Sql, breaker_database_url: str
) -> None:
    await replica.report(*"FFFFF", target="open")
    await replica.report(*"FFFFF", target="recovered")
    await sql("update breaker.episode set recovered_at = now() where target = 'recovered'")
    await age(sql, "episode", timedelta(days=91))
    await sql(
        "insert into breaker.transition"
        " (id, breaker_id, target, from_state, to_state, generation, cause, created_date) values"
        " (gen_random_uuid(), gen_random_uuid(), 'old', 'CLOSED', 'OPEN', 1, 'FAILURES', now() - interval '91 d')"
    )
    await prune(replica)
    assert [row["target"] for row in await sql("select target from breaker.episode")] == ["open"]
    assert len(await sql("select 1 from breaker.transition")) == 2
