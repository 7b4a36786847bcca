"""Outbound calls: the executor. Every call has a deadline; an answer that does not come is Unavailable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Value

from services.dlq.model import Intent, Resolution
from services.dlq.wire import moment_of, timestamp_of
from valkyr.api.executor.v1 import executor_pb2, executor_pb2_grpc
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
from valkyr.rpc.values import plain_to_struct

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
                        await self._stub.RequeueRun(_requeue(intent), metadata=metadata)
                    case Resolution.FIXED:
                        await self._stub.CompleteRunManually(_fix(intent), metadata=metadata)
                    case Resolution.DISCARDED:
                        await self._stub.DiscardRun(_discard(intent), metadata=metadata)
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


def _requeue(intent: Intent) -> executor_pb2.RequeueRunRequest:
    """With `force`: how often a run is requeued is counted here."""
    content = orjson.loads(intent.content)
    deadline = content.get("deadline")
    return executor_pb2.RequeueRunRequest(
        **_quarantine_of(intent),
        inputs=_sent(content, "inputs"),
        new_key=content["newKey"],
        deadline=timestamp_of(moment_of(deadline)),
        force=True,
    )


def _fix(intent: Intent) -> executor_pb2.CompleteRunManuallyRequest:
    outputs = _sent(orjson.loads(intent.content), "outputs")
    return executor_pb2.CompleteRunManuallyRequest(**_quarantine_of(intent), outputs=outputs)


def _discard(intent: Intent) -> executor_pb2.DiscardRunRequest:
    return executor_pb2.DiscardRunRequest(**_quarantine_of(intent))


def _quarantine_of(intent: Intent) -> dict[str, Any]:
    return {
        "namespace": intent.namespace,
        "execution_id": intent.execution_id,
        "run_id": intent.run_id,
        "quarantine_number": intent.quarantine_number,
        "request_id": intent.request_id,
        "reason": intent.reason,
    }


def _sent(content: dict[str, Any], name: str) -> Value | None:
    """As it was given: `plain_to_value` is for looking at, and flattens what is deep."""
    return plain_to_struct({name: content[name]}, name).fields[name] if name in content else None
