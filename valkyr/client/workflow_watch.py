"""WatchWorkflows as one endless answer: goes on behind the last token where a stream broke off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.graph_results import WorkflowChange
from valkyr.client.watch import STREAM_LIFETIME, Trouble
from valkyr.client.wire_graphs import change_of
from valkyr.errors import DeadlineExceeded, Overloaded, Unavailable, ValkyrError


async def changes_of_workflows(
    calls: Calls,
    *,
    namespace: str,
    workflow_ids: Sequence[str],
    resume_token: str,
    on_token: Callable[[str], None] | None,
    patience: timedelta,
) -> AsyncGenerator[WorkflowChange, None]:
    """Each change as it comes; it never ends by itself. Unavailable after `patience` without an answer."""
    trouble = Trouble(patience.total_seconds())
    request = graph_pb2.WatchWorkflowsRequest(namespace=namespace, workflow_ids=workflow_ids, resume_token=resume_token)
    while True:
        opened = time.monotonic()
        try:
            stream = calls.stream("WatchWorkflows", request, timeout=STREAM_LIFETIME)
            async with aclosing(stream) as responses:
                async for response in responses:
                    trouble.is_over()
                    for change in response.changes:
                        yield change_of(change)
                    request.resume_token = response.resume_token or request.resume_token
                    if on_token is not None and response.resume_token:
                        on_token(response.resume_token)
            broken: ValkyrError = Unavailable("the graph store ended the stream")
        except (Unavailable, DeadlineExceeded, Overloaded) as error:
            broken = error
        await asyncio.sleep(trouble.delay_after(broken, lived=time.monotonic() - opened))
