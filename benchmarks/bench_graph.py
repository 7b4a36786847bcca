"""SaveGraph, GetGraph and ValidateGraph by size of graph, against a real PostgreSQL over a real channel.

    python -m benchmarks.bench_graph [nodes ...]

Starts a PostgreSQL and a graph store of its own, with durable commits on. Prints medians in milliseconds: of the
validator alone; at the client of a first save, a save that changes a tenth of the nodes, a read, and a validation.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from services.chassis.settings import DatabaseSettings
from services.graph_store.app import open_app
from services.graph_store.settings import GraphStoreSettings
from services.local.home import Home
from services.local.postgres import Cluster
from valkyr import telemetry
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1 import graph_pb2_grpc
from valkyr.graph.model import Edge, Graph, Module, Node, Position
from valkyr.graph.validate import validate
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph

SIZES = (10, 100, 1_000, 10_000)
ROUNDS = {10: 30, 100: 20, 1_000: 9, 10_000: 3}


def graph_of(size: int) -> Graph:
    """A graph of `size` nodes, each with a config, and about twice as many edges."""
    nodes = tuple(Node(f"node-{i}", f"Step {i}", Position(i * 10.5, i % 7)) for i in range(size))
    pairs = [(i, i + step) for i in range(size) for step in (1, 2) if i + step < size]
    edges = tuple(Edge(f"edge-{k}", f"node-{a}", f"node-{b}") for k, (a, b) in enumerate(pairs))
    config = '{"url":"https://example.com/items/%d","method":"POST","headers":{"accept":"application/json"}}'
    modules = tuple(Module(f"node-{i}", "HttpRequestModule", module_data=config % i) for i in range(size))
    return Graph(nodes, edges, modules)


async def measure(stub: graph_pb2_grpc.GraphStoreServiceStub, size: int) -> Sequence[float]:
    """Medians in milliseconds, in the order of the table's columns."""
    rounds = ROUNDS.get(size, 5)
    graph = graph_of(size)
    request = pb.SaveGraphRequest()
    fill_from_graph(request, graph)
    checked = pb.ValidateGraphRequest()
    fill_from_graph(checked, graph)
    saved = [await stub.SaveGraph(request, timeout=60)]

    async def save_new() -> None:
        saved.append(await stub.SaveGraph(request, timeout=60))

    async def save_changed() -> None:
        workflow = saved[-1].workflow
        changed = pb.SaveGraphRequest(workflow=workflow)
        labels = f"at version {workflow.version}"
        nodes = tuple(replace(node, label=labels) if i % 10 == 0 else node for i, node in enumerate(graph.nodes))
        fill_from_graph(changed, replace(graph, nodes=nodes))
        saved.append(await stub.SaveGraph(changed, timeout=60))

    async def read() -> None:
        await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved[0].workflow.id), timeout=60)

    async def check() -> None:
        await stub.ValidateGraph(checked, timeout=60)

    return [await _median(work, rounds) for work in (save_new, save_changed, read, check)]


def measure_validator(size: int) -> Sequence[float]:
    """Medians in milliseconds of the validator alone, with and without modules."""
    graph = graph_of(size)
    bare = replace(graph, modules=())
    return [_timed(lambda: validate(bare)), _timed(lambda: validate(graph))]


def _timed(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1_000)
    return statistics.median(times)


async def _median(work: Callable[[], Awaitable[None]], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        await work()
        times.append((time.perf_counter() - start) * 1_000)
    return statistics.median(times)


def print_row(*cells: object) -> None:
    print("  ".join(f"{cell!s:>12}" for cell in cells), flush=True)


async def main(sizes: Sequence[int], database_url: str) -> None:
    settings = GraphStoreSettings(database=DatabaseSettings(url=database_url))
    async with open_app(settings) as app:
        channel = open_channel(app.server.address)
        stub = graph_pb2_grpc.GraphStoreServiceStub(channel)
        print_row("nodes", "save", "save 1/10", "get", "validate rpc")
        for size in sizes:
            print_row(size, *(f"{value:.1f}" for value in await measure(stub, size)))
        await channel.close()


if __name__ == "__main__":
    telemetry.configure("bench", log_level="ERROR")
    wanted = [int(size) for size in sys.argv[1:]] or SIZES
    print_row("nodes", "no configs", "with configs", "(validator)")
    for wanted_size in wanted:
        print_row(wanted_size, *(f"{value:.1f}" for value in measure_validator(wanted_size)))
    with tempfile.TemporaryDirectory(prefix="valkyr-bench-") as folder:
        cluster = Cluster(Home(Path(folder) / "home"))
        cluster.start()
        try:
            asyncio.run(main(wanted, cluster.url))
        finally:
            cluster.stop()
