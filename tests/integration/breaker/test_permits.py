"""Permits on a real PostgreSQL: exact over all replicas, never stuck."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from services.breaker.model.calls import Key, PermitAnswer, PermitRequest
from services.breaker.model.machine import FORCED_RETRY, Allow, Deny, Holder, Probe
from services.breaker.model.policy import Policy
from services.breaker.model.states import Answer, State
from tests.integration.breaker.conftest import TARGET, MovableClock, OpenReplica, Replica, Sql

SECOND = timedelta(seconds=1)


@pytest.fixture
async def tripped(replica: Replica) -> Replica:
    await replica.report(*"FFFFF")
    return replica


def probes(answers: list[PermitAnswer]) -> list[PermitAnswer]:
    return [answer for answer in answers if isinstance(answer.decision, Probe)]


async def test_i17_nothing_is_granted_before_the_retry_time(tripped: Replica, clock: MovableClock) -> None:
    assert (await tripped.ask()).decision == Deny(30 * SECOND)
    clock.advance(seconds=29.999)
    answer = await tripped.ask()
    assert answer.decision == Deny(timedelta(milliseconds=1))
    assert (answer.generation, answer.episode_id) == (1, (await tripped.get()).circuit.episode_id)


async def test_i17_a_request_after_the_retry_time_opens_it_half(tripped: Replica, clock: MovableClock) -> None:
    clock.advance(seconds=30)
    answer = await tripped.probe()
    assert answer.generation == 2
    view = await tripped.get()
    assert (view.circuit.state, view.circuit.generation, view.permits_in_flight) == (State.HALF_OPEN, 2, 1)


async def test_i17_three_hundred_callers_at_two_replicas_get_exactly_the_permits_there_are(
    open_replica: OpenReplica, clock: MovableClock, sql: Sql
) -> None:
    policy = Policy(half_open_permits=3)
    replicas = [await open_replica(policy) for _ in range(2)]
    await replicas[0].report(*"FFFFF")
    clock.advance(seconds=30)
    barrier = asyncio.Barrier(300)

    async def call(number: int) -> PermitAnswer:
        await barrier.wait()
        return await replicas[number % 2].ask(f"run-{number}")

    answers = await asyncio.gather(*(call(number) for number in range(300)))
    assert len(probes(answers)) == 3
    assert len({answer.permit_id for answer in probes(answers)}) == 3
    assert {answer.generation for answer in answers} <= {1, 2}
    assert len(await sql("select 1 from breaker.permit")) == 3
    assert len(await sql("select 1 from breaker.transition where to_state = 'HALF_OPEN'")) == 1


async def test_i17_a_permit_never_answered_expires_and_the_next_probe_is_granted(
    tripped: Replica, clock: MovableClock
) -> None:
    clock.advance(seconds=30)
    for run in ("a", "b"):
        await tripped.probe(run, hold=20 * SECOND)
    assert (await tripped.ask("c")).decision == Deny(5 * SECOND)
    clock.advance(seconds=18)
    assert (await tripped.ask("c")).decision == Deny(2 * SECOND)
    clock.advance(seconds=2)
    await tripped.probe("c")
    view = await tripped.get()
    assert (view.circuit.state, view.circuit.generation, view.permits_in_flight) == (State.HALF_OPEN, 2, 1)


async def test_i17_probes_that_all_outlast_their_permits_close_it(
    tripped: Replica, clock: MovableClock, sql: Sql
) -> None:
    clock.advance(seconds=30)
    for number in range(2):
        probe = await tripped.probe(f"run-{number}", hold=20 * SECOND)
        clock.advance(minutes=10)
        await tripped.probe(f"other-{number}", hold=20 * SECOND)
        clock.advance(minutes=10)
        assert (await tripped.get()).permits_in_flight == 0
        assert await tripped.report("S", generation=2, permit=probe.permit_id) == [Answer.COUNTED]
        assert await tripped.report("S", generation=2, permit=probe.permit_id) == [Answer.IGNORED]
    assert (await tripped.get()).circuit.state is State.CLOSED
    assert await sql("select 1 from breaker.permit") == []


async def test_i17_a_late_failure_of_a_probe_opens_it_again(tripped: Replica, clock: MovableClock) -> None:
    clock.advance(seconds=30)
    probe = await tripped.probe("a", hold=20 * SECOND)
    clock.advance(seconds=20)
    assert await tripped.report("F", generation=2, permit=probe.permit_id) == [Answer.COUNTED]
    assert (await tripped.get()).circuit.state is State.OPEN


async def test_i17_a_holder_whose_permit_expired_gets_the_same_one_again(
    tripped: Replica, clock: MovableClock, sql: Sql
) -> None:
    clock.advance(seconds=30)
    first = await tripped.probe("a", hold=20 * SECOND)
    clock.advance(seconds=20)
    assert (await tripped.probe("a", hold=40 * SECOND)).permit_id == first.permit_id
    [row] = await sql("select granted_at, expires_at from breaker.permit")
    assert tuple(row) == (clock.now, clock.now + 40 * SECOND)
    assert (await tripped.get()).permits_in_flight == 1


async def test_i17_the_same_lease_gets_the_same_permit_from_any_replica(
    tripped: Replica, open_replica: OpenReplica, clock: MovableClock
) -> None:
    other = await open_replica()
    clock.advance(seconds=30)
    first = await tripped.probe("a")
    assert (await other.probe("a")).permit_id == first.permit_id
    assert (await other.probe("a", epoch=2)).permit_id != first.permit_id
    assert isinstance((await tripped.ask("b")).decision, Deny)


async def test_i17_an_exclusion_gives_the_permit_back(tripped: Replica, clock: MovableClock) -> None:
    clock.advance(seconds=30)
    first, _ = await tripped.probe("a"), await tripped.probe("b")
    assert isinstance((await tripped.ask("c")).decision, Deny)
    assert await tripped.report("X", generation=2, permit=first.permit_id) == [Answer.IGNORED]
    assert (await tripped.get()).circuit.success_count == 0
    await tripped.probe("c")


async def test_a_failed_probe_opens_it_again_and_the_other_probe_counts_no_more(
    tripped: Replica, clock: MovableClock, sql: Sql
) -> None:
    clock.advance(seconds=30)
    first, second = await tripped.probe("a"), await tripped.probe("b")
    clock.advance(seconds=3)
    assert await tripped.report("F", generation=2, permit=first.permit_id) == [Answer.COUNTED]
    assert await tripped.report("S", generation=2, permit=second.permit_id) == [Answer.IGNORED]
    view = await tripped.get()
    assert (view.circuit.state, view.circuit.generation) == (State.OPEN, 3)
    assert view.circuit.next_retry_at == clock.now + 30 * SECOND
    assert await sql("select 1 from breaker.permit") == []
    clock.advance(seconds=30)
    assert (await tripped.probe("a")).permit_id != first.permit_id


async def test_half_open_counts_no_outcome_without_a_permit(tripped: Replica, clock: MovableClock) -> None:
    clock.advance(seconds=30)
    await tripped.probe("a")
    assert await tripped.report(*"SSF", generation=2) == [Answer.IGNORED] * 3
    assert (await tripped.get()).circuit.state is State.HALF_OPEN


async def test_targets_without_a_breaker_are_allowed_and_cost_no_row(replica: Replica, sql: Sql) -> None:
    requests = [PermitRequest(Key("default", f"t{n}"), Holder("run", 1), SECOND) for n in range(1_000)]
    answers = await replica.permits.acquire(requests)
    assert answers == [PermitAnswer(Allow())] * 1_000
    assert await sql("select 1 from breaker.circuit_breaker_state") == []


async def test_a_batch_is_answered_in_order(tripped: Replica, clock: MovableClock) -> None:
    clock.advance(seconds=30)
    targets = [TARGET, "other", TARGET, TARGET, "other"]
    requests = [
        PermitRequest(Key("default", target), Holder(f"run-{index}", 1), SECOND) for index, target in enumerate(targets)
    ]
    decisions = [answer.decision for answer in await tripped.permits.acquire(requests)]
    assert decisions[:3] == [Probe(None), Allow(), Probe(None)]
    assert isinstance(decisions[3], Deny)
    assert decisions[4] == Allow()


@pytest.mark.parametrize(
    ("state", "decision", "answer"),
    [
        ("FORCED_OPEN", Deny(FORCED_RETRY), Answer.IGNORED),
        ("DISABLED", Allow(), Answer.IGNORED),
        ("METRICS_ONLY", Allow(), Answer.COUNTED),
    ],
)
async def test_what_an_operator_forced_stays_whatever_is_reported(
    replica: Replica, sql: Sql, state: str, decision: object, answer: Answer
) -> None:
    await replica.report("F")
    await sql("update breaker.circuit_breaker_state set state = $1, forced = true, generation = 1", state)
    assert (await replica.ask()).decision == decision
    assert await replica.report(*"FFFFFFF", generation=1) == [answer] * 7
    view = await replica.get()
    assert (view.circuit.state, view.circuit.generation, view.forced) == (state, 1, True)
