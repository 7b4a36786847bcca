"""Outcomes on a real PostgreSQL: what is counted, what is written, what survives, what several replicas agree on."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from services.breaker.model.calls import CallOutcome, Key
from services.breaker.model.states import Answer, Result, State
from tests.integration.breaker.conftest import TARGET, MovableClock, OpenReplica, Replica, Sql

COUNTED, REPEATED, IGNORED = Answer.COUNTED, Answer.REPEATED, Answer.IGNORED


async def test_five_failures_trip_and_leave_one_transition_and_one_episode(
    replica: Replica, sql: Sql, clock: MovableClock
) -> None:
    assert await replica.report(*"FFFF") == [COUNTED] * 4
    assert (await replica.get()).circuit.state is State.CLOSED
    assert await replica.report("F", ids=["0192-run:3"]) == [COUNTED]
    view = await replica.get()
    assert (view.circuit.state, view.circuit.generation) == (State.OPEN, 1)
    assert view.circuit.next_retry_at == clock.now + timedelta(seconds=30)
    [transition] = await sql("select * from breaker.transition")
    assert (transition["from_state"], transition["to_state"], transition["cause"]) == ("CLOSED", "OPEN", "FAILURES")
    assert (transition["report_id"], transition["run_id"]) == ("0192-run:3", "0192-run")
    assert transition["principal_name"] == "anonymous"
    [episode] = await sql("select * from breaker.episode")
    assert (episode["id"], episode["opened_at"], episode["recovered_at"]) == (
        view.circuit.episode_id,
        clock.now,
        None,
    )


async def test_an_episode_ends_with_the_recovery(replica: Replica, sql: Sql, clock: MovableClock) -> None:
    await replica.report(*"FFFFF")
    clock.advance(seconds=30)
    probes = [await replica.probe(f"run-{number}") for number in range(2)]
    for probe in probes:
        assert await replica.report("S", generation=2, permit=probe.permit_id) == [COUNTED]
    view = await replica.get()
    assert (view.circuit.state, view.circuit.generation, view.circuit.failure_count) == (State.CLOSED, 3, 0)
    [episode] = await sql("select * from breaker.episode")
    assert (episode["recovered_at"], episode["opened_generation"], episode["recovered_generation"]) == (clock.now, 1, 3)
    causes = await sql("select cause from breaker.transition order by generation")
    assert [row["cause"] for row in causes] == ["FAILURES", "RETRY_TIME", "PROBES_SUCCEEDED"]
    await replica.report(*"FFFFF", generation=3)
    assert len(await sql("select id from breaker.episode")) == 2


async def test_i18_a_repeated_report_counts_once(replica: Replica, open_replica: OpenReplica) -> None:
    other = await open_replica()
    assert await replica.report(*"FFFF", ids=["a", "b", "a", "b"]) == [COUNTED, COUNTED, REPEATED, REPEATED]
    assert await other.report(*"FFF", ids=["a", "b", "c"]) == [REPEATED, REPEATED, COUNTED]
    assert (await replica.get()).circuit.failure_count == 3


async def test_i18_the_report_that_tripped_it_is_still_known(replica: Replica) -> None:
    await replica.report(*"FFFFF", ids=["a", "b", "c", "d", "e"])
    assert await replica.report("F", ids=["e"]) == [REPEATED]
    assert await replica.report("F", ids=["f"]) == [IGNORED]


async def test_i18_a_late_outcome_of_an_older_generation_changes_nothing(
    replica: Replica, sql: Sql, clock: MovableClock
) -> None:
    await replica.report(*"FFFFF")
    clock.advance(seconds=30)
    await replica.probe()
    before = await sql("select * from breaker.circuit_breaker_state")
    for generation in (0, 1):
        assert await replica.report(*"SFX", generation=generation) == [IGNORED] * 3
    assert await sql("select * from breaker.circuit_breaker_state") == before


async def test_i20_failures_at_several_replicas_trip_on_their_sum(open_replica: OpenReplica) -> None:
    replicas = [await open_replica() for _ in range(3)]
    for number in range(4):
        await replicas[number % 3].report("F")
    await asyncio.gather(*(replica.report("F") for replica in replicas))
    views = [await replica.get() for replica in replicas]
    assert all(view == views[0] for view in views)
    assert (views[0].circuit.state, views[0].circuit.generation, views[0].circuit.failure_count) == (State.OPEN, 1, 5)


async def test_i20_state_counters_and_deadlines_survive_a_restart(
    replica: Replica, open_replica: OpenReplica, clock: MovableClock
) -> None:
    await replica.report(*"FFFFF")
    await replica.report(*"FFF", target="other")
    before = [await replica.get(), await replica.get("other")]
    await replica.database.close()
    again = await open_replica()
    assert [await again.get(), await again.get("other")] == before
    await again.report(*"FF", target="other")
    assert (await again.get("other")).circuit.state is State.OPEN
    clock.advance(seconds=29)
    assert not hasattr((await again.ask()).decision, "held")
    clock.advance(seconds=1)
    await again.probe()


async def test_successes_of_targets_that_never_failed_write_nothing(replica: Replica, sql: Sql) -> None:
    outcomes = [
        CallOutcome(Key("default", f"http:{number}.example.com"), Result.SUCCESS, 0, f"{number}:1")
        for number in range(5_000)
    ]
    assert await replica.outcomes.report(outcomes) == [COUNTED] * 5_000
    await replica.report("X", target="excluded")
    for table in ("circuit_breaker_state", "counted_report", "permit", "transition", "episode"):
        assert await sql(f"select 1 from breaker.{table}") == []


async def test_successes_of_a_target_at_rest_write_nothing(replica: Replica, sql: Sql) -> None:
    await replica.report(*"FS")
    before = await sql("select xmin, * from breaker.circuit_breaker_state")
    assert await replica.report(*"SSSS") == [COUNTED] * 4
    assert await sql("select xmin, * from breaker.circuit_breaker_state") == before
    assert len(await sql("select 1 from breaker.counted_report")) == 2


async def test_a_batch_of_a_hot_target_is_one_update(replica: Replica, sql: Sql) -> None:
    await replica.report("F")
    await asyncio.gather(*(replica.report(*"FS" * 10) for _ in range(100)))
    [row] = await sql("select revision, failure_count from breaker.circuit_breaker_state")
    assert row["failure_count"] in (0, 1)
    # 100 calls of 20 outcomes: what gathers while one batch is under way is the next.
    assert row["revision"] < 40


async def test_the_order_of_a_batch_counts(replica: Replica) -> None:
    await replica.report(*"FFFFSFFFF")
    view = await replica.get()
    assert (view.circuit.state, view.circuit.failure_count) == (State.CLOSED, 4)


async def test_many_replicas_and_many_targets_at_once_never_lock_each_other_out(
    open_replica: OpenReplica, sql: Sql
) -> None:
    replicas = [await open_replica() for _ in range(3)]
    keys = [Key("default", f"target-{number}") for number in range(40)]

    async def storm(replica: Replica, turn: int) -> None:
        shuffled = keys[turn % 40 :] + keys[: turn % 40]
        await replica.outcomes.report(
            [CallOutcome(key, Result.FAILURE, 0, f"{id(replica)}-{turn}:1") for key in shuffled]
        )

    await asyncio.gather(*(storm(replica, turn * 7) for replica in replicas for turn in range(10)))
    rows = await sql("select state, generation, failure_count from breaker.circuit_breaker_state")
    assert {tuple(row) for row in rows} == {("OPEN", 1, 5)}
    assert len(rows) == 40


async def test_a_namespace_keeps_no_more_breakers_than_its_limit(open_replica: OpenReplica, sql: Sql) -> None:
    replica = await open_replica(max_breakers=3)
    answers = [(await replica.report("F", target=f"target-{number}"))[0] for number in range(5)]
    assert answers == [COUNTED] * 3 + [IGNORED] * 2
    outcomes = [CallOutcome(Key("default", f"more-{number}"), Result.FAILURE, 0, f"m{number}:1") for number in range(9)]
    known = CallOutcome(Key("default", "target-0"), Result.FAILURE, 0, "known:1")
    elsewhere = CallOutcome(Key("elsewhere", "target-0"), Result.FAILURE, 0, "elsewhere:1")
    assert await replica.outcomes.report([*outcomes, known, elsewhere]) == [IGNORED] * 9 + [COUNTED] * 2
    assert len(await sql("select 1 from breaker.circuit_breaker_state where namespace = 'default'")) == 3


async def test_namespaces_have_breakers_of_their_own(replica: Replica) -> None:
    await replica.report(*"FFFFF", namespace="elsewhere")
    assert (await replica.get()).circuit.state is State.CLOSED
    assert (await replica.breakers.get(Key("elsewhere", TARGET))).circuit.state is State.OPEN
