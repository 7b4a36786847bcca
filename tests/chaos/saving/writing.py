"""Saves that are repeated under their request id until they are answered; each answer is held against what was sent."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterator, Sequence

import grpc

from tests.chaos.rooms import AWAY
from tests.chaos.saving.graphs import Kind, graph_number, moved
from tests.chaos.saving.house import Replica
from tests.chaos.saving.ledger import Answer, Ledger, Sent
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.client.ids import new_request_id
from valkyr.errors import DeadlineExceeded, ValkyrError, VersionConflict
from valkyr.graph.document import content_hash
from valkyr.rpc.graphs import fill_from_graph, graph_from_proto
from valkyr.rpc.status import from_rpc_error

TIMEOUT = 10.0
PATIENCE = 90.0
LOST = (*AWAY, DeadlineExceeded)


class Writer:
    """Saves through the replicas that it is given, one after the other."""

    def __init__(self, ledger: Ledger, numbers: Iterator[int], replicas: Sequence[Replica]) -> None:
        self._ledger = ledger
        self._numbers = numbers
        self._replicas = replicas

    async def prepare(self, kind: Kind, workflow_id: str = "") -> tuple[Sent, pb.SaveGraphRequest]:
        """A save of the kind, from what is the current version now."""
        number = next(self._numbers)
        graph, workflow = graph_number(number), pb.Workflow(description=str(number), labels={"number": str(number)})
        if kind is Kind.CREATE:
            workflow.name = f"workflow {number}"
        elif kind is Kind.CREATE_WITH_ID:
            workflow.id = str(uuid.uuid4())
        else:
            current = await current_graph(workflow_id, self._replicas)
            workflow.id, workflow.version = workflow_id, current.workflow.version
            if kind is not Kind.CHANGE:
                graph = graph_from_proto(current)[1]
            if kind is Kind.LAYOUT:
                graph = moved(graph, number)
            if kind in (Kind.LAYOUT, Kind.UNCHANGED):
                workflow.CopyFrom(current.workflow)
        request = pb.SaveGraphRequest(workflow=workflow, request_id=new_request_id())
        request.message = request.request_id
        fill_from_graph(request, graph)
        sent = Sent(request.request_id, kind, graph, workflow.version, workflow.id)
        self._ledger.sent.append(sent)
        return sent, request

    async def first_try(self, replica: Replica, sent: Sent, request: pb.SaveGraphRequest) -> None:
        """One call, as FIRST; what is lost is lost."""
        try:
            answer = await _call(replica.first, request)
        except LOST as error:
            self._noted_conflict(sent, error)
        else:
            self._noted(sent, answer)

    async def repeat(self, sent: Sent, request: pb.SaveGraphRequest) -> None:
        """Until it is answered, and once more: the second answer is the first."""
        answer = await self._until_answered(sent, request)
        if answer is None:
            return
        self._noted(sent, answer)
        again = await self._until_answered(sent, request)
        if again is None or again != answer:
            self._ledger.problem(f"{sent.request_id} was answered otherwise when it was repeated: {again} for {answer}")

    async def save(self, kind: Kind, workflow_id: str = "") -> Sent:
        sent, request = await self.prepare(kind, workflow_id)
        await self.repeat(sent, request)
        return sent

    async def _until_answered(self, sent: Sent, request: pb.SaveGraphRequest) -> pb.SaveGraphResponse | None:
        """None for a conflict."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        for replica in itertools.cycle(self._replicas):
            try:
                return await _call(replica.again, request)
            except LOST as error:
                if self._noted_conflict(sent, error):
                    return None
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)
        raise AssertionError("there is a replica at least")

    def _noted_conflict(self, sent: Sent, error: ValkyrError) -> bool:
        if not isinstance(error, VersionConflict):
            return False
        floor = self._ledger.floors.get(sent.workflow_id, 0)
        if sent.answer is Answer.SAVED:
            self._ledger.problem(f"{sent.request_id} was saved, and refused when it was repeated: {error}")
        elif error.current_version <= sent.edited or error.current_version < floor:
            self._ledger.problem(f"{sent.request_id} was told of version {error.current_version}, not {floor} (I02)")
        else:
            sent.answer = Answer.REFUSED
        return True

    def _noted(self, sent: Sent, answer: pb.SaveGraphResponse) -> None:
        workflow = answer.workflow
        expected = sent.edited if sent.kind is Kind.UNCHANGED else sent.edited + 1
        wanted = content_hash(sent.graph)
        told = (workflow.version, workflow.content_hash, answer.unchanged, content_hash(graph_from_proto(answer)[1]))
        if told != (expected, wanted, sent.kind is Kind.UNCHANGED, wanted):
            self._ledger.problem(f"{sent.request_id} ({sent.kind}) was answered {told}, not version {expected}")
        sent.answer, sent.workflow_id = Answer.SAVED, workflow.id
        sent.version, sent.content_hash = workflow.version, workflow.content_hash
        self._ledger.told(workflow.id, workflow.version, workflow.content_hash)


async def current_graph(workflow_id: str, replicas: Sequence[Replica]) -> pb.Graph:
    """As soon as one of the replicas, asked in turns, answers."""
    request = pb.GetGraphRequest(workflow_id=workflow_id)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    for replica in itertools.cycle(replicas):
        try:
            answer: pb.GetGraphResponse = await replica.again.GetGraph(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if not isinstance(from_rpc_error(error), LOST) or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return answer.graph
    raise AssertionError("there is a replica at least")


async def _call(stub: GraphStoreServiceStub, request: pb.SaveGraphRequest) -> pb.SaveGraphResponse:
    try:
        answer: pb.SaveGraphResponse = await stub.SaveGraph(request, timeout=TIMEOUT)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    return answer
