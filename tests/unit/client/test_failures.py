"""client.executions.cancel, client.runs, client.dead_letters, client.breakers: what is sent, and what comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from valkyr import errors
from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.api.executor.v1 import executor_pb2
from valkyr.client import (
    Breaker,
    BreakerState,
    Client,
    DeadLetterType,
    ExecutionState,
    OnUnavailable,
    Resolution,
    RunState,
    Start,
)
from valkyr.client.json_values import value_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LETTER = dlq_pb2.DeadLetter(id="l1", resolution=dlq_pb2.DeadLetter.PENDING)
RUN = executor_pb2.Run(id="r1", state=executor_pb2.Run.READY, map_index=-1)
EXECUTION = executor_pb2.Execution(id="e1", state=executor_pb2.Execution.RUNNING, cancel_requested=True)
ANSWERS = {
    "CancelExecution": executor_pb2.CancelExecutionResponse(execution=EXECUTION),
    "RequeueRun": executor_pb2.RequeueRunResponse(run=RUN),
    "CompleteRunManually": executor_pb2.CompleteRunManuallyResponse(run=RUN),
    "DiscardRun": executor_pb2.DiscardRunResponse(run=RUN),
    "RequeueDeadLetter": dlq_pb2.RequeueDeadLetterResponse(dead_letter=LETTER),
    "FixDeadLetter": dlq_pb2.FixDeadLetterResponse(dead_letter=LETTER),
    "DiscardDeadLetter": dlq_pb2.DiscardDeadLetterResponse(dead_letter=LETTER),
}
CHANGES: dict[str, Callable[..., Awaitable[Any]]] = {
    "CancelExecution": lambda client, **more: client.executions.cancel("e1", **more),
    "RequeueRun": lambda client, **more: client.runs.requeue("e1", "r1", quarantine_number=2, **more),
    "CompleteRunManually": lambda client, **more: client.runs.complete(
        "e1", "r1", quarantine_number=2, outputs=None, **more
    ),
    "DiscardRun": lambda client, **more: client.runs.discard("e1", "r1", quarantine_number=2, reason="no", **more),
    "RequeueDeadLetter": lambda client, **more: client.dead_letters.requeue("l1", **more),
    "FixDeadLetter": lambda client, **more: client.dead_letters.fix("l1", outputs=None, **more),
    "DiscardDeadLetter": lambda client, **more: client.dead_letters.discard("l1", reason="no", **more),
}


def at(when: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp


@pytest.mark.parametrize("rpc", CHANGES)
async def test_every_change_carries_a_request_id_that_is_kept_when_it_is_repeated(
    rpc: str, script: Any, client: Client
) -> None:
    script.answer(rpc, errors.Unavailable("restarting"), ANSWERS[rpc])
    await CHANGES[rpc](client)
    first, second = script.requests(rpc)
    assert first.request_id
    assert first == second
    assert first.namespace == "default"
    await CHANGES[rpc](client, request_id="mine")
    assert script.requests(rpc)[-1].request_id == "mine"


@pytest.mark.parametrize("rpc", CHANGES)
async def test_who_comes_second_is_told_who_won(rpc: str, script: Any, client: Client) -> None:
    won = {"resolution": "FIXED", "resolvedBy": "bob", "resolvedTime": "2026-03-01T12:00:00Z"}
    script.answer(rpc, errors.QuarantineResolved("bob fixed it", hint="look at it", metadata=won))
    with pytest.raises(errors.QuarantineResolved, match="bob fixed it") as caught:
        await CHANGES[rpc](client)
    assert dict(caught.value.details.metadata) == won
    assert caught.value.hint == "look at it"


async def test_cancel_sends_the_reason_and_answers_with_what_is_still_under_way(script: Any, client: Client) -> None:
    script.answer("CancelExecution", ANSWERS["CancelExecution"])
    execution = await client.executions.cancel("e1", reason="wrong order")
    assert (execution.state, execution.cancel_requested) == (ExecutionState.RUNNING, True)
    (request,) = script.requests("CancelExecution")
    assert (request.execution_id, request.reason) == ("e1", "wrong order")


async def test_a_deadline_is_sent_in_utc_and_read_back(script: Any, client: Client) -> None:
    started = executor_pb2.Execution(id="e1", state=executor_pb2.Execution.PENDING, deadline=at(NOON))
    script.answer("StartExecution", executor_pb2.StartExecutionResponse(execution=started))
    berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert (await client.executions.start("w1", deadline=berlin)).deadline == NOON
    (request,) = script.requests("StartExecution")
    assert request.deadline == at(NOON)


async def test_i25_a_deadline_without_a_zone_is_refused_before_any_call(script: Any, client: Client) -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(errors.InvalidRequest, match="^deadline: 2026-03-01T12:00:00 has no time zone"):
        await client.executions.start("w1", deadline=naive)
    with pytest.raises(errors.InvalidRequest, match=r"^executions\[1\]\.deadline"):
        await client.executions.start_many([Start("w1"), Start("w1", deadline=naive)])
    with pytest.raises(errors.InvalidRequest, match="^deadline"):
        await client.dead_letters.requeue("l1", deadline=naive)
    assert not script.received


async def test_a_requeue_sends_what_was_overridden_and_nothing_else(script: Any, client: Client) -> None:
    script.answer("RequeueRun", ANSWERS["RequeueRun"])
    script.answer("RequeueDeadLetter", ANSWERS["RequeueDeadLetter"])
    await client.runs.requeue("e1", "r1", quarantine_number=2)
    inputs = {"trigger": {"n": 1}, "nodes": {}}
    run = await client.runs.requeue(
        "e1", "r1", quarantine_number=3, inputs=inputs, new_key=True, deadline=NOON, force=True, reason="mended"
    )
    await client.dead_letters.requeue("l1", inputs=inputs, new_key=True, deadline=NOON, force=True, reason="mended")
    plain, full = script.requests("RequeueRun")
    (letters,) = script.requests("RequeueDeadLetter")
    assert run.state is RunState.READY
    assert (plain.execution_id, plain.run_id, plain.quarantine_number) == ("e1", "r1", 2)
    assert not plain.HasField("inputs")
    assert not plain.HasField("deadline")
    assert (plain.new_key, plain.force, plain.reason) == (False, False, "")
    for request in (full, letters):
        assert request.inputs == value_of(inputs, path="")
        assert request.deadline == at(NOON)
        assert (request.new_key, request.force, request.reason) == (True, True, "mended")


async def test_null_is_an_answer_and_travels_as_one(script: Any, client: Client) -> None:
    for rpc in ("CompleteRunManually", "FixDeadLetter"):
        script.answer(rpc, ANSWERS[rpc])
        await CHANGES[rpc](client)
        (request,) = script.requests(rpc)
        assert request.HasField("outputs")
        assert request.outputs.WhichOneof("kind") == "null_value"


async def test_a_letter_comes_with_all_that_is_needed_to_replay_it(script: Any, client: Client) -> None:
    letter = dlq_pb2.DeadLetter(
        id="l1",
        node_id="charge",
        quarantine_number=2,
        failure_type=dlq_pb2.DeadLetter.MAX_RETRIES,
        original_inputs=value_of({"trigger": {"cents": 5}}, path=""),
        original_config=value_of({"url": "https://bank.example"}, path=""),
        quarantined_time=at(NOON),
        resolution=dlq_pb2.DeadLetter.PENDING,
        requested_resolution=dlq_pb2.DeadLetter.FIXED,
        previous_id="l0",
    )
    letter.attempts.add(attempt=1, outcome="TIMEOUT", error="too slow", stack_trace="at line 1", start_time=at(NOON))
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=letter))
    read = await client.dead_letters.get("l1")
    assert read.failure_type is DeadLetterType.MAX_RETRIES
    assert read.original_inputs == {"trigger": {"cents": 5}}
    assert read.original_config == {"url": "https://bank.example"}
    assert (read.quarantined_at, read.resolved_at) == (NOON, None)
    assert (read.attempts[0].stack_trace, read.attempts[0].started_at) == ("at line 1", NOON)
    assert read.pending
    assert read.requested_resolution is Resolution.FIXED
    assert read.previous_id == "l0"


async def test_letters_are_listed_by_page_and_filter(script: Any, client: Client) -> None:
    script.answer(
        "ListDeadLetters",
        dlq_pb2.ListDeadLettersResponse(dead_letters=[LETTER], next_page_token="more"),
        dlq_pb2.ListDeadLettersResponse(dead_letters=[LETTER]),
    )
    pages = client.dead_letters.list(
        resolutions=[Resolution.PENDING, Resolution.FIXED],
        execution_id="e1",
        workflow_id="w1",
        run_id="r1",
        target="http:bank.example",
        failure_types=[DeadLetterType.TIMEOUT],
    )
    assert len(await pages.all()) == 2
    first, second = script.requests("ListDeadLetters")
    assert (first.page_token, second.page_token) == ("", "more")
    assert list(first.resolutions) == [dlq_pb2.DeadLetter.PENDING, dlq_pb2.DeadLetter.FIXED]
    assert list(first.failure_types) == [dlq_pb2.DeadLetter.TIMEOUT]
    assert (first.execution_id, first.workflow_id, first.run_id, first.target) == (
        "e1",
        "w1",
        "r1",
        "http:bank.example",
    )


async def test_a_run_says_how_it_was_held_back_and_quarantined(script: Any, client: Client) -> None:
    run = executor_pb2.Run(
        id="r1", state=executor_pb2.Run.PARKED, parked_by="BREAKER", episode_id="p1", failures=2, lost_leases=1
    )
    run.parked_time.CopyFrom(at(NOON))
    run.parked_duration.FromTimedelta(timedelta(seconds=7))
    run.quarantines.add(
        quarantine_number=1,
        failure_type="MAX_RETRIES",
        resolution="REQUEUED",
        resolved_by="bob",
        quarantine_time=at(NOON),
        resolved_time=at(NOON + timedelta(minutes=1)),
        resolution_trace_id="ab" * 16,
    )
    script.answer("ListRuns", executor_pb2.ListRunsResponse(runs=[run]))
    (read,) = await client.executions.list_runs("e1").all()
    assert (read.parked_at, read.parked_duration, read.episode_id) == (NOON, timedelta(seconds=7), "p1")
    assert (read.failures, read.lost_leases) == (2, 1)
    (quarantine,) = read.quarantines
    assert (quarantine.quarantined_at, quarantine.resolved_at) == (NOON, NOON + timedelta(minutes=1))
    assert (quarantine.resolution, quarantine.resolved_by) == ("REQUEUED", "bob")
    assert quarantine.resolution_trace_id == "ab" * 16


def a_breaker(target: str = "http:bank", *, state: str = "OPEN", generation: int = 1) -> breaker_pb2.Breaker:
    return breaker_pb2.Breaker(
        target=target, state=breaker_pb2.Breaker.State.Value(state), generation=generation, next_retry_time=at(NOON)
    )


async def test_a_breaker_comes_with_its_policy(script: Any, client: Client) -> None:
    breaker = a_breaker()
    breaker.policy.failure_threshold = 5
    breaker.policy.timeout_duration.FromTimedelta(timedelta(seconds=30))
    breaker.policy.on_unavailable = breaker_pb2.Policy.ALLOW
    script.answer("GetBreaker", breaker_pb2.GetBreakerResponse(breaker=breaker))
    read = await client.breakers.get("http:bank")
    assert (read.state, read.next_retry_at, read.opened_at) == (BreakerState.OPEN, NOON, None)
    assert read.policy is not None
    assert read.policy.timeout_duration == timedelta(seconds=30)
    assert read.policy.on_unavailable is OnUnavailable.ALLOW


async def test_breakers_are_listed_by_page_and_filter(script: Any, client: Client) -> None:
    script.answer(
        "ListBreakers",
        breaker_pb2.ListBreakersResponse(breakers=[a_breaker("a")], next_page_token="more"),
        breaker_pb2.ListBreakersResponse(breakers=[a_breaker("b")]),
    )
    pages = client.breakers.list(states=[BreakerState.OPEN], target_prefix="http:")
    assert [breaker.target async for breaker in pages] == ["a", "b"]
    first, second = script.requests("ListBreakers")
    assert (first.page_token, second.page_token) == ("", "more")
    assert list(first.states) == [breaker_pb2.Breaker.OPEN]
    assert first.target_prefix == "http:"


async def test_the_watch_of_breakers_outlives_its_stream_and_tells_nothing_twice(script: Any, client: Client) -> None:
    def seen(*breakers: breaker_pb2.Breaker) -> breaker_pb2.WatchBreakersResponse:
        return breaker_pb2.WatchBreakersResponse(breakers=breakers)

    script.answer(
        "WatchBreakers",
        [seen(a_breaker("a"), a_breaker("b")), seen(), seen(a_breaker("a", state="HALF_OPEN", generation=2))],
        [seen(a_breaker("a", generation=1), a_breaker("b")), errors.Unavailable("restarting")],
        [seen(a_breaker("a", state="CLOSED", generation=3))],
    )
    watch = client.breakers.watch()
    changes = [await anext(watch) for _ in range(4)]
    await watch.aclose()
    assert [(change.target, change.state) for change in changes] == [
        ("a", BreakerState.OPEN),
        ("b", BreakerState.OPEN),
        ("a", BreakerState.HALF_OPEN),
        ("a", BreakerState.CLOSED),
    ]


async def test_i24_the_watch_of_breakers_gives_up_after_its_patience(script: Any, client: Client) -> None:
    script.answer("WatchBreakers", errors.Unavailable("gone"))
    seen: list[Breaker] = []
    with pytest.raises(errors.Unavailable, match="gone"):
        async for breaker in client.breakers.watch(patience=timedelta(milliseconds=300)):
            seen.append(breaker)
    assert seen == []
    assert len(script.received) > 1


async def test_a_resolution_of_a_newer_server_says_so(script: Any, client: Client) -> None:
    letter = dlq_pb2.DeadLetter(id="l1", resolution=99)  # type: ignore[arg-type]
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=letter))
    with pytest.raises(errors.UnknownMethod, match="99"):
        await client.dead_letters.get("l1")


async def test_i24_each_service_is_called_by_its_name_when_it_is_away(nowhere: str) -> None:
    async with Client(
        nowhere, nowhere, breaker=nowhere, dlq=nowhere, connect_timeout=timedelta(milliseconds=200)
    ) as client:
        with pytest.raises(errors.Unavailable, match=f"the dead letter queue at {nowhere} cannot be reached"):
            await client.dead_letters.get("l1")
        with pytest.raises(errors.Unavailable, match=f"the breaker service at {nowhere} cannot be reached"):
            await client.breakers.get("http:bank")
