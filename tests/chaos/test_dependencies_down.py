"""I24: with what a service depends on down, or silent, each RPC says so in time, and says when to come again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from services.breaker.app import open_app as open_breaker
from services.breaker.settings import BreakerSettings
from services.chassis.settings import DatabaseSettings
from services.dlq.app import open_app as open_dlq
from services.dlq.settings import DlqSettings
from services.executor.app import open_app as open_executor
from services.graph_store.app import open_app as open_graph_store
from services.graph_store.settings import GraphStoreSettings
from tests.builders import a_graph
from tests.chaos.proxy import Proxy, Way
from tests.dlq_lab import a_quarantine, a_run, entries
from tests.executor_stack import eventually, executor_settings
from valkyr.api.breaker.v1 import breaker_pb2, breaker_pb2_grpc
from valkyr.api.dlq.v1 import dlq_pb2, dlq_pb2_grpc
from valkyr.api.executor.v1 import executor_pb2, executor_pb2_grpc
from valkyr.api.graph.v1 import graph_pb2, graph_pb2_grpc
from valkyr.client import Client
from valkyr.client.client import DEFAULT_TIMEOUT
from valkyr.client.failures import DeadLetter
from valkyr.errors import Overloaded, Unavailable, ValkyrError
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import graph_to_proto
from valkyr.rpc.status import rpc_errors

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

SERVICES: Mapping[str, tuple[Any, Any, Any]] = {
    "graph_store": (graph_pb2, graph_pb2_grpc.GraphStoreServiceStub, "GraphStoreService"),
    "executor": (executor_pb2, executor_pb2_grpc.ExecutorServiceStub, "ExecutorService"),
    "breaker": (breaker_pb2, breaker_pb2_grpc.BreakerServiceStub, "BreakerService"),
    "dlq": (dlq_pb2, dlq_pb2_grpc.DeadLetterQueueServiceStub, "DeadLetterQueueService"),
}
CLIENTS_DEADLINE = DEFAULT_TIMEOUT.total_seconds()
AT_ONCE = 2
FAILS = a_graph("a", modules={"a": ("FailModule", {"type": "PERMANENT"})})
FAILURE = breaker_pb2.CallOutcome.FAILURE
PURE = {"ValidateGraph"}
"""What is answered without asking anybody."""


@dataclass
class House:
    """All four in this process, their database and the calls among them behind proxies."""

    database: Proxy
    graph_store: Proxy
    executor: Proxy
    stubs: dict[str, Any]
    client: Client
    workflow_id: str = ""
    execution_id: str = ""
    run_id: str = ""
    letter_id: str = ""

    async def call(self, service: str, rpc: str, request: Any) -> Any:
        """The answer, of a stream the first; a client's deadline, and no repeats."""
        method = getattr(self.stubs[service], rpc)
        with rpc_errors():
            if rpc.startswith("Watch"):
                stream = method(request, timeout=CLIENTS_DEADLINE)
                try:
                    return await anext(aiter(stream))
                finally:
                    stream.cancel()
            return await method(request, timeout=CLIENTS_DEADLINE)

    async def another_letter(self) -> DeadLetter:
        """Of an execution that has failed."""
        execution_id = (await self.client.executions.start(self.workflow_id)).id
        letters = self.client.dead_letters.list(execution_id=execution_id)
        found: Sequence[DeadLetter] = await eventually(letters.all, "its letter arrives")
        return found[0]

    def calls(self) -> dict[str, dict[str, Any]]:
        """A good request for each RPC that needs the database."""
        return {
            "graph_store": self._graph_calls(),
            "executor": self._executor_calls(),
            "breaker": {
                "AcquirePermits": breaker_pb2.AcquirePermitsRequest(
                    requests=[breaker_pb2.PermitRequest(target="t", run_id=self.run_id, epoch=1)]
                ),
                "ReportOutcomes": breaker_pb2.ReportOutcomesRequest(
                    outcomes=[breaker_pb2.CallOutcome(target="t", result=FAILURE, report_id="a:1")]
                ),
                "GetBreaker": breaker_pb2.GetBreakerRequest(target="t"),
                "ListBreakers": breaker_pb2.ListBreakersRequest(),
                "WatchBreakers": breaker_pb2.WatchBreakersRequest(),
            },
            "dlq": {
                "QuarantineRuns": entries(a_quarantine(a_run())),
                "GetDeadLetter": dlq_pb2.GetDeadLetterRequest(dead_letter_id=self.letter_id),
                "ListDeadLetters": dlq_pb2.ListDeadLettersRequest(),
                **self.resolutions(),
            },
        }

    def resolutions(self) -> dict[str, Any]:
        """The RPCs of the DLQ that need the executor."""
        letter: dict[str, Any] = {"dead_letter_id": self.letter_id, "reason": "a test"}
        return {
            "RequeueDeadLetter": dlq_pb2.RequeueDeadLetterRequest(**letter),
            "FixDeadLetter": dlq_pb2.FixDeadLetterRequest(**letter, outputs=Value(bool_value=True)),
            "DiscardDeadLetter": dlq_pb2.DiscardDeadLetterRequest(**letter),
        }

    def _graph_calls(self) -> dict[str, Any]:
        pb = graph_pb2
        one, graph = {"workflow_id": self.workflow_id}, graph_to_proto(a_graph("a -> b"))
        return {
            "SaveGraph": pb.SaveGraphRequest(**_parts_of(a_graph("a -> b"))),
            "GetGraph": pb.GetGraphRequest(**one),
            "ResolveVersions": pb.ResolveVersionsRequest(workflow_ids=[self.workflow_id]),
            "ListVersions": pb.ListVersionsRequest(**one),
            "FindWorkflows": pb.FindWorkflowsRequest(),
            "DiffVersions": pb.DiffVersionsRequest(**one),
            "RestoreVersion": pb.RestoreVersionRequest(**one, version=1, current_version=1),
            "MergeGraph": pb.MergeGraphRequest(**one, base_version=1, mine=graph),
            "SaveDraft": pb.SaveDraftRequest(**one, graph=graph),
            "GetDraft": pb.GetDraftRequest(**one),
            "DiscardDraft": pb.DiscardDraftRequest(**one),
            "PublishDraft": pb.PublishDraftRequest(**one),
            "ArchiveWorkflow": pb.ArchiveWorkflowRequest(**one),
            "UnarchiveWorkflow": pb.UnarchiveWorkflowRequest(**one),
            "ListAuditEvents": pb.ListAuditEventsRequest(),
            "WatchWorkflows": pb.WatchWorkflowsRequest(),
            "RegisterModules": pb.RegisterModulesRequest(modules=[pb.ModuleSpec(class_name="OneModule")]),
            "ListModules": pb.ListModulesRequest(),
        }

    def _executor_calls(self) -> dict[str, Any]:
        pb = executor_pb2
        one: dict[str, Any] = {"execution_id": self.execution_id}
        run: dict[str, Any] = {**one, "run_id": self.run_id, "quarantine_number": 1}
        start = pb.StartExecutionRequest(workflow_id=self.workflow_id, version=1)
        return {
            "StartExecution": start,
            "StartExecutions": pb.StartExecutionsRequest(executions=[start]),
            "GetExecution": pb.GetExecutionRequest(**one),
            "WaitExecution": pb.WaitExecutionRequest(**one, timeout=Duration(seconds=1)),
            "WatchExecutions": pb.WatchExecutionsRequest(execution_ids=[self.execution_id]),
            "ListExecutions": pb.ListExecutionsRequest(),
            "ListRuns": pb.ListRunsRequest(**one),
            "GetRun": pb.GetRunRequest(**one, run_id=self.run_id),
            "WatchExecution": pb.WatchExecutionRequest(**one),
            "PauseExecution": pb.PauseExecutionRequest(**one),
            "ResumeExecution": pb.ResumeExecutionRequest(**one),
            "CancelExecution": pb.CancelExecutionRequest(**one),
            "RequeueRun": pb.RequeueRunRequest(**run),
            "CompleteRunManually": pb.CompleteRunManuallyRequest(**run, outputs=Value(bool_value=True)),
            "DiscardRun": pb.DiscardRunRequest(**run, reason="a test"),
        }


def _parts_of(graph: Any) -> dict[str, Any]:
    message = graph_to_proto(graph)
    return {"nodes": message.nodes, "edges": message.edges, "modules": message.modules}


@pytest.fixture
async def house(migrated_database_url: Callable[..., str], tmp_path: Path) -> AsyncIterator[House]:
    """With one execution that has failed, and its letter."""
    async with _built(migrated_database_url("graph_store", "executor", "breaker", "dlq"), tmp_path) as house:
        house.workflow_id = (await house.client.graphs.save(FAILS)).workflow.id
        letter = await house.another_letter()
        house.execution_id, house.letter_id, house.run_id = letter.execution_id, letter.id, letter.run_id
        yield house


@asynccontextmanager
async def _built(url: str, folder: Path) -> AsyncIterator[House]:
    sockets = folder / "pg"
    sockets.mkdir()
    name = ".s.PGSQL.5432"
    real = Path(parse_qs(urlsplit(url).query)["host"][0])
    waits: dict[str, Any] = {"acquire_timeout": timedelta(seconds=1), "statement_timeout": timedelta(seconds=2)}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Proxy(real / name, sockets / name))
        proxied = DatabaseSettings(url=url.replace(str(real), str(sockets)), **waits)
        graphs = await stack.enter_async_context(open_graph_store(GraphStoreSettings(database=proxied)))
        to_graphs = await stack.enter_async_context(Proxy(graphs.server.address))
        breaker = await stack.enter_async_context(open_breaker(BreakerSettings(database=proxied)))
        to_executor = Proxy("")
        dlq = await stack.enter_async_context(open_dlq(DlqSettings(database=proxied, executor=to_executor.address)))
        neighbours = {"breaker": breaker.server.address, "dlq": dlq.server.address}
        settings = executor_settings(proxied.url, folder, to_graphs.address, database=waits, **neighbours)
        executor = await stack.enter_async_context(open_executor(settings))
        to_executor.target = executor.server.address
        await stack.enter_async_context(to_executor)
        servers: dict[str, Any] = {"graph_store": graphs, "executor": executor, "breaker": breaker, "dlq": dlq}
        addresses = {name: app.server.address for name, app in servers.items()}
        channels = {name: open_channel(at, options=[("grpc.enable_retries", 0)]) for name, at in addresses.items()}
        for channel in channels.values():
            stack.push_async_callback(channel.close)
        stubs = {name: SERVICES[name][1](channel) for name, channel in channels.items()}
        client = await stack.enter_async_context(Client(**addresses))
        yield House(database, to_graphs, to_executor, stubs, client)


async def refusal(house: House, service: str, rpc: str, request: Any) -> str | None:
    """What is wrong with the answer, None if it is as it should be. Connections that hang are all in use, in time:
    of a database that is silent Overloaded is said, too."""
    began = time.monotonic()
    try:
        await house.call(service, rpc, request)
    except (Unavailable, Overloaded) as error:
        took = time.monotonic() - began
        if error.details.retry_after is None:
            return f"{rpc}: no RetryInfo: {error!r}"
        return None if took < CLIENTS_DEADLINE - 0.5 else f"{rpc}: it took {took:.1f} s: {error!r}"
    except ValkyrError as error:
        return f"{rpc}: {type(error).__name__}: {error}"
    return f"{rpc}: it was answered"


async def refusals(house: House, service: str, calls: Mapping[str, Any]) -> list[str]:
    """Of all calls, a few at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(rpc: str, request: Any) -> str | None:
        async with turn:
            return await refusal(house, service, rpc, request)

    found = await asyncio.gather(*(one(rpc, request) for rpc, request in calls.items()))
    return [problem for problem in found if problem is not None]


def test_i24_every_rpc_is_in_the_table() -> None:
    house: Any = House(*[None] * 5)  # type: ignore[arg-type]
    for service, (pb, _, name) in SERVICES.items():
        methods = {method.name for method in pb.DESCRIPTOR.services_by_name[name].methods}
        assert methods - PURE == house.calls()[service].keys()


@pytest.mark.parametrize("way", [Way.DOWN, Way.SILENT], ids=["down", "silent"])
async def test_i24_without_its_database_every_rpc_is_unavailable_in_time(house: House, way: Way) -> None:
    await house.database.set(way)
    problems = await asyncio.gather(*(refusals(house, service, calls) for service, calls in house.calls().items()))
    assert [problem for found in problems for problem in found] == []
    await house.database.set(Way.PASS)

    async def answers_again() -> bool:
        try:
            return (await house.client.executions.get(house.execution_id)).settled
        except ValkyrError:
            return False

    await eventually(answers_again, "it answers again", 60)
    workflow_id = (await house.client.graphs.save(a_graph("a -> b"))).workflow.id
    started = await house.client.executions.start(workflow_id)
    assert (await house.client.executions.wait(started.id, timeout=timedelta(seconds=60))).state == "SUCCESS"


@pytest.mark.parametrize("way", [Way.DOWN, Way.SILENT], ids=["down", "silent"])
async def test_i24_without_the_graph_store_only_starts_of_the_latest_version_are_unavailable(
    house: House, way: Way
) -> None:
    await house.graph_store.set(way)
    latest = executor_pb2.StartExecutionRequest(workflow_id=house.workflow_id)
    calls = {"StartExecution": latest, "StartExecutions": executor_pb2.StartExecutionsRequest(executions=[latest])}
    assert await refusals(house, "executor", calls) == []
    pinned = await house.client.executions.start(house.workflow_id, version=1)
    assert (await house.client.executions.wait(pinned.id, timeout=timedelta(seconds=60))).state == "FAILED"


@pytest.mark.parametrize("way", [Way.DOWN, Way.SILENT], ids=["down", "silent"])
async def test_i24_without_the_executor_resolutions_are_unavailable_and_carried_out_later(
    house: House, way: Way
) -> None:
    await house.client.dead_letters.discard((await house.another_letter()).id, reason="it connects the two")
    await house.executor.set(way)
    (name, request), *_ = house.resolutions().items()
    problem = await refusal(house, "dlq", name, request)
    assert problem is None
    letter = await house.client.dead_letters.get(house.letter_id)
    assert (letter.pending, letter.requested_resolution) == (True, "REQUEUED")
    await house.executor.set(Way.PASS)

    async def resolved() -> bool:
        return (await house.client.dead_letters.get(house.letter_id)).resolution == "REQUEUED"

    await eventually(resolved, "the intent is carried out", 60)
