"""The span of an attempt: its id, its links, what it says and what it keeps to itself; and who sees it."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import BaseModel

from tests.otlp import OtlpReceiver
from tests.unit.runner.fakes import FakeTransport, Gate, a_lease, a_running, eventually, modules_with
from valkyr.module import Context, PermanentError, RetryLater
from valkyr.runner.leases import HeartbeatAnswer, LeasedRun
from valkyr.telemetry import attempt_span_id, attempt_traceparent, configure, current_traceparent, reset, tracer

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = (f"00-{TRACE}-b7ad6b7169203331-{flags}" for flags in ("01", "00"))
CANARY = "canary-4711"


class Config(BaseModel):
    card: int


class Traced:
    """A transport, and the spans that arrived by the end of the block."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.spans: list[Span] = []

    def attempt(self, run_id: str) -> Span:
        [span] = [span for span in self.spans if said(span).get("valkyr.run_id") == run_id]
        return span


@asynccontextmanager
async def traced(**functions: Any) -> AsyncIterator[Any]:
    """`async with traced(M=...) as (told, worker):`; after it, `told.spans` are all that were recorded."""
    told = Traced()
    with OtlpReceiver() as receiver:
        observed = configure("runner", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        try:
            async with a_running(
                told.transport, modules_with(**functions), heartbeat_interval=timedelta(milliseconds=5)
            ) as worker:
                yield told, worker
            with tracer().start_as_current_span("the last one"):
                pass
            await asyncio.to_thread(observed.shutdown)
            spans = await receiver.wait_for_spans(lambda spans: any(span.name == "the last one" for span in spans))
        finally:
            reset()
    told.spans = [span for span in spans if span.name != "the last one"]


async def run_all(worker: Any, transport: FakeTransport, *runs: LeasedRun) -> None:
    worker.accept(runs)
    await eventually(lambda: len(transport.results) == len(runs))


def said(span: Span) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


async def test_i23_the_id_of_an_attempts_span_is_known_beforehand() -> None:
    async with traced() as (told, worker):
        await run_all(
            worker,
            told.transport,
            a_lease("r1", traceparent=SAMPLED, target="http:a.example"),
            a_lease("r2", traceparent=SAMPLED, attempt=2),
        )
    first, second = told.attempt("r1"), told.attempt("r2")
    assert first.span_id.hex() == attempt_span_id("r1", 1)
    assert second.span_id.hex() == attempt_span_id("r2", 2)
    assert {span.parent_span_id.hex() for span in told.spans} == {"b7ad6b7169203331"}
    assert {span.trace_id.hex() for span in told.spans} == {TRACE}
    expected = {"valkyr.target": "http:a.example", "valkyr.class_name": "NoopModule", "valkyr.outcome": "SUCCESS"}
    assert expected.items() <= said(first).items()


async def test_i23_an_attempt_is_linked_to_what_went_before() -> None:
    before = attempt_traceparent(SAMPLED, "r1", 1)
    replayed = f"00-{'1' * 32}-{'2' * 16}-01"
    async with traced() as (told, worker):
        links = (before, replayed, "nonsense")
        await run_all(worker, told.transport, a_lease("r1", traceparent=SAMPLED, attempt=2, links=links))
    seen = [(link.trace_id.hex(), link.span_id.hex()) for link in told.attempt("r1").links]
    assert seen == [(TRACE, attempt_span_id("r1", 1)), ("1" * 32, "2" * 16)]


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED], ids=["sampled", "not sampled"])
async def test_a_module_is_within_the_span_of_its_attempt(kind: str, traceparent: str) -> None:
    seen: list[str] = []

    async def run(context: Context) -> None:
        seen.extend([current_traceparent(), context.traceparent])

    def run_in_thread(context: Context) -> None:
        seen.extend([current_traceparent(), context.traceparent])

    async with traced(M=run if kind == "async" else run_in_thread) as (told, worker):
        await run_all(worker, told.transport, a_lease("r1", "M", traceparent=traceparent))
    assert seen == [f"00-{TRACE}-{attempt_span_id('r1', 1)}-{traceparent[-2:]}"] * 2
    assert len(told.spans) == (1 if traceparent == SAMPLED else 0)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_spans_that_a_module_makes_are_below_its_attempt(kind: str) -> None:
    seen: list[str] = []

    def step(context: Context) -> None:
        with tracer().start_as_current_span("a step"):
            seen.append(context.traceparent)

    async def run(context: Context) -> None:
        step(context)

    async with traced(M=run if kind == "async" else step) as (told, worker):
        await run_all(worker, told.transport, a_lease("r1", "M", traceparent=SAMPLED))
    [inner] = [span for span in told.spans if span.name == "a step"]
    assert inner.parent_span_id == told.attempt("r1").span_id != inner.span_id
    assert seen == [f"00-{TRACE}-{inner.span_id.hex()}-01"]


async def test_a_process_that_traces_nothing_hands_the_ids_on() -> None:
    seen: list[str] = []

    async def run(context: Context) -> None:
        seen.append(context.traceparent)

    reset()
    transport = FakeTransport(
        a_lease("r1", "M", traceparent=SAMPLED), a_lease("r2", "M"), a_lease("r3", "M", traceparent="x")
    )
    async with a_running(transport, modules_with(M=run)):
        await eventually(lambda: len(transport.results) == 3)
    assert seen == [attempt_traceparent(SAMPLED, "r1", 1), "", ""]


def test_a_thread_that_a_module_started_itself_still_gets_the_attempts_traceparent() -> None:
    context = Context(run_id="r1", attempt=3, traceparent=SAMPLED)
    assert contextvars.Context().run(lambda: context.traceparent) == attempt_traceparent(SAMPLED, "r1", 3)


async def test_what_a_def_module_sets_is_not_seen_by_the_next_in_its_thread() -> None:
    leaked: contextvars.ContextVar[str] = contextvars.ContextVar("leaked", default="")
    seen: list[str] = []

    def run(context: Context) -> None:
        seen.append(leaked.get())
        leaked.set(context.run_id)

    transport = FakeTransport(a_lease("r1", "M"), a_lease("r2", "M"))
    async with a_running(transport, modules_with(M=run), concurrency=1):
        await eventually(lambda: len(transport.results) == 2)
    assert seen == ["", ""]


async def test_an_inline_module_is_not_within_the_span_of_whoever_brought_its_run() -> None:
    stream = io.StringIO()
    observed = configure("runner", log_format="json", stream=stream)
    try:
        transport = FakeTransport()
        config = b'{"message":"hello"}'
        async with a_running(transport) as worker:
            with tracer().start_as_current_span("somebody else's"):
                worker.accept([a_lease("r1", "LogModule", config=config, traceparent=UNSAMPLED)])
            await eventually(lambda: transport.results)
        observed.shutdown()
    finally:
        reset()
    [line] = [line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == "module.logged"]
    assert (line["trace_id"], line["span_id"]) == (TRACE, attempt_span_id("r1", 1))


def _charge(context: Context, config: Config) -> None:
    raise AssertionError("it must not be called")


def _raising(error: Exception) -> Any:
    def module(context: Context) -> None:
        raise error

    return module


def _model_inside(context: Context) -> None:
    Config.model_validate({"card": CANARY})


@pytest.mark.parametrize(
    ("module", "config", "status", "error_type"),
    [
        (_raising(ValueError("oops")), b"{}", "TRANSIENT: ValueError: oops", "ValueError"),
        (_raising(PermanentError("never")), b"{}", "PERMANENT: never", "PermanentError"),
        (_raising(RetryLater("slower")), b"{}", "RATE_LIMITED: slower", "RetryLater"),
        (_raising(TimeoutError()), b"{}", "TIMEOUT: TimeoutError", "TimeoutError"),
        (_raising(ValueError("x" * 900)), b"{}", f"TRANSIENT: ValueError: {'x' * 177}", "ValueError"),
        (_raising(ValueError("one\ntwo")), b"{}", "TRANSIENT: ValueError: one", "ValueError"),
        (_raising(ValueError("\x1b[2J")), b"{}", "TRANSIENT: ValueError: \\x1b[2J", "ValueError"),
        (_raising(ValueError("to ftp://u:pw@h/")), b"{}", "TRANSIENT: ValueError: to ftp://u:***@h/", "ValueError"),
        (
            _charge,
            f'{{"card":"{CANARY}"}}'.encode(),
            "PERMANENT: the config of M is wrong: card: Input should be a valid integer, unable to parse string as an"
            " integer",
            "BadConfig",
        ),
        (
            _model_inside,
            b"{}",
            "TRANSIENT: the config of Config is wrong: card: Input should be a valid integer, unable to parse string"
            " as an integer",
            "ValidationError",
        ),
    ],
    ids=["exception", "permanent", "later", "timeout", "long", "lines", "control", "password", "config", "model"],
)
async def test_s23_a_failure_is_an_error_with_its_type_and_a_short_text(
    module: Any, config: bytes, status: str, error_type: str
) -> None:
    async with traced(M=module) as (told, worker):
        await run_all(worker, told.transport, a_lease("r1", "M", config=config, traceparent=SAMPLED))
    span = told.attempt("r1")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, status)
    assert said(span)["valkyr.outcome"] == status.partition(":")[0]
    assert said(span)["error.type"] == error_type
    assert not span.events


async def test_s23_no_payload_is_in_a_span() -> None:
    async def echo(context: Context) -> Any:
        return context.inputs

    canary = json.dumps({"trigger": CANARY, "nodes": {}}).encode()
    async with traced(M=echo) as (told, worker):
        lease = a_lease("r1", "M", inputs=canary, config=canary, idempotency_key=CANARY, traceparent=SAMPLED)
        await run_all(worker, told.transport, lease)
    assert CANARY.encode() in told.transport.outputs_of("r1")
    assert CANARY not in str(told.spans)


async def test_an_attempt_without_a_module_has_its_span_too() -> None:
    async with traced() as (told, worker):
        await run_all(worker, told.transport, a_lease("r1", "Unheard", traceparent=SAMPLED))
    span = told.attempt("r1")
    assert span.span_id.hex() == attempt_span_id("r1", 1)
    assert said(span)["error.type"] == said(span)["valkyr.outcome"] == "PERMANENT"


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(HeartbeatAnswer.CANCEL, "CANCELLED"), (HeartbeatAnswer.LEASE_LOST, "LEASE_LOST")],
    ids=["cancel", "lease lost"],
)
async def test_the_span_of_a_stopped_attempt_says_why(kind: str, answer: HeartbeatAnswer, outcome: str) -> None:
    gate = Gate()

    def fail_when_told(context: Context) -> None:
        gate.run_in_thread(context)
        raise ValueError("stopped by hand")

    async with traced(M=gate.run if kind == "async" else fail_when_told) as (told, worker):
        worker.accept([a_lease("r1", "M", traceparent=SAMPLED)])
        await eventually(lambda: gate.running)
        told.transport.answers["r1"] = answer
        await eventually(lambda: gate.contexts[0].cancelled)
        gate.open_thread.set()
        await eventually(lambda: not gate.running and worker.room() == 10)
    span = told.attempt("r1")
    assert said(span)["valkyr.outcome"] == outcome
    assert span.status.code == Status.STATUS_CODE_ERROR


async def test_the_span_of_an_attempt_that_timed_out_says_so() -> None:
    gate = Gate()
    async with traced(M=gate.run) as (told, worker):
        await run_all(
            worker, told.transport, a_lease("r1", "M", traceparent=SAMPLED, timeout=timedelta(milliseconds=10))
        )
    span = told.attempt("r1")
    assert span.status.message == "TIMEOUT: the attempt took longer than its timeout of 0.01 s"
    assert said(span)["error.type"] == "TIMEOUT"
