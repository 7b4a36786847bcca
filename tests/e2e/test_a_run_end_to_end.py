"""One run, end to end, through real processes: the tests are the headings of docs/a_run_end_to_end.md, in its order."""

from __future__ import annotations

import asyncio
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.local.stack import LocalStack
from tests import run_history
from tests.builders import a_graph
from tests.free_ports import a_port_base
from tests.otlp import OtlpReceiver
from tests.run_history import Event
from valkyr import telemetry
from valkyr.client import Client, Execution, ExecutionState, Run
from valkyr.flow.ids import run_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "a_run_end_to_end.md"
START = "valkyr.api.executor.v1.ExecutorService/StartExecution"
EXPECTED_SPANS = {
    "the caller's own work": 1,
    "StartExecution": 2,
    "GetGraph": 2,
    "run.attempt": 2,
}


@dataclass(frozen=True)
class Story:
    """What was seen of one execution of `a -> b`, from outside, in the tables, and by the collector of traces."""

    trace_id: str
    started: Execution
    again: Execution
    told: Sequence[Execution]
    settled: Execution
    runs: Sequence[Run]
    events: Sequence[Event]
    stored: asyncpg.Record
    pinned: Sequence[asyncpg.Record]
    spans: Sequence[Span]
    services: dict[bytes, str]

    def history_of(self, node: int) -> list[Event]:
        return [event for event in self.events if event.run_id == run_id(UUID(self.started.id), node)]

    def spans_called(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The pool has one slot, and another run holds it until all is started: so the dispatcher has something to do."""
    free = tmp_path_factory.mktemp("gate") / "free"
    with OtlpReceiver() as receiver:
        environment = {
            "VALKYR_TELEMETRY__OTLP_ENDPOINT": receiver.endpoint,
            "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "1",
            "VALKYR_EXECUTOR__RUNNER__MODULES": "tests.executor_modules",
        }
        observed = telemetry.configure("client", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        try:
            with LocalStack(tmp_path_factory.mktemp("home") / "home", a_port_base(), extra_env=environment) as stack:
                yield asyncio.run(_followed(stack, receiver, free))
        finally:
            observed.shutdown()
            telemetry.reset()


async def _followed(stack: LocalStack, receiver: OtlpReceiver, free: Path) -> Story:
    addresses = stack.addresses
    sql = await asyncpg.connect(stack.database_url)
    try:
        await run_history.install(sql)
        async with Client(graph_store=addresses["graph_store"], executor=addresses["executor"]) as client:
            busy = await client.graphs.save(a_graph("x", modules={"x": ("FileModule", {"file": str(free)})}))
            graph = a_graph("a -> b", modules={"b": ("TransformModule", {"output": "${trigger}"})})
            workflow_id = (await client.graphs.save(graph)).workflow.id
            await client.executions.start(busy.workflow.id)
            with telemetry.tracer().start_as_current_span("the caller's own work") as span:
                started = await client.executions.start(workflow_id, payload={"n": 1}, request_id="once")
            trace_id = f"{span.get_span_context().trace_id:032x}"
            again = await client.executions.start(workflow_id, payload={"n": 1}, request_id="once")
            await asyncio.to_thread(free.touch)
            told = [change async for change in client.executions.watch([started.id])]
            settled = await client.executions.wait(started.id)
            runs = [run async for run in client.executions.list_runs(started.id, include_outputs=True)]
        execution_id = UUID(started.id)
        return Story(
            trace_id,
            started,
            again,
            told,
            settled,
            runs,
            await run_history.read(sql, started.id),
            await sql.fetchrow("SELECT * FROM executor.workflow_execution WHERE id = $1", execution_id),
            await sql.fetch("SELECT * FROM executor.pinned_graph WHERE workflow_id = $1::text::uuid", workflow_id),
            await _spans_of(trace_id, receiver),
            receiver.services,
        )
    finally:
        await sql.close()


async def _spans_of(trace_id: str, receiver: OtlpReceiver) -> list[Span]:
    """When those of all three processes have arrived; each sends its own in its own time."""

    def ours(spans: Sequence[Span]) -> list[Span]:
        return [span for span in spans if span.trace_id.hex() == trace_id]

    def all_there(spans: Sequence[Span]) -> bool:
        names = Counter(span.name.rpartition("/")[2] for span in ours(spans))
        return names >= Counter(EXPECTED_SPANS)

    return ours(await receiver.wait_for_spans(all_there))


def test_the_headings_of_the_page_are_the_tests_of_this_file() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    tests = re.findall(r"^def test_(\w+)\(story", Path(__file__).read_text(), re.MULTILINE)
    assert [heading.lower().replace(" ", "_") for heading in headings] == tests


def test_the_client_starts(story: Story) -> None:
    assert story.again.id == story.started.id
    assert story.started.state is ExecutionState.PENDING
    (call,) = [span for span in story.spans_called(START) if span.kind == Span.SPAN_KIND_CLIENT]
    assert story.services[call.span_id] == "client"


def test_the_servicer_decodes(story: Story) -> None:
    (served,) = [span for span in story.spans_called(START) if span.kind == Span.SPAN_KIND_SERVER]
    (call,) = [span for span in story.spans_called(START) if span.kind == Span.SPAN_KIND_CLIENT]
    assert story.services[served.span_id] == "executor"
    assert served.parent_span_id == call.span_id
    assert story.stored["traceparent"] == f"00-{story.trace_id}-{served.span_id.hex()}-01"
    assert story.stored["trigger_payload"] == '{"n":1}'


def test_a_version_is_pinned(story: Story) -> None:
    assert story.started.version == 1
    assert [row["version"] for row in story.pinned] == [1]
    fetched = story.spans_called("valkyr.api.graph.v1.GraphStoreService/GetGraph")
    assert {(span.kind, story.services[span.span_id]) for span in fetched} == {
        (Span.SPAN_KIND_CLIENT, "executor"),
        (Span.SPAN_KIND_SERVER, "graph-store"),
    }


def test_execution_and_runs_are_written(story: Story) -> None:
    a, b = story.history_of(0)[0], story.history_of(1)[0]
    assert (a.was, a.state, a.unmet, a.epoch) == (None, "READY", 0, 0)
    assert (b.was, b.state, b.unmet, b.epoch) == (None, "PENDING", 1, 0)
    assert a.tx == b.tx
    assert [UUID(run.id) for run in story.runs] == [run_id(UUID(story.started.id), node) for node in (0, 1)]


def test_the_dispatcher_leases(story: Story) -> None:
    leased = story.history_of(0)[1]
    assert (leased.was, leased.state, leased.epoch, leased.attempt) == ("READY", "LEASED", 1, 1)


def test_the_worker_runs_the_module(story: Story) -> None:
    attempts = story.spans_called("run.attempt")
    seen = {
        attribute.value.string_value
        for span in attempts
        for attribute in span.attributes
        if attribute.key == "valkyr.node_id"
    }
    assert seen == {"a", "b"}
    assert {story.services[span.span_id] for span in attempts} == {"executor"}
    assert [run.outputs for run in story.runs] == [{}, {"n": 1}]


def test_the_report_is_applied(story: Story) -> None:
    ended = story.history_of(0)[2]
    assert (ended.was, ended.state, ended.epoch) == ("LEASED", "SUCCESS", 1)
    assert len(story.history_of(0)) == 3


def test_successors_become_ready(story: Story) -> None:
    ended, handed_on = story.history_of(0)[2], story.history_of(1)[1]
    assert (handed_on.was, handed_on.state, handed_on.unmet, handed_on.epoch) == ("PENDING", "LEASED", 0, 1)
    assert handed_on.tx == ended.tx


def test_the_execution_ends(story: Story) -> None:
    assert story.settled.state is ExecutionState.SUCCESS
    assert story.settled.outputs == {"b": {"n": 1}}
    assert story.told[-1].state is ExecutionState.SUCCESS
    assert (story.stored["open_runs"], story.stored["bad_runs"], story.stored["revision"]) == (0, 0, 3)
    assert [change.revision for change in story.told] == sorted({change.revision for change in story.told})


def test_one_trace(story: Story) -> None:
    assert story.settled.trace_id == story.stored["trace_id"] == story.trace_id
    ids = {span.span_id for span in story.spans}
    assert [span.name for span in story.spans if span.parent_span_id not in ids] == ["the caller's own work"]
    assert {story.services[span.span_id] for span in story.spans} == {"client", "executor", "graph-store"}
