"""Log lines and traceparents."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from valkyr import telemetry
from valkyr.telemetry.log_queue import LogQueue

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Ends logging, and answers with the lines."""
    stream = io.StringIO()
    observed = telemetry.configure("x", log_format="json", stream=stream)

    def read() -> list[dict[str, Any]]:
        observed.shutdown()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    telemetry.reset()


def test_an_event_is_one_line_with_its_fields_and_the_ids_of_its_span(lines: Lines) -> None:
    with telemetry.tracer().start_as_current_span("outer") as span:
        telemetry.get_logger("a.b").info("run.leased", attempt=2)
    (line,) = lines()
    assert line["event"] == "run.leased"
    assert (line["attempt"], line["level"], line["logger"]) == (2, "info", "a.b")
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_records_of_libraries_come_out_in_the_same_shape(lines: Lines) -> None:
    logging.getLogger("some.library").warning("it is %s", "late")
    (line,) = lines()
    assert (line["event"], line["logger"], line["level"]) == ("it is late", "some.library", "warning")


def test_s23_secrets_are_masked_and_nothing_can_forge_a_line(lines: Lines) -> None:
    telemetry.get_logger("x").info(
        "a\n{}", password="p", url="postgresql://u:hunter2@h/d", text="\x1b[2J\u202e", deep={"a": "b\nc"}
    )
    (line,) = lines()
    assert line["event"] == "a\\n{}"
    assert line["password"] == "***"
    assert line["url"] == "postgresql://u:***@h/d"
    assert line["text"] == "\\x1b[2J\\u202e"


def test_an_exception_has_its_traceback_without_local_values(lines: Lines) -> None:
    def fails() -> None:
        hunter2 = "hunter" + str(2)
        raise ValueError(len(hunter2))

    try:
        fails()
    except ValueError:
        telemetry.get_logger("x").exception("it.failed")
    (line,) = lines()
    assert "ValueError: 7" in line["exception"]
    assert "'hunter2'" not in line["exception"]


def test_what_json_cannot_hold_is_still_logged(lines: Lines) -> None:
    telemetry.get_logger("x").info("odd", value=object, number=2**70, text="\ud800")
    (line,) = lines()
    assert "odd" in line["event"]


def test_a_stream_that_blocks_costs_lines_and_never_time() -> None:
    unblock = threading.Event()
    written: list[str] = []

    class Blocked(io.StringIO):
        def write(self, text: str) -> int:
            unblock.wait(60)
            written.append(text)
            return len(text)

    queue = LogQueue(Blocked(), capacity=3)
    for number in range(600):
        queue.put(str(number))
    assert queue.dropped
    unblock.set()
    queue.close(timedelta(seconds=60))
    assert '"event":"log.dropped"' in "".join(written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "01-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01\n",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
    ],
)
def test_s31_a_malformed_traceparent_is_none(text: str) -> None:
    assert telemetry.parse_traceparent(text) is None


def test_a_traceparent_comes_back() -> None:
    text = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    context = telemetry.parse_traceparent(text)
    assert context is not None
    assert telemetry.traceparent_of(context) == text


def test_the_span_id_of_an_attempt_is_the_beginning_of_a_hash() -> None:
    """`printf 'r1:1' | sha256sum`; it is stored and sent, so that it may never change."""
    assert telemetry.attempt_span_id("r1", 1) == hashlib.sha256(b"r1:1").hexdigest()[:16]
    assert telemetry.attempt_span_id("r1", 1) != telemetry.attempt_span_id("r1", 2)
    assert telemetry.parse_traceparent(f"00-{'1' * 32}-{telemetry.attempt_span_id('r1', 1)}-01") is not None


def test_the_span_id_of_an_attempt_is_never_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def digest(self) -> bytes:
            return bytes(32)

    monkeypatch.setattr(hashlib, "sha256", lambda _: Zeros())
    assert telemetry.attempt_span_id("r1", 1) == "0000000000000001"


def test_without_a_collector_spans_have_ids_below_their_parent_and_are_not_sampled() -> None:
    telemetry.configure("x", stream=io.StringIO())
    try:
        above = f"00-{'a' * 32}-{'b' * 16}-01"
        with telemetry.tracer().start_as_current_span("one", context=telemetry.context_of(above)):
            one = telemetry.current_traceparent()
            with telemetry.tracer().start_as_current_span("two") as span:
                two = telemetry.current_traceparent()
                assert not span.is_recording()
    finally:
        telemetry.reset()
    trace_ids, span_ids, flags = zip(*(text.split("-")[1:] for text in (above, one, two)), strict=True)
    assert set(trace_ids) == {"a" * 32}
    assert len(set(span_ids)) == 3
    assert flags == ("01", "00", "00")
    assert telemetry.current_traceparent() == ""


def test_without_a_collector_each_root_begins_a_trace_of_its_own() -> None:
    telemetry.configure("x", stream=io.StringIO())
    try:
        roots = [telemetry.tracer().start_span("root").get_span_context() for _ in range(100)]
    finally:
        telemetry.reset()
    assert len({root.trace_id for root in roots}) == len({root.span_id for root in roots}) == 100
    assert all(root.is_valid for root in roots)
