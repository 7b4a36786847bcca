"""Fifty writers on one version: one wins, and each of the others is told what the winner has made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import grpc

from tests.builders import a_graph
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import Difference, VersionConflict
from valkyr.graph.model import Graph
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph, graph_from_proto
from valkyr.rpc.status import from_rpc_error

WRITERS = 50
TIMEOUT = 60.0
PATIENT = {f"VALKYR_DATABASE__{name}_TIMEOUT": "PT20S" for name in ("ACQUIRE", "LOCK", "STATEMENT")}
"""For graph stores that so many save to at once: on a machine that stands still for a moment all are answered."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Writers, each a principal with a channel of its own to one of several graph stores, and one workflow."""

    writers: Sequence[GraphStoreServiceStub]
    workflow_id: str

    async def rounds(self, number: int) -> list[str]:
        """All save over the same version, at once, again and again; what does not hold of I02."""
        problems: list[str] = []
        for _ in range(number):
            problems += await self._round()
        return problems

    async def counted(self, times: int) -> list[str]:
        """Each writer counts in a node of its own, by reading, adding one and saving, until it has counted so far. What
        was counted and is not there was overwritten. (No count says what a round has said: it would change nothing.)"""
        before = (await self._current()).workflow.version
        counts = await asyncio.gather(*(self._count(number, times) for number in range(len(self.writers))))
        graph = await self._current()
        expected, problems = before + times * len(self.writers), [text for texts in counts for text in texts]
        if graph.workflow.version != expected:
            problems.append(f"version {graph.workflow.version} after {expected - 1} saves")
        wrong = {node.node_id: node.label for node in graph.nodes if node.label != str(times)}
        return [*problems, *([f"counted {times}, and {wrong} are there"] if wrong else [])]

    async def _round(self) -> list[str]:
        base = await self._current()
        version = base.workflow.version
        saves = [
            self._save(number, graph_from_proto(base)[1], version, f"round {version}") for number in range(WRITERS)
        ]
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, pb.SaveGraphResponse)]
        if len(winners) != 1:
            return [f"{len(winners)} writers won over version {version} (I02)"]
        told = [outcome for outcome in outcomes if isinstance(outcome, VersionConflict)]
        label = next(node.label for node in base.nodes if node.node_id == f"w{winners[0]}")
        made = [Difference("CHANGED", "NODE", f"w{winners[0]}", "label", f'"{label}"', f'"round {version}"')]
        problems = [f"{outcome!r} in place of a conflict" for outcome in outcomes if _is_neither(outcome)]
        if {error.current_version for error in told} != {version + 1} or len(told) != WRITERS - 1:
            problems.append(f"losers over {version} were told {sorted(error.current_version for error in told)} (I02)")
        problems += [f"a loser was told of {error.differences}" for error in told if list(error.differences) != made]
        if (await self._current()).workflow.version != version + 1:
            problems.append(f"version {version + 1} is not the current one (I02)")
        return problems

    async def _count(self, number: int, times: int) -> list[str]:
        problems: list[str] = []
        done = 0
        while done < times:
            current = await self._current(self.writers[number])
            version, graph = current.workflow.version, graph_from_proto(current)[1]
            try:
                answer = await self._save(number, graph, version, str(done + 1))
            except VersionConflict as error:
                if error.current_version <= version:
                    problems.append(f"refused over {version} for the sake of {error.current_version} (I02)")
                continue
            done += 1
            if answer.workflow.version != version + 1:
                problems.append(f"{version} was followed by {answer.workflow.version} (I02)")
        return problems

    async def _save(self, number: int, graph: Graph, version: int, label: str) -> pb.SaveGraphResponse:
        nodes = tuple(replace(node, label=label) if node.node_id == f"w{number}" else node for node in graph.nodes)
        request = pb.SaveGraphRequest(workflow=pb.Workflow(id=self.workflow_id), version=version)
        fill_from_graph(request, replace(graph, nodes=nodes))
        try:
            answer: pb.SaveGraphResponse = await self.writers[number].SaveGraph(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return answer

    async def _current(self, reader: GraphStoreServiceStub | None = None) -> pb.Graph:
        request = pb.GetGraphRequest(workflow_id=self.workflow_id)
        answer: pb.GetGraphResponse = await (reader or self.writers[0]).GetGraph(request, timeout=TIMEOUT)
        return answer.graph


@asynccontextmanager
async def open_contest(addresses: Sequence[str], *, writers: int = WRITERS) -> AsyncIterator[Contest]:
    """On a workflow of its own, with a node for each writer."""
    async with AsyncExitStack() as stack:
        stubs = []
        for number in range(writers):
            channel = open_channel(addresses[number % len(addresses)], principal=f"writer {number}")
            stack.push_async_callback(channel.close)
            stubs.append(GraphStoreServiceStub(channel))
        request = pb.SaveGraphRequest()
        fill_from_graph(request, a_graph(", ".join(f"w{number}" for number in range(writers))))
        saved = await stubs[0].SaveGraph(request, timeout=TIMEOUT)
        yield Contest(stubs, saved.workflow.id)


def _is_neither(outcome: object) -> bool:
    return not isinstance(outcome, pb.SaveGraphResponse | VersionConflict)
