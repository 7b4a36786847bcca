"""WatchExecution as one answer to the end: reconnects where it broke off, drops what was seen already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from valkyr.api.executor.v1 import executor_pb2
from valkyr.client.calls import Calls
from valkyr.client.results import Execution
from valkyr.client.watch import STREAM_LIFETIME, Trouble
from valkyr.client.wire import execution_of
from valkyr.errors import DeadlineExceeded, Overloaded, Unavailable, ValkyrError
from valkyr.flow.states import ExecutionState


async def changes_of_one(
    calls: Calls, *, namespace: str, execution_id: str, patience: timedelta
) -> AsyncGenerator[Execution, None]:
    """Each state that is new, until the execution is settled."""
    trouble = Trouble(patience.total_seconds())
    request = executor_pb2.WatchExecutionRequest(namespace=namespace, execution_id=execution_id)
    seen: Execution | None = None
    while True:
        opened = time.monotonic()
        try:
            stream = calls.stream("WatchExecution", request, timeout=STREAM_LIFETIME)
            async with aclosing(stream) as responses:
                async for response in responses:
                    trouble.is_over()
                    execution = execution_of(response.execution)
                    if _is_news(execution, seen):
                        seen = execution
                        yield execution
            broken: ValkyrError = Unavailable("the executor ended the stream")
        except (Unavailable, DeadlineExceeded, Overloaded) as error:
            broken = error
        if seen is not None and seen.settled:
            return
        if seen is not None and seen.state is not ExecutionState.PENDING:
            # That it has begun to run raises no revision: a PENDING one is asked for anew.
            request.after_revision = seen.revision
        await asyncio.sleep(trouble.delay_after(broken, lived=time.monotonic() - opened))


def _is_news(execution: Execution, seen: Execution | None) -> bool:
    if seen is None or execution.revision > seen.revision:
        return True
    return execution.revision == seen.revision and execution.state is not seen.state
