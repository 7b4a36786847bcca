"""What a module says of how far it is: on its way to the executor, and back to the next attempt."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.runner.fakes import FakeTransport, Gate, a_lease, a_running, eventually, modules_with
from valkyr.errors import Unavailable
from valkyr.module import Context, PermanentError, UnusableProgress
from valkyr.runner.attempt import Attempt
from valkyr.runner.heartbeats import MAX_PROGRESS_OF_BEAT, Heartbeats
from valkyr.runner.leases import HeartbeatAnswer
from valkyr.stored_json import MAX_PROGRESS_BYTES


def speaking(transport: FakeTransport, *said: Any) -> tuple[Heartbeats, list[Attempt]]:
    """Attempts r0, r1, ... that have each said something, and the heartbeats that carry it."""
    attempts = []
    for number, progress in enumerate(said):
        attempt = Attempt(a_lease(f"r{number}"), granted_at=0)
        attempt.context = Context()
        attempt.context.heartbeat(progress)
        attempts.append(attempt)
    beats = Heartbeats(transport, lambda: attempts, lambda _: None, lambda _: None, interval=1, clock=lambda: 0)
    return beats, attempts


def test_the_latest_progress_goes_once() -> None:
    transport = FakeTransport()
    beats, [attempt] = speaking(transport, {"rows": 1})
    assert attempt.context is not None
    attempt.context.heartbeat({"rows": 2})
    beats.beat()
    beats.beat()
    attempt.context.heartbeat({"rows": 2})
    beats.beat()
    ref = attempt.leased.ref
    assert transport.progress == [{ref: b'{"rows":2}'}, {}, {ref: b'{"rows":2}'}]


def test_what_a_heartbeat_could_not_bring_goes_with_the_next() -> None:
    transport = FakeTransport()
    beats, [attempt] = speaking(transport, 1)
    transport.beat_error = Unavailable("no executor")
    beats.beat()
    transport.beat_error = None
    beats.beat()
    assert transport.progress == [{attempt.leased.ref: b"1"}] * 2


@pytest.mark.parametrize("answer", [HeartbeatAnswer.CONTINUE, HeartbeatAnswer.CANCEL])
def test_what_was_taken_note_of_is_not_said_again(answer: HeartbeatAnswer) -> None:
    transport = FakeTransport()
    transport.answers["r0"] = answer
    beats, [attempt] = speaking(transport, 1)
    beats.beat()
    assert attempt.unsent_progress() is None


def test_one_heartbeat_carries_a_bounded_part_and_each_has_its_turn() -> None:
    transport = FakeTransport()
    count = 2 * MAX_PROGRESS_OF_BEAT // MAX_PROGRESS_BYTES + 3
    large = "x" * (MAX_PROGRESS_BYTES - 2)
    beats, attempts = speaking(transport, *[large] * count)
    for _ in range(3):
        for attempt in attempts:  # nobody is ever done talking
            assert attempt.context is not None
            attempt.context.heartbeat(large)
        beats.beat()
    assert all(sum(map(len, said.values())) <= MAX_PROGRESS_OF_BEAT for said in transport.progress)
    assert {ref for said in transport.progress for ref in said} == {attempt.leased.ref for attempt in attempts}


async def test_the_next_attempt_reads_what_the_last_one_said() -> None:
    seen = []

    async def resume(context: Context) -> None:
        seen.append(context.progress)
        context.heartbeat({"rows": 30})
        seen.append(context.progress)

    transport = FakeTransport(a_lease("r1", "M", progress=b'{"rows":20}'), a_lease("r2", "M"))
    async with a_running(transport, modules_with(M=resume), concurrency=1):
        await eventually(lambda: len(transport.results) == 2)
    assert seen == [{"rows": 20}, {"rows": 30}, None, {"rows": 30}]


async def test_a_failure_brings_the_last_progress_and_a_success_brings_none() -> None:
    def work(context: Context) -> None:
        context.heartbeat([context.run_id])
        if context.run_id == "r1":
            raise RuntimeError("broke")

    transport = FakeTransport(a_lease("r1", "M"), a_lease("r2", "M"))
    async with a_running(transport, modules_with(M=work)):
        await eventually(lambda: len(transport.results) == 2)
    assert transport.result_of("r1").progress == b'["r1"]'
    assert transport.result_of("r2").progress is None


async def test_a_module_that_timed_out_has_not_lost_its_progress() -> None:
    async def work(context: Context) -> None:
        context.heartbeat(7)
        await asyncio.Event().wait()

    transport = FakeTransport(a_lease("r1", "M", timeout=timedelta(milliseconds=20)))
    async with a_running(transport, modules_with(M=work)):
        await eventually(lambda: transport.results)
    assert transport.result_of("r1").progress == b"7"


async def test_heartbeats_of_a_worker_carry_progress() -> None:
    gate = Gate()
    transport = FakeTransport(a_lease("r1", "M"))
    async with a_running(transport, modules_with(M=gate.run), heartbeat_interval=timedelta(milliseconds=1)):
        await eventually(lambda: gate.contexts)
        gate.contexts[0].heartbeat("half")
        await eventually(lambda: any(b'"half"' in said.values() for said in transport.progress))


@pytest.mark.parametrize(
    ("value", "message"),
    [("x" * MAX_PROGRESS_BYTES, "65536 are allowed"), (object(), "a object"), (float("nan"), "nan"), ("\0", "NUL")],
    ids=["too large", "no JSON", "not a number", "NUL"],
)
def test_progress_that_cannot_be_stored_is_the_author_s_mistake(value: Any, message: str) -> None:
    context = Context(progress=b"1")
    with pytest.raises(UnusableProgress, match=message):
        context.heartbeat(value)
    assert issubclass(UnusableProgress, PermanentError)
    assert context.progress == 1
