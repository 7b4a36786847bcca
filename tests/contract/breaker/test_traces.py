"""What the breaker does for a run is seen in the run's trace (I23)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.contract.breaker.calls import ask, report
from tests.contract.breaker.conftest import TARGET, MovableClock
from tests.otlp import OtlpReceiver
from valkyr import telemetry
from valkyr.api.breaker.v1.breaker_pb2_grpc import BreakerServiceStub

RUN = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def receiver(log: io.StringIO) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        observed = telemetry.configure("breaker", otlp_endpoint=receiver.endpoint, stream=log, log_format="json")
        yield receiver
        observed.shutdown()
        telemetry.reset()


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def own(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.name.startswith("breaker.")]


async def test_i23_transitions_and_probes_are_below_the_run_that_caused_them(
    receiver: OtlpReceiver, stub: BreakerServiceStub, clock: MovableClock
) -> None:
    for number in range(5):
        await report(stub, "FAILURE", report_id=f"{RUN}:{number}", traceparent=SAMPLED)
    clock.advance(seconds=30)
    await ask(stub, RUN, traceparent=SAMPLED)

    spans = own(await receiver.wait_for_spans(lambda spans: len(own(spans)) >= 3))
    assert sorted(span.name for span in spans) == ["breaker.permit", "breaker.transition", "breaker.transition"]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.parent_span_id.hex() for span in spans} == {PARENT}
    assert {attributes(span)["valkyr.run_id"] for span in spans} == {RUN}
    assert {attributes(span)["valkyr.target"] for span in spans} == {TARGET}
    events = sorted(event.name for span in spans for event in span.events)
    assert events == ["breaker.half_opened", "breaker.opened"]
    assert {attributes(span)["valkyr.generation"] for span in spans} == {1, 2}


@pytest.mark.parametrize("traceparent", [NOT_SAMPLED, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_nothing_is_recorded_of_a_trace_that_is_not_sampled_or_none(
    receiver: OtlpReceiver, stub: BreakerServiceStub, traceparent: str
) -> None:
    for number in range(5):
        await report(stub, "FAILURE", report_id=f"{RUN}:{number}", traceparent=traceparent)
    for number in range(5):
        await report(stub, "FAILURE", target="last", report_id=f"{RUN}:{number}", traceparent=SAMPLED)
    [span] = own(await receiver.wait_for_spans(own))
    assert attributes(span)["valkyr.target"] == "last"


async def test_transitions_are_in_the_log_with_the_ids_of_the_trace(
    receiver: OtlpReceiver, stub: BreakerServiceStub, log: io.StringIO
) -> None:
    for number in range(5):
        await report(stub, "FAILURE", report_id=f"{RUN}:{number}", traceparent=NOT_SAMPLED)
    telemetry.reset()
    lines = [orjson.loads(line) for line in log.getvalue().splitlines()]
    [opened] = [line for line in lines if line["event"] == "breaker.opened"]
    assert (opened["target"], opened["generation"], opened["cause"], opened["run_id"]) == (TARGET, 1, "FAILURES", RUN)
    assert opened["trace_id"] == TRACE
