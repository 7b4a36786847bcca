"""The worker: from a lease to a report."""

from __future__ import annotations

import asyncio
import io
import threading
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from tests.otlp import OtlpReceiver
from tests.unit.runner.fakes import Clock, FakeTransport, Gate, a_lease, a_running, eventually, modules_with, turns
from valkyr.errors import InvalidRequest, Unavailable
from valkyr.module import Context, PermanentError, RetryLater
from valkyr.runner import worker as worker_module
from valkyr.runner.leases import FailureType, Granted, LeasedRun, Release, ReportAnswer, Success
from valkyr.telemetry import configure, reset


class Config(BaseModel):
    url: str
    count: int = Field(default=1, ge=1)


async def test_a_leased_run_is_run_and_reported() -> None:
    transport = FakeTransport(a_lease("r1"))
    async with a_running(transport) as worker:
        await eventually(lambda: transport.results)
        await eventually(lambda: not worker.live)
    result = transport.result_of("r1")
    assert result.result == Success(b"{}")
    assert result.ref == a_lease("r1").ref
    assert result.started_at is not None
    assert result.finished_at is not None
    assert result.finished_at >= result.started_at
    assert result.duration_ms is not None


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_module_sees_its_run_and_its_config(kind: str) -> None:
    seen: list[tuple[Context, Config]] = []

    async def run(context: Context, config: Config) -> Any:
        seen.append((context, config))
        context.cost_tokens = 3.5
        return {"n": context.trigger["n"], "x": context.outputs_of("before")["x"], "count": config.count}

    def run_in_thread(context: Context, config: Config) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return asyncio.run(run(context, config))

    function = run if kind == "async" else run_in_thread
    transport = FakeTransport(
        a_lease("r1", "M", config=b'{"url":"u","count":4}', attempt=2, timeout=timedelta(hours=1))
    )
    async with a_running(transport, modules_with(M=function), settings={"http": "rules"}):
        await eventually(lambda: transport.results)
    [(context, config)] = seen
    assert transport.result_of("r1").result == Success(b'{"n":1,"x":2,"count":4}', cost_tokens=3.5)
    assert (context.run_id, context.execution_id, context.attempt) == ("r1", "e1", 2)
    assert (context.idempotency_key, context.settings["http"]) == ("key", "rules")
    assert context.deadline is not None
    assert config.url == "u"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermanentError("never"), FailureType.PERMANENT),
        (RetryLater("later", after=timedelta(seconds=5)), FailureType.RATE_LIMITED),
        (TimeoutError("slow"), FailureType.TIMEOUT),
        (ValueError("oops"), FailureType.TRANSIENT),
        (SystemExit(1), FailureType.TRANSIENT),
        (asyncio.CancelledError("by itself"), FailureType.TRANSIENT),
        (GeneratorExit(), FailureType.TRANSIENT),
    ],
    ids=lambda value: str(value) if isinstance(value, FailureType) else type(value).__name__,
)
@pytest.mark.parametrize("kind_of_module", ["async", "thread"])
async def test_an_exception_becomes_a_failure_and_the_worker_goes_on(
    error: BaseException, kind: FailureType, kind_of_module: str
) -> None:
    async def fail(context: Context) -> None:
        raise error

    def fail_in_thread(context: Context) -> None:
        raise error

    transport = FakeTransport(a_lease("r1", "M"))
    async with a_running(transport, modules_with(M=fail if kind_of_module == "async" else fail_in_thread)):
        await eventually(lambda: transport.results)
        transport.offer(a_lease("r2"))
        await eventually(lambda: len(transport.results) == 2)
    failure = transport.failure_of("r1")
    assert failure.type is kind
    assert "fail" in failure.stack_trace
    assert failure.retry_after == getattr(error, "after", None)


@pytest.mark.parametrize(
    ("class_name", "config", "message"),
    [
        ("M", b"{}", "the config of M is wrong: url: Field required"),
        ("M", b'{"url":"u","count":"many"}', "count: .*not 'many'"),
        ("M", b"[1]", "the config of M is wrong"),
        ("M", b"{", "the config of M is wrong"),
        ("NoopModul", b"{}", "no module called 'NoopModul'; did you mean NoopModule"),
        ("Nothing like it", b"{}", "no module called .*; it has"),
        ("DelayModule", b'{"duration":"PT1S"}', "control node"),
        ("Bad", b"{}", "nan"),
    ],
)
async def test_what_can_never_work_is_permanent(class_name: str, config: bytes, message: str) -> None:
    async def module(context: Context, config: Config) -> None:
        raise AssertionError("it must not be called")

    def bad(context: Context) -> Any:
        return {"a": float("nan")}

    transport = FakeTransport(a_lease("r1", class_name, config=config))
    async with a_running(transport, modules_with(M=module, Bad=bad)):
        await eventually(lambda: transport.results)
    failure = transport.failure_of("r1")
    assert failure.type is FailureType.PERMANENT
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failure.message)


async def test_an_unknown_class_can_be_a_noop() -> None:
    transport = FakeTransport(a_lease("r1", "Unheard"))
    async with a_running(transport, unknown_as_noop=True):
        await eventually(lambda: transport.results)
    assert transport.outputs_of("r1") == b"{}"


async def test_a_transform_returns_its_config_exactly() -> None:
    transport = FakeTransport(a_lease("r1", "TransformModule", config=b'{"output":{"big":9007199254740993,"f":1.0}}'))
    async with a_running(transport):
        await eventually(lambda: transport.results)
    assert transport.outputs_of("r1") == b'{"big":9007199254740993,"f":1.0}'


async def test_i13_room_is_what_the_leases_held_leave() -> None:
    gate = Gate()
    transport = FakeTransport(*(a_lease(f"r{number}", "M") for number in range(5)))
    async with a_running(transport, modules_with(M=gate.run), concurrency=3) as worker:
        await eventually(lambda: gate.started == 3)
        assert worker.room() == 0
        assert set(worker.live) == {("r0", 1), ("r1", 1), ("r2", 1)}
        await turns()
        assert transport.asked == [3]
        transport.reports_may_pass.clear()
        gate.open.set()
        await eventually(lambda: gate.running == 0)
        assert worker.room() == 0, "a lease counts until its end has been acknowledged"
        transport.reports_may_pass.set()
        await eventually(lambda: len(transport.results) == 5)
        await eventually(lambda: worker.room() == 3)


class SlowTransport(FakeTransport):
    """Each call for runs takes `lasts` seconds, by the worker's clock."""

    def __init__(self, clock: Clock, lasts: float, *runs: LeasedRun) -> None:
        super().__init__(*runs)
        self._clock = clock
        self._lasts = lasts

    async def lease_runs(self, *, max_runs: int) -> Granted:
        granted = await super().lease_runs(max_runs=max_runs)
        self._clock.move(self._lasts)
        return granted


async def test_where_more_stand_in_line_than_fit_it_asks_again_when_all_its_slots_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_GATHERING", 60)
    gates = [Gate() for _ in range(3)]
    clock = Clock()
    transport = SlowTransport(clock, 60, *(a_lease(f"r{number}", f"M{number}") for number in range(3)))
    modules = modules_with(**{f"M{number}": gate.run for number, gate in enumerate(gates)})
    async with a_running(transport, modules, concurrency=3, clock=clock):
        await eventually(lambda: transport.asked)
        for number, gate in enumerate(gates):
            assert transport.asked == [3], number
            gate.open.set()
            await eventually(lambda done=number + 1: len(transport.results) == done)
            await turns()
        await eventually(lambda: transport.asked == [3, 3])


@pytest.mark.parametrize(("lasts", "longest"), [(0.01, 60), (60, 0.01)], ids=["a quick executor", "a slow one"])
async def test_it_waits_for_more_room_no_longer_than_its_last_call_took_nor_than_it_may(
    monkeypatch: pytest.MonkeyPatch, lasts: float, longest: float
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_GATHERING", longest)
    held, gate = Gate(), Gate()
    clock = Clock()
    transport = SlowTransport(clock, lasts, a_lease("r0", "Held"), a_lease("r1", "M"))
    async with a_running(transport, modules_with(Held=held.run, M=gate.run), concurrency=2, clock=clock):
        gate.open.set()
        await eventually(lambda: transport.asked == [2, 1])


async def test_who_is_to_take_no_more_while_it_waits_for_more_room_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_GATHERING", 0.2)
    held, gate = Gate(), Gate()
    clock = Clock()
    transport = SlowTransport(clock, 60, a_lease("r0", "Held"), a_lease("r1", "M"))
    async with a_running(transport, modules_with(Held=held.run, M=gate.run), concurrency=2, clock=clock) as worker:
        await eventually(lambda: held.started and gate.started)
        [pulling] = [task for task in asyncio.all_tasks() if task.get_name() == "valkyr-leases"]
        gate.open.set()
        await eventually(lambda: worker.room() == 1)
        worker.take_no_more()
        await eventually(lambda: pulling.done() or len(transport.asked) > 1)
    assert 0 not in transport.asked


async def test_where_all_that_stood_in_line_fits_it_asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_GATHERING", 60)
    gate, clock = Gate(), Clock()
    transport = SlowTransport(clock, 60, *(a_lease(f"r{number}", "M") for number in range(3)))
    async with a_running(transport, modules_with(M=gate.run), concurrency=4, clock=clock):
        await eventually(lambda: transport.asked == [4, 1])


async def test_i13_pushed_runs_count_like_pulled_ones() -> None:
    gate = Gate()
    transport = FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), concurrency=3) as worker:
        worker.accept([a_lease("p1", "M"), a_lease("p2", "M")])
        assert worker.room() == 1
        await eventually(lambda: gate.started == 2)
        worker.accept([a_lease("p3", "M"), a_lease("p4", "M")])
        assert worker.room() == 0
        gate.open.set()
        await eventually(lambda: worker.room() == 3)


async def test_a_lease_that_is_held_already_is_started_once() -> None:
    gate = Gate()
    async with a_running(FakeTransport(), modules_with(M=gate.run)) as worker:
        worker.accept([a_lease("r1", "M")])
        worker.accept([a_lease("r1", "M")])
        await eventually(lambda: gate.started)
        await turns()
        assert gate.started == 1


async def test_more_than_was_asked_for_goes_back() -> None:
    gate = Gate()
    transport = FakeTransport()
    async with a_running(transport, modules_with(M=gate.run), concurrency=2) as worker:
        await eventually(lambda: transport.asked == [2])
        worker.accept([a_lease("pushed", "M")])
        transport.offer(a_lease("r1", "M"), a_lease("r2", "M"))
        await eventually(lambda: transport.results)
        assert transport.result_of("r2").result == Release()
        assert set(worker.live) == {("pushed", 1), ("r1", 1)}


async def test_results_that_gather_while_a_report_is_in_flight_form_the_next() -> None:
    transport = FakeTransport()
    async with a_running(transport, concurrency=100) as worker:
        transport.reports_may_pass.clear()
        worker.accept([a_lease("first")])
        await eventually(lambda: worker.live[("first", 1)].result)
        await turns()
        worker.accept([a_lease(f"r{number}") for number in range(40)])
        await eventually(lambda: all(attempt.result for attempt in worker.live.values()))
        transport.reports_may_pass.set()
        await eventually(lambda: len(transport.results) == 41)
    assert [len(batch) for batch in transport.batches] == [1, 40]


async def test_a_report_is_repeated_until_it_is_answered() -> None:
    transport = FakeTransport(a_lease("r1"))
    transport.report_errors.extend([Unavailable("away"), Unavailable("away")])
    async with a_running(transport) as worker:
        await eventually(lambda: transport.results)
        await eventually(lambda: not worker.live)
    assert len(transport.refused) == 2
    assert transport.outputs_of("r1") == b"{}"


async def test_i06_a_report_for_a_lost_lease_is_dropped() -> None:
    transport = FakeTransport(a_lease("r1"))
    transport.report_answers["r1"] = ReportAnswer.LEASE_LOST
    async with a_running(transport) as worker:
        await eventually(lambda: transport.results)
        await eventually(lambda: not worker.live)
        await turns()
    assert len(transport.batches) == 1


async def test_one_refused_result_costs_the_others_nothing() -> None:
    def refuse(results: Any) -> InvalidRequest | None:
        bad = any(result.ref.run_id == "bad" and isinstance(result.result, Success) for result in results)
        return InvalidRequest("outputs are not wanted") if bad else None

    transport = FakeTransport()
    transport.refuse = refuse
    async with a_running(transport) as worker:
        worker.accept([a_lease("r1"), a_lease("bad"), a_lease("r2")])
        await eventually(lambda: len(transport.results) == 3)
        await eventually(lambda: not worker.live)
    assert transport.outputs_of("r1") == transport.outputs_of("r2") == b"{}"
    assert transport.failure_of("bad").type is FailureType.PERMANENT
    assert "outputs are not wanted" in transport.failure_of("bad").message


async def test_leasing_goes_on_after_the_executor_was_away() -> None:
    transport = FakeTransport(a_lease("r1"))
    transport.lease_errors.append(Unavailable("away", retry_after=timedelta(milliseconds=1)))
    async with a_running(transport):
        await eventually(lambda: transport.results)


async def test_threads_are_bounded_and_serve_all() -> None:
    gate = Gate()
    transport = FakeTransport(*(a_lease(f"r{number}", "M") for number in range(6)))
    async with a_running(transport, modules_with(M=gate.run_in_thread), concurrency=2):
        await eventually(lambda: gate.started == 2)
        await turns()
        assert gate.started == 2
        gate.open_thread.set()
        await eventually(lambda: len(transport.results) == 6)
    assert all(isinstance(result.result, Success) for result in transport.results)


async def test_a_transport_that_breaks_ends_the_worker_aloud() -> None:
    class Broken(FakeTransport):
        async def lease_runs(self, *, max_runs: int) -> Any:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        async with a_running(Broken()):
            await turns()


async def test_a_sampled_run_has_one_span_below_its_parent() -> None:
    async def fail(context: Context) -> None:
        raise ValueError("oops")

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    sampled, unsampled = f"00-{trace_id}-b7ad6b7169203331-01", f"00-{trace_id}-b7ad6b7169203331-00"
    with OtlpReceiver() as receiver:
        telemetry = configure("runner", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        transport = FakeTransport(
            a_lease("r1", traceparent=sampled),
            a_lease("r2", "M", traceparent=sampled),
            a_lease("r3", traceparent=unsampled),
            a_lease("r4", traceparent="00-nonsense-02"),
        )
        async with a_running(transport, modules_with(M=fail)):
            await eventually(lambda: len(transport.results) == 4)
        telemetry.shutdown()
        spans = await receiver.wait_for_spans(lambda spans: len(spans) >= 2)
        reset()
    by_run = {_attributes(span)["valkyr.run_id"].string_value: span for span in spans}
    assert set(by_run) == {"r1", "r2"}
    assert {span.name for span in spans} == {"run.attempt"}
    assert by_run["r1"].trace_id.hex() == trace_id
    assert by_run["r1"].parent_span_id.hex() == "b7ad6b7169203331"
    assert _attributes(by_run["r1"])["valkyr.epoch"].int_value == 1
    assert by_run["r1"].status.code == Status.STATUS_CODE_UNSET
    assert by_run["r2"].status.code == Status.STATUS_CODE_ERROR
    assert _attributes(by_run["r2"])["valkyr.outcome"].string_value == "TRANSIENT"


def _attributes(span: Span) -> dict[str, Any]:
    return {item.key: item.value for item in span.attributes}


async def test_lines_of_a_module_carry_its_run() -> None:
    config = b'{"message":"hello","fields":{"order":7}}'
    with capture_logs() as lines:
        transport = FakeTransport(a_lease("r1", "LogModule", config=config))
        async with a_running(transport):
            await eventually(lambda: transport.results)
    [line] = [line for line in lines if line["event"] == "module.logged"]
    assert (line["run_id"], line["execution_id"], line["message"]) == ("r1", "e1", "hello")
    assert line["fields"] == {"order": 7}
