"""Each quarantine is resolved once, whoever crashes, races, or is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from services.chassis.serve import Server
from services.dlq.model import Letter, Resolution, Settlement
from tests.dlq_lab import FakeExecutor, LetterEnum, a_quarantine, a_resolved, a_run, serving
from tests.integration.dlq.conftest import ALICE, BOB, KEPT, Crash, Desk, new_id
from valkyr.errors import (
    Conflict,
    DeadLetterNotFound,
    DeadLetterResolved,
    DeadlinePassed,
    ExecutionEnded,
    InvalidRequest,
    NotQuarantined,
    Overloaded,
    RequestIdReused,
    RunNotFound,
    TooManyRequeues,
    Unavailable,
    ValkyrError,
)


async def outcome(call: Awaitable[Letter]) -> Letter | ValkyrError:
    try:
        return await call
    except ValkyrError as error:
        return error


async def test_a_resolution_is_done_at_the_executor_and_stored(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    fixed = await desk.fix(letter, outputs=7, reason="paid by hand")
    assert (fixed.resolution, fixed.resolved_by, fixed.resolution_reason) == (Resolution.FIXED, "alice", "paid by hand")
    assert (fixed.reviewed_by, fixed.requested_resolution) == ("alice", None)
    assert fixed.resolved_at is not None
    (call,) = executor.calls
    assert (call.method, call.principal, call.request.outputs.number_value) == ("FIXED", "alice", 7)
    assert (call.request.request_id, call.request.quarantine_number) == (f"{letter.id}:FIXED", 1)
    assert await desk.actions(letter) == ["quarantined", "resolution_requested", "resolved"]
    assert await desk.intents(letter) == ["DONE"]


@pytest.mark.parametrize("told", [False, True], ids=["untold", "told-by-the-outbox"])
@pytest.mark.parametrize("point", ["before-the-call", "after-the-call", "answer-lost", "answer-not-stored"])
async def test_i22_a_crash_between_any_two_steps_leaves_it_done_once(
    desk: Desk, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch, point: str, told: bool
) -> None:
    letter = await desk.a_letter()
    await _crash(desk, executor, letter, point, monkeypatch)
    assert (await desk.again(letter)).resolution is Resolution.PENDING
    assert (await desk.again(letter)).requested_resolution is Resolution.REQUEUED
    if told and executor.effects:
        requeued = LetterEnum.REQUEUED
        await desk.bring(a_resolved(letter.run_id, resolution=requeued, resolved_by="alice", reason="again"))
        assert (await desk.again(letter)).resolution is Resolution.REQUEUED

    await desk.carry_out_later()
    await desk.carry_out_later()

    resolved = await desk.again(letter)
    assert (resolved.resolution, resolved.resolved_by) == (Resolution.REQUEUED, "alice")
    assert resolved.requested_resolution is None
    assert len(executor.effects) == 1
    assert {call.request.request_id for call in executor.calls} == {f"{letter.id}:REQUEUED"}
    assert (await desk.actions(letter)).count("resolved") == 1
    assert await desk.intents(letter) == ["DONE"]
    assert (await desk.requeue(letter, reason="again", request_id="r")).resolution is Resolution.REQUEUED


async def _crash(
    desk: Desk, executor: FakeExecutor, letter: Letter, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = desk.requeue(letter, reason="again", request_id="r")
    if point == "answer-lost":
        executor.drop = 1
        with pytest.raises(Unavailable):
            await call
        return
    desk.crashes.before, desk.crashes.after = point == "before-the-call", point == "after-the-call"
    with monkeypatch.context() as patch:
        if point == "answer-not-stored":

            async def dies(*_arguments: Any) -> None:
                raise Crash

            patch.setattr(desk.resolutions, "_succeed", dies)
        with pytest.raises(Crash):
            await call


async def test_i22_a_failed_transaction_stores_no_intent(
    desk: Desk, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = await desk.a_letter()

    def dies(*_arguments: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(desk.resolutions, "_event", dies)
        with pytest.raises(Crash):
            await desk.fix(letter, request_id="r")
    assert (await desk.again(letter)).requested_resolution is None
    assert not executor.calls
    assert (await desk.fix(letter, request_id="r")).resolution is Resolution.FIXED


async def test_i22_of_many_who_race_one_wins_and_the_others_are_told_who(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    calls = [desk.fix(letter, by, outputs=n) for n, by in enumerate((ALICE, BOB) * 4)]
    outcomes = await asyncio.gather(*(outcome(call) for call in [*calls, desk.discard(letter), desk.requeue(letter)]))
    winners = [one for one in outcomes if isinstance(one, Letter)]
    losers = [one for one in outcomes if isinstance(one, DeadLetterResolved)]
    assert (len(winners), len(losers), len(executor.effects)) == (1, 9, 1)
    for loser in losers:
        said = loser.details.metadata
        assert (said["resolution"], said["resolvedBy"]) == (winners[0].resolution, winners[0].resolved_by)
        assert said["resolvedTime"]


async def test_i22_whoever_comes_while_an_answer_is_outstanding_is_told_whose(
    desk: Desk, executor: FakeExecutor
) -> None:
    letter = await desk.a_letter()
    executor.gate = asyncio.Event()
    first = asyncio.create_task(desk.fix(letter))
    await asyncio.wait_for(executor.arrived.wait(), 30)
    with pytest.raises(DeadLetterResolved) as caught:
        await desk.discard(letter, BOB)
    said = caught.value.details.metadata
    assert (said["resolution"], said["resolvedBy"], said["outstanding"]) == ("FIXED", "alice", "true")
    executor.gate.set()
    assert (await first).resolution is Resolution.FIXED


async def test_i22_who_resolved_directly_at_the_executor_won(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    executor.resolve_directly(letter.run_id, 1, "DISCARDED", "carol")
    with pytest.raises(DeadLetterResolved) as caught:
        await desk.fix(letter)
    assert caught.value.details.metadata["resolvedBy"] == "carol"
    resolved = await desk.again(letter)
    assert (resolved.resolution, resolved.resolved_by) == (Resolution.DISCARDED, "carol")
    assert resolved.resolved_at is not None
    assert resolved.resolved_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert await desk.intents(letter) == ["LOST"]
    await desk.bring(a_resolved(letter.run_id, resolution=LetterEnum.DISCARDED, resolved_by="carol"))
    assert await desk.actions(letter) == ["quarantined", "resolution_requested", "resolution_lost", "resolved"]


async def test_i22_the_same_person_over_both_ways_loses_one_of_them(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    executor.resolve_directly(letter.run_id, 1, "FIXED", "alice")
    with pytest.raises(DeadLetterResolved):
        await desk.fix(letter, outputs=2)
    with pytest.raises(DeadLetterResolved):
        await desk.fix(letter, outputs=2)


async def test_i22_a_resolution_by_another_ends_an_intent_that_waits(
    desk: Desk, executor: FakeExecutor, executor_server: Server
) -> None:
    letter = await desk.a_letter()
    await executor_server.stop()
    with pytest.raises(Unavailable):
        await desk.fix(letter, request_id="r")
    await desk.bring(a_resolved(letter.run_id, resolution=LetterEnum.DISCARDED, resolved_by="carol"))
    resolved = await desk.again(letter)
    assert (resolved.resolution, resolved.resolved_by) == (Resolution.DISCARDED, "carol")
    assert await desk.intents(letter) == ["LOST"]
    with pytest.raises(DeadLetterResolved) as caught:
        await desk.fix(letter, request_id="r")
    assert caught.value.details.metadata["resolvedBy"] == "carol"
    await desk.carry_out_later()
    assert not executor.calls


async def test_i22_an_outbox_that_is_quicker_than_the_answer_costs_nobody_his_win(
    desk: Desk, executor: FakeExecutor
) -> None:
    letter = await desk.a_letter()
    executor.gate = asyncio.Event()
    call = asyncio.create_task(desk.fix(letter, reason="mine"))
    await asyncio.wait_for(executor.arrived.wait(), 30)
    await desk.bring(a_resolved(letter.run_id, resolved_by="alice", reason="as the executor words it"))
    assert await desk.intents(letter) == ["OPEN"]
    executor.gate.set()
    assert (await call).resolution is Resolution.FIXED
    assert await desk.intents(letter) == ["DONE"]
    assert (await desk.actions(letter)).count("resolved") == 1


async def test_i24_an_executor_that_is_away_leaves_the_intent_to_be_carried_out(
    desk: Desk, executor: FakeExecutor, executor_server: Server
) -> None:
    letter = await desk.a_letter()
    port = executor_server.port
    await executor_server.stop()
    with pytest.raises(Unavailable) as caught:
        await desk.discard(letter, request_id="r")
    assert caught.value.details.retry_after is not None
    assert (await desk.again(letter)).requested_resolution is Resolution.DISCARDED
    async with serving(executor, port=port):
        async with asyncio.timeout(60):
            while (await desk.again(letter)).resolution is Resolution.PENDING:
                await desk.carry_out_later()
        assert (await desk.discard(letter, request_id="r")).resolution is Resolution.DISCARDED
    assert len(executor.effects) == 1
    tries = await desk.sql("select tries from dlq.resolution_intent")
    assert tries[0][0] > 1


async def test_a_try_that_failed_puts_the_next_one_off(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    executor.drop = 2
    with pytest.raises(Unavailable):
        await desk.discard(letter)
    due = await desk.outstanding.step()
    assert due is not None
    assert 0 < due.total_seconds() <= 60
    assert len(executor.calls) == 1
    await desk.carry_out_later()
    assert len(executor.calls) == 2
    assert (await desk.again(letter)).resolution is Resolution.PENDING
    await desk.carry_out_later()
    assert (await desk.again(letter)).resolution is Resolution.DISCARDED
    assert await desk.outstanding.step() is None


async def test_two_replicas_try_one_intent_one_at_a_time(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    executor.drop = 1
    with pytest.raises(Unavailable):
        await desk.discard(letter)
    await desk.sql("update dlq.resolution_intent set next_try_at = now()")
    await asyncio.gather(desk.outstanding.step(), desk.outstanding.step())
    assert len(executor.calls) == 2


REFUSALS = [
    ExecutionEnded("it was cancelled"),
    DeadlinePassed("too late"),
    NotQuarantined("never was"),
    RunNotFound("no such run"),
    InvalidRequest.of_field("inputs", "no"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
async def test_a_refusal_of_the_executor_is_told_and_the_letter_is_open_again(
    desk: Desk, executor: FakeExecutor, refusal: ValkyrError
) -> None:
    letter = await desk.a_letter()
    executor.refuse = refusal
    with pytest.raises(type(refusal), match=str(refusal)):
        await desk.requeue(letter, request_id="r")
    open_again = await desk.again(letter)
    assert (open_again.resolution, open_again.requested_resolution) == (Resolution.PENDING, None)
    assert await desk.intents(letter) == ["REFUSED"]
    assert await desk.actions(letter) == ["quarantined", "resolution_requested", "resolution_refused"]
    await desk.carry_out_later()
    assert len(executor.calls) == 1
    executor.refuse = None
    assert (await desk.requeue(letter, request_id="r")).resolution is Resolution.REQUEUED


async def test_a_repeated_request_gets_the_first_answer_and_another_body_none(
    desk: Desk, executor: FakeExecutor
) -> None:
    letter, other = await desk.a_letter(), await desk.a_letter()
    first = await desk.fix(letter, request_id="r")
    assert await desk.fix(letter, request_id="r") == first
    assert len(executor.calls) == 1
    for call in (desk.fix(letter, outputs=2, request_id="r"), desk.fix(other, request_id="r")):
        with pytest.raises(RequestIdReused):
            await call
    # The id belongs to a method: another one may use it.
    assert (await desk.discard(other, request_id="r")).resolution is Resolution.DISCARDED


async def test_a_request_id_is_forgotten_after_a_day(desk: Desk) -> None:
    letter, other = await desk.a_letter(), await desk.a_letter()
    await desk.fix(letter, request_id="r")
    await desk.sql("update dlq.answered_request set created_date = now() - interval '25 hours'")
    with pytest.raises(DeadLetterResolved):
        await desk.fix(letter, request_id="r")
    assert (await desk.fix(other, request_id="r")).resolution is Resolution.FIXED


async def test_only_answered_requests_are_pruned(desk: Desk, executor: FakeExecutor) -> None:
    done, waits = await desk.a_letter(), await desk.a_letter()
    await desk.fix(done, request_id="done")
    executor.drop = 1
    with pytest.raises(Unavailable):
        await desk.fix(waits, request_id="waits")
    await desk.sql("update dlq.answered_request set created_date = now() - interval '25 hours'")
    assert await desk.store.prune_requests(KEPT, 10) == 1
    assert (await desk.fix(waits, request_id="waits")).resolution is Resolution.FIXED
    assert len(executor.effects) == 2


async def test_the_same_call_without_a_request_id_joins_the_one_that_waits(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    executor.drop = 1
    with pytest.raises(Unavailable):
        await desk.fix(letter)
    assert (await desk.fix(letter)).resolution is Resolution.FIXED
    assert len(executor.effects) == 1


async def test_a_run_requeued_too_often_needs_force(desk: Desk, executor: FakeExecutor) -> None:
    run_id = a_run()
    await desk.bring(*(a_quarantine(run_id, number) for number in (5, 6)))
    fifth, sixth = await desk.letter_of(run_id, 5), await desk.letter_of(run_id, 6)
    assert (fifth.requeue_count, sixth.requeue_count) == (4, 5)
    assert (await desk.requeue(fifth)).resolution is Resolution.REQUEUED
    with pytest.raises(TooManyRequeues) as caught:
        await desk.requeue(sixth)
    assert caught.value.details.metadata == {"requeueCount": "5", "maxRequeues": "5"}
    assert "force" in caught.value.hint
    assert (await desk.again(sixth)).requested_resolution is None
    assert (await desk.requeue(sixth, force=True)).resolution is Resolution.REQUEUED
    assert [call.request.force for call in executor.calls] == [True, True]


async def test_a_letter_of_another_namespace_is_not_there(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter(namespace="one")
    with pytest.raises(DeadLetterNotFound):
        await desk.fix(replace(letter, namespace="two"))
    assert not executor.calls
    assert (await desk.fix(letter)).namespace == "one"
    assert executor.calls[0].request.namespace == "one"


async def test_i22_a_letter_takes_one_intent_and_one_end(desk: Desk) -> None:
    letter = await desk.a_letter()
    ends = [Settlement(letter.namespace, letter.id, end, BOB, "") for end in (Resolution.FIXED, Resolution.DISCARDED)]

    async def ask(intent_id: str) -> bool:
        async with desk.store.transaction() as tx:
            return await tx.request_resolution(letter.namespace, letter.id, Resolution.FIXED, intent_id)

    async def end(settlement: Settlement) -> set[str]:
        async with desk.store.transaction() as tx:
            return await tx.settle_letters([settlement])

    assert [await ask(new_id()), await ask(new_id())] == [True, False]
    assert [await end(ends[0]), await end(ends[1])] == [{letter.id}, set()]
    assert not await ask(new_id())
    assert (await desk.again(letter)).resolution is Resolution.FIXED


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), Overloaded("busy"), Conflict("raced")], ids=repr)
async def test_i22_an_answer_that_leaves_it_open_whether_it_was_done_keeps_the_intent(
    desk: Desk, executor: FakeExecutor, failure: Exception
) -> None:
    letter = await desk.a_letter()
    executor.refuse = failure
    with pytest.raises(Unavailable):
        await desk.discard(letter)
    assert (await desk.again(letter)).requested_resolution is Resolution.DISCARDED
    executor.refuse = None
    await desk.carry_out_later()
    assert (await desk.again(letter)).resolution is Resolution.DISCARDED


async def test_i22_a_caller_who_goes_away_leaves_it_to_be_carried_out(desk: Desk, executor: FakeExecutor) -> None:
    letter = await desk.a_letter()
    executor.gate = asyncio.Event()
    call = asyncio.create_task(desk.discard(letter))
    await asyncio.wait_for(executor.arrived.wait(), 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await desk.again(letter)).requested_resolution is Resolution.DISCARDED
    executor.gate.set()
    await desk.carry_out_later()
    assert (await desk.again(letter)).resolution is Resolution.DISCARDED
    assert len(executor.effects) == 1
