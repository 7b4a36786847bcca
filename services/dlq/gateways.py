"""Outbound calls: the executor. Every call has a deadline; an answer that does not come is Unavailable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from services.dlq import wire
from services.dlq.model import Intent, Resolution
from valkyr.api.executor.v1 import executor_pb2_grpc
from valkyr.errors import (
    AlreadyExists,
    Forbidden,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnknownMethod,
    ValkyrError,
    WrongState,
)
from valkyr.rpc.auth import principal_metadata
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import rpc_errors

REFUSALS = (InvalidRequest, NotFound, WrongState, AlreadyExists, Forbidden, Unauthenticated, UnknownMethod)
"""Answers after which it is certain that the executor did nothing. After any other it may have."""


class ExecutorGateway:
    """What the dead letter queue asks of the executor: the three ways out of QUARANTINED."""

    def __init__(self, address: str, *, timeout: timedelta) -> None:
        self._channel: Any = open_channel(address, deadline=timeout)
        self._stub = executor_pb2_grpc.ExecutorServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def resolve(self, intent: Intent) -> None:
        """Returns when the executor has done it, now or before: it answers a request id once.

        One of REFUSALS if it will not, with the executor's reason; Unavailable if nobody knows.
        """
        metadata = principal_metadata(intent.operator.principal)
        try:
            with rpc_errors():
                match intent.resolution:
                    case Resolution.REQUEUED:
                        await self._stub.RequeueRun(wire.write_requeue(intent), metadata=metadata)
                    case Resolution.FIXED:
                        await self._stub.CompleteRunManually(wire.write_fix(intent), metadata=metadata)
                    case Resolution.DISCARDED:
                        await self._stub.DiscardRun(wire.write_discard(intent), metadata=metadata)
                    case Resolution.PENDING:
                        raise ValueError("PENDING is no way out")
        except REFUSALS:
            raise
        except ValkyrError as error:
            raise Unavailable(
                f"the executor does not answer: {error.message}",
                hint="nothing is lost: the resolution is kept and carried out once the executor answers; repeat the"
                " call with the same request_id for its outcome, or read the dead letter",
                metadata={"requestedResolution": str(intent.resolution), "deadLetterId": intent.letter_id},
                retry_after=error.details.retry_after or timedelta(seconds=1),
            ) from error
