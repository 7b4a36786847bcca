"""A letter belongs to the trace of its run; a resolution to the operator's, linked to the letter's (I23)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.chassis.serve import Server
from services.dlq.app import App
from tests.contract.dlq.test_answers import a_letter
from tests.dlq_lab import TRACE, TRACEPARENT, FakeExecutor, a_quarantine, a_run, entries, serving
from tests.otlp import OtlpReceiver
from valkyr import telemetry
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.dlq.v1.dlq_pb2_grpc import DeadLetterQueueServiceStub
from valkyr.errors import Unavailable
from valkyr.rpc.status import rpc_errors

LETTERS_SPAN = TRACEPARENT.split("-")[2]


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        observed = telemetry.configure("dlq", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        yield receiver
        observed.shutdown()
        telemetry.reset()


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name.rpartition("/")[2] == name]


async def test_i23_a_stored_quarantine_is_a_span_below_its_runs_trace(
    receiver: OtlpReceiver, app: App, stub: DeadLetterQueueServiceStub
) -> None:
    run_id = a_run()
    unsampled = a_quarantine(a_run(), traceparent=TRACEPARENT[:-1] + "0")
    await stub.QuarantineRuns(entries(a_quarantine(run_id), unsampled, a_quarantine(a_run(), traceparent="nonsense")))
    await stub.QuarantineRuns(entries(a_quarantine(run_id)))
    spans = await receiver.wait_for_spans(lambda spans: len(named(spans, "QuarantineRuns")) == 4)
    (span,) = named(spans, "dead_letter.quarantined")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, LETTERS_SPAN)
    said = {item.key: item.value.string_value for item in span.attributes}
    assert (said["valkyr.run_id"], said["valkyr.target"]) == (run_id, "http:api.stripe.com")


async def test_i23_a_resolution_is_in_the_operators_trace_and_linked_to_the_letters(
    receiver: OtlpReceiver, app: App, stub: DeadLetterQueueServiceStub, executor: FakeExecutor
) -> None:
    letter = await a_letter(stub)
    with telemetry.tracer().start_as_current_span("operator") as operator:
        await stub.DiscardDeadLetter(pb.DiscardDeadLetterRequest(dead_letter_id=letter.id, reason="no"))
    trace_id = f"{operator.get_span_context().trace_id:032x}"
    spans = await receiver.wait_for_spans(lambda spans: len(named(spans, "DiscardDeadLetter")) == 2)
    (resolve,) = named(spans, "dead_letter.resolve")
    served = next(span for span in named(spans, "DiscardDeadLetter") if span.kind == Span.SPAN_KIND_SERVER)
    assert resolve.parent_span_id == served.span_id
    for span in (resolve, served):
        assert span.trace_id.hex() == trace_id
        assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(TRACE, LETTERS_SPAN)]
    assert executor.calls[0].traceparent.split("-")[1] == trace_id


async def test_i23_what_is_carried_out_later_stays_in_the_operators_trace(
    receiver: OtlpReceiver,
    app: App,
    stub: DeadLetterQueueServiceStub,
    executor: FakeExecutor,
    executor_server: Server,
) -> None:
    letter = await a_letter(stub)
    port = executor_server.port
    await executor_server.stop()
    with (
        telemetry.tracer().start_as_current_span("operator") as operator,
        pytest.raises(Unavailable),
        rpc_errors(),
    ):
        await stub.DiscardDeadLetter(pb.DiscardDeadLetterRequest(dead_letter_id=letter.id, reason="no"))
    async with serving(executor, port=port):
        await asyncio.wait_for(executor.arrived.wait(), 30)
        spans = await receiver.wait_for_spans(
            lambda spans: any(not span.status.code for span in named(spans, "dead_letter.resolve"))
        )
    trace_id = f"{operator.get_span_context().trace_id:032x}"
    resolves = named(spans, "dead_letter.resolve")
    assert len(resolves) > 1
    assert {span.trace_id.hex() for span in resolves} == {trace_id}
    assert {span.links[0].trace_id.hex() for span in resolves} == {TRACE}
    assert executor.calls[0].traceparent.split("-")[1] == trace_id
