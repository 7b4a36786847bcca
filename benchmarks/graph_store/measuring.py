"""Saves, reads and validations of graphs of one size; every answer is held against what it must be."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import Measured
from benchmarks.graph_store.figures import SIZES, Repeats
from benchmarks.graph_store.graphs import changed, graph_of, with_expressions
from benchmarks.session import Measure
from benchmarks.stack import Stack, open_stack
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.graph.document import content_hash
from valkyr.graph.model import Graph, Module
from valkyr.graph.validate import validate
from valkyr.modules import catalogue
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph

TIMEOUT = 60.0
Answer = TypeVar("Answer")


def measure_of(workload: str) -> Measure:
    """The function that measures the workload of SIZES."""
    return partial(_measure, workload)


async def _measure(workload: str, database: Database, repeats: Repeats) -> Measured:
    nodes = SIZES[workload]
    graph = graph_of(nodes)
    async with open_stack(database.url) as stack:
        channel = open_channel(stack.addresses["graph_store"], principal="bench")
        try:
            calls = await _Calls(stack, GraphStoreServiceStub(channel), graph, repeats.of(nodes)).measure()
        finally:
            await channel.close()
    alone = _validations(graph, repeats.in_process)
    times = {name: [seconds * 1_000 for seconds in each] for name, each in (calls.times | alone).items()}
    return Measured(
        {f"{workload}.{name}": statistics.median(each) for name, each in times.items()},
        cost=calls.cost,
        others=max(calls.others),
        detail={"times_ms": times},
    )


class _Calls:
    """What is asked of a graph store that runs, one call at a time. `times` are seconds, by figure."""

    def __init__(self, stack: Stack, stub: GraphStoreServiceStub, graph: Graph, repeats: int) -> None:
        self._stack = stack
        self._stub = stub
        self._graph = graph
        self._repeats = repeats
        self._workflow = pb.Workflow()
        self.times: dict[str, list[float]] = {}
        self.cost: dict[str, dict[str, float]] = {}
        self.others: list[float] = []

    async def measure(self) -> _Calls:
        """All of them, in the order in which they build on each other."""
        await self._timed("save", self._save_new)
        await self._timed("changed", partial(self._save_changed, every=10))
        await self._timed("one", partial(self._save_changed, every=len(self._graph.nodes)))
        await self._timed("unchanged", self._save_unchanged)
        await self._timed("get", self._get)
        await self._timed("validate_rpc", self._validate)
        await self._timed("sdk", self._save_by_sdk)
        return self

    async def _timed(self, name: str, work: Callable[[int], Awaitable[float]]) -> None:
        """`work` says itself how long it took, without the making of its request; once before to warm up."""
        await work(-1)
        meter = self._stack.meter()
        began = time.process_time()
        self.times[name] = [await work(number) for number in range(self._repeats)]
        client = time.process_time() - began
        used = meter.read()
        # This process is no part of the meter, and belongs to what is measured.
        self.others.append(max(0.0, used.others - client / used.seconds / 2))
        cost, client_cost = used.per_run(self._repeats), client / self._repeats * 1e6
        phase = f"{name} {len(self._graph.nodes):,}"
        self.cost[phase] = cost | {"client": client_cost, "all": cost["all"] + client_cost}

    async def _save_new(self, _number: int) -> float:
        return await self._save(self._graph, pb.Workflow(), version=1)

    async def _save_changed(self, number: int, *, every: int) -> float:
        graph = changed(self._graph, number, every=every)
        return await self._save(graph, self._workflow, version=self._workflow.version + 1)

    async def _save_unchanged(self, _number: int) -> float:
        current = await self._stub.GetGraph(pb.GetGraphRequest(workflow_id=self._workflow.id), timeout=TIMEOUT)
        request = pb.SaveGraphRequest(workflow=current.graph.workflow, nodes=current.graph.nodes)
        request.edges.extend(current.graph.edges)
        request.modules.extend(current.graph.modules)
        answer, seconds = await _clocked(self._stub.SaveGraph(request, timeout=TIMEOUT))
        _check(answer.unchanged and answer.workflow.version == self._workflow.version, "it was saved once more")
        return seconds

    async def _save(self, graph: Graph, workflow: pb.Workflow, *, version: int) -> float:
        request = pb.SaveGraphRequest(workflow=workflow)
        fill_from_graph(request, graph)
        answer, seconds = await _clocked(self._stub.SaveGraph(request, timeout=TIMEOUT))
        told = (answer.workflow.version, answer.workflow.content_hash, len(answer.node_id_to_task_id))
        _check(told == (version, content_hash(graph), len(graph.nodes)), f"a save was answered {told}")
        self._workflow = answer.workflow
        return seconds

    async def _get(self, _number: int) -> float:
        answer, seconds = await _clocked(
            self._stub.GetGraph(pb.GetGraphRequest(workflow_id=self._workflow.id), timeout=TIMEOUT)
        )
        told = answer.graph
        _check(
            told.workflow == self._workflow and len(told.nodes) == len(self._graph.nodes), "another graph was answered"
        )
        return seconds

    async def _validate(self, _number: int) -> float:
        request = pb.ValidateGraphRequest()
        fill_from_graph(request, self._graph)
        answer, seconds = await _clocked(self._stub.ValidateGraph(request, timeout=TIMEOUT))
        _check(answer.valid, f"it is said to be invalid: {list(answer.errors)[:1]}")
        return seconds

    async def _save_by_sdk(self, number: int) -> float:
        async with self._stack.client() as client:
            saved, seconds = await _clocked(client.graphs.save(changed(self._graph, number, every=10)))
        _check(saved.workflow.version == 1, "it was not saved anew")
        return seconds


def _validations(graph: Graph, times: int) -> dict[str, list[float]]:
    """Seconds of the validator alone, as clients run it, with the catalogue as the service does."""
    known = catalogue()
    bare = replace(graph, modules=tuple(Module(node.node_id, "NoopModule") for node in graph.nodes))
    ways: Sequence[tuple[str, Callable[[], object]]] = (
        ("validate", lambda: validate(bare)),
        ("configs", lambda: validate(graph, catalogue=known)),
        ("expressions", lambda: validate(expressions, catalogue=known)),
    )
    expressions = with_expressions(graph)
    _check(not any(validate(each, catalogue=known) for each in (bare, graph, expressions)), "there are findings")
    return {name: [_seconds(work) for _ in range(times)] for name, work in ways}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def _clocked(call: Awaitable[Answer]) -> tuple[Answer, float]:
    began = time.perf_counter()
    answer = await call
    return answer, time.perf_counter() - began


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BenchError(otherwise)
