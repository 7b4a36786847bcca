"""DeadLetterQueueService: gRPC in, gRPC out."""

from __future__ import annotations

from typing import Any

from services.chassis.example.query import read_query
from services.chassis.interceptors import caller, namespace_of
from services.chassis.paging import fitting
from services.dlq import wire
from services.dlq.examples import LETTERS
from services.dlq.letters import Letters
from services.dlq.model import Operator, operator_of
from services.dlq.quarantines import Quarantines
from services.dlq.resolutions import Resolutions
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.dlq.v1 import dlq_pb2_grpc
from valkyr.telemetry import current_traceparent


class DeadLetterQueueServicer(dlq_pb2_grpc.DeadLetterQueueServiceServicer):
    """Decodes, calls a use case, encodes; errors are the interceptor's."""

    def __init__(self, quarantines: Quarantines, letters: Letters, resolutions: Resolutions) -> None:
        self._quarantines = quarantines
        self._letters = letters
        self._resolutions = resolutions

    async def QuarantineRuns(self, request: pb.QuarantineRunsRequest, context: Any) -> pb.QuarantineRunsResponse:
        entries, refused = wire.read_entries(request)
        answer = await self._quarantines.store(entries, _operator(context))
        return pb.QuarantineRunsResponse(
            accepted_ids=answer.accepted,
            refusals=[
                pb.QuarantineRunsResponse.Refusal(id=entry_id, problem=problem)
                for entry_id, problem in [*refused, *answer.refused]
            ],
        )

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Any) -> pb.GetDeadLetterResponse:
        letter_id = wire.read_uuid(request.dead_letter_id, "deadLetterId")
        letter = await self._letters.get(namespace_of(request), letter_id)
        return pb.GetDeadLetterResponse(dead_letter=wire.write_letter(letter))

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        query, filters = read_query(request, LETTERS), wire.read_filters(request)
        found = await self._letters.find(namespace_of(request), query, filters)
        messages = fitting(map(wire.write_letter, found.letters[: query.size]))
        _, token = query.page(found.rows, kept=len(messages))
        return pb.ListDeadLettersResponse(dead_letters=messages, next_page_token=token)

    async def RequeueDeadLetter(
        self, request: pb.RequeueDeadLetterRequest, context: Any
    ) -> pb.RequeueDeadLetterResponse:
        letter = await self._resolutions.resolve(wire.read_requeue(request, _operator(context)))
        return pb.RequeueDeadLetterResponse(dead_letter=wire.write_letter(letter))

    async def FixDeadLetter(self, request: pb.FixDeadLetterRequest, context: Any) -> pb.FixDeadLetterResponse:
        letter = await self._resolutions.resolve(wire.read_fix(request, _operator(context)))
        return pb.FixDeadLetterResponse(dead_letter=wire.write_letter(letter))

    async def DiscardDeadLetter(
        self, request: pb.DiscardDeadLetterRequest, context: Any
    ) -> pb.DiscardDeadLetterResponse:
        letter = await self._resolutions.resolve(wire.read_discard(request, _operator(context)))
        return pb.DiscardDeadLetterResponse(dead_letter=wire.write_letter(letter))


def _operator(context: Any) -> Operator:
    return operator_of(caller(context).principal, current_traceparent())
