"""The span of an isolated attempt: recorded by the runner, its ids handed on inside, how it ended without payloads."""

from __future__ import annotations

import asyncio
import io

from tests.integration.runner.isolation import a_deed, a_runner, outputs_of, reported
from tests.otlp import OtlpReceiver
from tests.unit.runner.fakes import a_lease
from valkyr.telemetry import attempt_span_id, attempt_traceparent, configure, reset

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_i23_an_isolated_attempt_has_one_span_and_inside_it_its_ids_are_handed_on() -> None:
    with OtlpReceiver() as receiver:
        observed = configure("runner", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        try:
            async with a_runner() as (transport, _):
                seen = await outputs_of(transport, a_deed("good", "whole_context", traceparent=PARENT))
                wrong = a_lease("wrong", "Bad", config=b'{"do": {"card": "4711"}}', traceparent=PARENT)
                transport.offer(wrong, a_deed("dead", "segfault", traceparent=PARENT))
                await reported(transport, "wrong")
                await reported(transport, "dead")
            await asyncio.to_thread(observed.shutdown)
            spans = await receiver.wait_for_spans(lambda spans: len(spans) == 3)
        finally:
            reset()
    assert seen["traceparent"] == attempt_traceparent(PARENT, "good", 1)
    by_id = {span.span_id.hex(): span for span in spans}
    assert by_id.keys() == {attempt_span_id(run_id, 1) for run_id in ("good", "wrong", "dead")}
    dead, bad_config = (by_id[attempt_span_id(run_id, 1)].status.message for run_id in ("dead", "wrong"))
    assert dead == "TRANSIENT: Bad: its process was killed by SIGSEGV, before it had returned"
    assert "4711" in transport.failure_of("wrong").message
    assert bad_config == "PERMANENT: the config of Bad is wrong: do: Input should be a valid string"
