"""How runs are divided among calls of LeaseRuns that wait together, and who is told what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.callers import DRAIN, NOTHING, Asked, Caller, Callers, Given
from valkyr.flow.effects import Prepared
from valkyr.runner.leases import LeasedRun, LeaseRef

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Run:
    """As much of a prepared run as sharing looks at."""

    def __init__(self) -> None:
        self.id: UUID = uuid4()


def prepared(number: int) -> Sequence[Prepared]:
    return cast("Sequence[Prepared]", [Run() for _ in range(number)])


def handed(runs: Sequence[Prepared]) -> list[LeasedRun]:
    return [
        LeasedRun(
            ref=LeaseRef(str(uuid4()), str(run.id), 1),
            attempt=1,
            node_id="a",
            class_name="NoopModule",
            config=b"{}",
            inputs=b"{}",
            idempotency_key="",
            lease_duration=timedelta(minutes=2),
        )
        for run in runs
    ]


def waiting(*rooms: int) -> tuple[Callers, list[Caller]]:
    callers = Callers()
    made = [Caller(Asked("default", f"r{place}", uuid4(), room, timedelta(), "")) for place, room in enumerate(rooms)]
    for caller in made:
        callers.come(caller)
    return callers, made


@given(rooms=st.lists(st.integers(1, 40), min_size=1, max_size=6), data=st.data())
async def test_i13_every_run_has_one_caller_with_room_and_nobody_has_more_than_a_fair_share_while_others_have_room(
    rooms: list[int], data: st.DataObject
) -> None:
    callers, made = waiting(*rooms)
    assert callers.room() == sum(rooms)
    runs = prepared(data.draw(st.integers(1, sum(rooms))))
    shares = callers.divide(runs)
    assert [run for _, share in shares for run in share] == list(runs)
    sizes = {id(caller): len(share) for caller, share in shares}
    assert all(0 < sizes[id(caller)] <= caller.room for caller, _ in shares)
    not_full = [sizes.get(id(caller), 0) for caller in made if sizes.get(id(caller), 0) < caller.room]
    assert max(sizes.values()) - min(not_full, default=max(sizes.values())) <= 1


async def test_a_single_run_goes_to_whoever_has_most_room() -> None:
    callers, [_, roomy, _] = waiting(1, 9, 3)
    assert [caller for caller, _ in callers.divide(prepared(1))] == [roomy]


async def test_each_is_told_its_own_and_has_no_room_then() -> None:
    callers, [first, second] = waiting(2, 5)
    runs = prepared(3)
    shares = callers.divide(runs)
    callers.grant(shares, NOW)
    leased = handed(runs)
    callers.accept(leased)
    told: dict[str, Any] = {caller.asked.runner_id: caller.answer.result() for caller in (first, second)}
    assert [run for one in told.values() for run in one.runs] == leased
    assert {one.at for one in told.values()} == {NOW}
    assert callers.room() == 0


async def test_who_was_given_only_what_cannot_be_started_waits_on() -> None:
    callers, [caller] = waiting(5)
    callers.grant(callers.divide(prepared(2)), NOW)
    callers.accept([])
    assert not caller.answer.done()
    assert callers.room() == 5


async def test_runs_of_one_look_are_not_handed_out_by_the_next() -> None:
    callers, [first] = waiting(5)
    runs = prepared(1)
    callers.grant(callers.divide(runs), NOW)
    callers.accept([])
    callers.accept(handed(runs))
    assert not first.answer.done()


@pytest.mark.parametrize("said", [NOTHING, DRAIN])
async def test_who_leaves_is_told_so_and_the_first_answer_counts(said: Given) -> None:
    callers, [leaves, stays] = waiting(1, 1)
    callers.let_go([leaves], said)
    leaves.say(Given((), NOW))
    leaves.fail(RuntimeError("too late"))
    assert leaves.answer.result() is said
    assert callers.waiting == [stays]


async def test_who_has_gone_has_no_room() -> None:
    callers, [gone, stays] = waiting(4, 2)
    gone.answer.cancel()
    assert (callers.room(), callers.waiting) == (2, [stays])
    assert callers.divide(prepared(2))[0][0] is stays
