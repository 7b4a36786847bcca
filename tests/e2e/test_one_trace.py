"""I23: one trace from the client's call to the dead letter, through real processes, and to a runner elsewhere; a replay
has its own, linked."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.local.stack import LocalStack
from tests.builders import a_graph
from tests.chaos.runner_processes import a_runner
from tests.executor_stack import eventually, until_true
from tests.free_ports import a_port_base
from tests.otlp import OtlpReceiver
from valkyr import telemetry
from valkyr.client import BreakerState, Client, DeadLetter, Execution, ExecutionState, Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ATTEMPTS = 3


@dataclass
class Target:
    """Answers 500 until it is mended; keeps the traceparents that came with the calls."""

    mended: bool = False
    traceparents: list[str] = field(default_factory=list)
    port: int = 0


@dataclass(frozen=True)
class Story:
    """One execution of `a -> pay`: three calls fail and open the breaker, its letter is requeued, it succeeds."""

    first_trace: str
    replay_trace: str
    execution: Execution
    letter: DeadLetter
    run: Run
    spans: Sequence[Span]
    services: dict[bytes, str]
    calls: Sequence[str]

    def of(self, trace: str, *names: str) -> list[Span]:
        """Spans of a trace, of these names if any are given (an RPC's by its method), in the order of their start."""
        found = [span for span in self.spans if span.trace_id.hex() == trace]
        named = [span for span in found if not names or span.name.rpartition("/")[2] in names]
        return sorted(named, key=lambda span: span.start_time_unix_nano)


@dataclass(frozen=True)
class Elsewhere:
    """One execution whose run is done by a `valkyr runner`: its trace, and the line that the module wrote."""

    trace: str
    run: Run
    spans: Sequence[Span]
    services: Mapping[bytes, str]
    line: Mapping[str, Any]

    def of(self, service: str, name: str) -> list[Span]:
        """Its spans from that service, of this name (an RPC's by its method)."""
        named = [span for span in self.spans if span.name.rpartition("/")[2] == name]
        return [span for span in named if self.services[span.span_id] == service]


@dataclass(frozen=True)
class Observed:
    """A stack whose spans, and this process's, go to the receiver."""

    stack: LocalStack
    receiver: OtlpReceiver


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    seen = Target()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.traceparents.append(self.headers.get("traceparent", ""))
            self.send_response(200 if seen.mended else 500)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with OtlpReceiver() as receiver:
        environment = {
            "VALKYR_TELEMETRY__OTLP_ENDPOINT": receiver.endpoint,
            "VALKYR_EXECUTOR__RUNNER__HTTP__ALLOW_HOSTS": "127.0.0.1",
            "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "20",
            "VALKYR_EXECUTOR__RUNNER__RETRY__MAX_ATTEMPTS": str(ATTEMPTS),
            "VALKYR_BREAKER__FAILURE_THRESHOLD": str(ATTEMPTS),
            "VALKYR_BREAKER__TIMEOUT_DURATION": "PT1S",
            "VALKYR_BREAKER__HALF_OPEN_SUCCESS_THRESHOLD": "1",
        }
        here = telemetry.configure("client", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        try:
            with LocalStack(tmp_path_factory.mktemp("home") / "home", a_port_base(), extra_env=environment) as stack:
                yield Observed(stack, receiver)
        finally:
            here.shutdown()
            telemetry.reset()


@pytest.fixture(scope="module")
def story(observed: Observed, target: Target) -> Story:
    return asyncio.run(_followed(observed.stack, observed.receiver, target))


@pytest.fixture(scope="module")
def elsewhere(observed: Observed, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    return asyncio.run(_done_elsewhere(observed.stack, observed.receiver, tmp_path_factory.mktemp("runner")))


async def _followed(stack: LocalStack, receiver: OtlpReceiver, target: Target) -> Story:
    graph = a_graph(
        "a -> pay",
        modules={"pay": ("HttpRequestModule", {"url": f"http://127.0.0.1:{target.port}/pay?card=not-to-be-seen"})},
    )
    async with Client(**stack.addresses) as client:
        workflow_id = (await client.graphs.save(graph)).workflow.id
        opened = asyncio.create_task(_opens(client))
        with telemetry.tracer().start_as_current_span("the caller's own work") as span:
            started = await client.executions.start(workflow_id)
        first = f"{span.get_span_context().trace_id:032x}"
        failed = await client.executions.wait(started.id, timeout=timedelta(seconds=60))
        assert failed.state is ExecutionState.FAILED, failed

        async def letters() -> list[DeadLetter]:
            return [letter async for letter in client.dead_letters.list(execution_id=started.id)]

        [letter] = await eventually(letters, "the letter has arrived")
        await asyncio.wait_for(opened, 60)  # told to the executor with it: a run requeued before would not be held back
        target.mended = True
        with telemetry.tracer().start_as_current_span("the operator's own work") as span:
            await client.dead_letters.requeue(letter.id, reason="the target is mended")
        replay = f"{span.get_span_context().trace_id:032x}"
        execution = await client.executions.wait(started.id, timeout=timedelta(seconds=60))
        runs = {run.node_id: run async for run in client.executions.list_runs(started.id)}

    def all_there(spans: Sequence[Span]) -> bool:
        seen = {(span.trace_id.hex(), span.name) for span in spans}
        wanted = {
            (first, "the caller's own work"),
            (first, "dead_letter.quarantined"),
            (first, "breaker.transition"),
            (replay, "the operator's own work"),
            (replay, "run.attempt"),
            (replay, "breaker.permit"),
            (replay, "run.requeued"),
        }
        senders = {(span.trace_id.hex(), receiver.services[span.span_id]) for span in spans}
        return wanted <= seen and {(first, "graph-store"), (replay, "dlq")} <= senders

    spans = await receiver.wait_for_spans(all_there)
    return Story(
        first, replay, execution, letter, runs["pay"], spans, dict(receiver.services), tuple(target.traceparents)
    )


async def _opens(client: Client) -> None:
    """Returns once a breaker is OPEN."""
    async with aclosing(client.breakers.watch()) as changes:
        async for breaker in changes:
            if breaker.state is BreakerState.OPEN:
                return


async def _done_elsewhere(stack: LocalStack, receiver: OtlpReceiver, folder: Path) -> Elsewhere:
    graph = a_graph(
        "say", modules={"say": ("LogModule", {"message": "here I am"})}, nodes={"say": {"pool": "elsewhere"}}
    )
    executor = stack.addresses["executor"]
    async with (
        Client(**stack.addresses) as client,
        a_runner(folder, executor, "--pool", "elsewhere", VALKYR_OTLP_ENDPOINT=receiver.endpoint) as runner,
    ):
        workflow_id = (await client.graphs.save(graph)).workflow.id
        with telemetry.tracer().start_as_current_span("the caller's own work") as span:
            started = await client.executions.start(workflow_id)
        trace = f"{span.get_span_context().trace_id:032x}"
        await client.executions.wait(started.id, timeout=timedelta(seconds=60))
        (run,) = [run async for run in client.executions.list_runs(started.id)]
        await until_true(lambda: runner.said("module.logged"), "the line is written")
        (line,) = runner.said("module.logged")

        def all_there(spans: Sequence[Span]) -> bool:
            its_own = [span for span in spans if span.trace_id.hex() == trace]
            seen = {(receiver.services[span.span_id], span.name.rpartition("/")[2]) for span in its_own}
            return {("executor", "StartExecution"), ("valkyr-runner", "run.attempt")} <= seen

        spans = await receiver.wait_for_spans(all_there)
    return Elsewhere(trace, run, [s for s in spans if s.trace_id.hex() == trace], dict(receiver.services), line)


def test_i23_one_trace_runs_from_the_call_through_all_four_services_to_the_letter(story: Story) -> None:
    spans = story.of(story.first_trace)
    assert {story.services[span.span_id] for span in spans} == {"client", "graph-store", "executor", "breaker", "dlq"}
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_span_id not in ids] == ["the caller's own work"]
    assert story.execution.trace_id == story.letter.trace_id == story.first_trace


def test_i23_every_attempt_is_a_span_of_it_linked_to_the_one_before(story: Story) -> None:
    attempts = [
        span for span in story.of(story.first_trace, "run.attempt") if _attribute(span, "valkyr.node_id") == "pay"
    ]
    assert [_attribute(span, "valkyr.attempt") for span in attempts] == [1, 2, 3]
    assert [[link.span_id for link in span.links] for span in attempts] == [
        [],
        [attempts[0].span_id],
        [attempts[1].span_id],
    ]


def test_i23_what_a_module_calls_is_in_it_and_the_target_is_told(story: Story) -> None:
    calls = story.of(story.first_trace, "HTTP GET")
    assert len(calls) == ATTEMPTS
    told = [traceparent.split("-")[1] for traceparent in story.calls]
    assert told == [story.first_trace] * ATTEMPTS + [story.replay_trace]
    assert not any("not-to-be-seen" in str(span) for span in story.spans)


def test_i23_the_trip_of_the_breaker_is_in_the_trace_of_the_run_that_caused_it(story: Story) -> None:
    (trip,) = story.of(story.first_trace, "breaker.transition")
    assert story.services[trip.span_id] == "breaker"
    assert story.run.target == "http:127.0.0.1"


def test_i23_a_replay_has_a_trace_of_its_own_linked_to_the_old(story: Story) -> None:
    assert story.execution.state is ExecutionState.SUCCESS
    spans = story.of(story.replay_trace)
    assert {story.services[span.span_id] for span in spans} >= {"client", "dlq", "executor", "breaker"}
    (requeued,) = story.of(story.replay_trace, "run.requeued")
    assert {link.trace_id.hex() for link in requeued.links} == {story.first_trace}
    (attempt,) = story.of(story.replay_trace, "run.attempt")
    last = [s for s in story.of(story.first_trace, "run.attempt") if _attribute(s, "valkyr.node_id") == "pay"][-1]
    assert last.span_id in {link.span_id for link in attempt.links}
    assert {link.trace_id.hex() for link in attempt.links} == {story.first_trace}
    assert story.run.quarantines[0].resolution_trace_id == story.replay_trace


def test_i19_the_requeued_run_waited_for_the_breaker_and_its_probe_was_a_real_run(story: Story) -> None:
    assert [attempt.outcome for attempt in story.run.attempts] == ["TRANSIENT"] * ATTEMPTS + ["SUCCESS"]
    assert len(story.calls) == ATTEMPTS + 1
    assert story.run.parked_duration > timedelta(0)
    assert story.run.failures == 0
    (permit,) = story.of(story.replay_trace, "breaker.permit")
    (attempt,) = story.of(story.replay_trace, "run.attempt")
    assert story.services[permit.span_id] == "breaker"
    assert permit.start_time_unix_nano < attempt.start_time_unix_nano


def test_i23_the_attempt_of_a_runner_elsewhere_stands_below_the_start_of_its_execution(elsewhere: Elsewhere) -> None:
    (start,) = elsewhere.of("executor", "StartExecution")
    (attempt,) = elsewhere.of("valkyr-runner", "run.attempt")
    assert attempt.parent_span_id == start.span_id
    assert _attribute(attempt, "valkyr.run_id") == elsewhere.run.id
    assert _attribute(attempt, "valkyr.attempt") == 1


def test_i23_a_line_that_a_module_elsewhere_logs_names_its_run_and_its_span(elsewhere: Elsewhere) -> None:
    (attempt,) = elsewhere.of("valkyr-runner", "run.attempt")
    told = {key: elsewhere.line[key] for key in ("run_id", "execution_id", "node_id", "trace_id", "span_id")}
    assert told == {
        "run_id": elsewhere.run.id,
        "execution_id": elsewhere.run.execution_id,
        "node_id": "say",
        "trace_id": elsewhere.trace,
        "span_id": attempt.span_id.hex(),
    }


def _attribute(span: Span, key: str) -> str | int | None:
    for attribute in span.attributes:
        if attribute.key == key:
            value = attribute.value
            return value.int_value if value.WhichOneof("value") == "int_value" else value.string_value
    return None
