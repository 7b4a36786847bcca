"""ExecutorService: gRPC in, gRPC out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from services.chassis.example.query import read_query
from services.chassis.interceptors import caller, namespace_of, remaining
from services.executor import wire
from services.executor.examples import EXECUTIONS, RUNS
from services.executor.executions import Executions
from services.executor.feed import Feed
from services.executor.interventions import Interventions
from services.executor.model import StartRequest
from services.executor.settings import ExecutorSettings
from services.executor.starts import Starts
from services.executor.store.lists import ExecutionScope, RunScope
from services.executor.tracing import traceparent_for_start
from services.executor.watch import Watch
from services.executor.watch_one import changes_of_one
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1 import executor_pb2_grpc
from valkyr.errors import ExecutionsDisabled, InvalidRequest, LimitExceeded

ANSWER_IN_TIME = timedelta(milliseconds=200)
"""How long before the caller's deadline a long poll answers with the state as it is."""


class ExecutorServicer(executor_pb2_grpc.ExecutorServiceServicer):
    """Decodes, calls a use case, encodes; errors are the interceptor's."""

    def __init__(
        self,
        starts: Starts,
        executions: Executions,
        interventions: Interventions,
        feed: Feed,
        settings: ExecutorSettings,
    ) -> None:
        self._starts = starts
        self._executions = executions
        self._interventions = interventions
        self._feed = feed
        self._settings = settings

    async def StartExecution(self, request: pb.StartExecutionRequest, context: Any) -> pb.StartExecutionResponse:
        read = self._start_reader(namespace_of(request), context)
        [view] = await self._starts.start([read(request)])
        return pb.StartExecutionResponse(execution=wire.write_execution(view))

    async def StartExecutions(self, request: pb.StartExecutionsRequest, context: Any) -> pb.StartExecutionsResponse:
        namespace = namespace_of(request)
        limit = self._settings.limits.starts
        if len(request.executions) > limit:
            raise LimitExceeded.of_field("executions", f"{len(request.executions)} executions, over {limit}")
        read = self._start_reader(namespace, context)
        starts = []
        for index, start in enumerate(request.executions):
            path = f"executions[{index}]."
            if start.namespace != request.namespace and start.namespace and namespace_of(start) != namespace:
                raise InvalidRequest.of_field(path + "namespace", f"{start.namespace!r} is not {namespace!r}")
            starts.append(read(start, path=path))
        views = await self._starts.start(starts) if starts else ()
        return pb.StartExecutionsResponse(executions=[wire.write_execution(view) for view in views])

    def _start_reader(self, namespace: str, context: Any) -> Callable[..., StartRequest]:
        """What is the same for all starts of a call is looked up once."""
        if not self._settings.execution.enabled:
            raise ExecutionsDisabled(
                "this executor takes no new executions", hint="the setting executor.execution.enabled is false"
            )
        return partial(
            wire.read_start,
            namespace=namespace,
            principal=caller(context).principal,
            traceparent=traceparent_for_start(),
            payload_limit=self._settings.limits.payload_bytes,
        )

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Any) -> pb.GetExecutionResponse:
        execution_id = wire.read_uuid(request.execution_id, "executionId")
        view = await self._executions.get(namespace_of(request), execution_id)
        return pb.GetExecutionResponse(execution=wire.write_execution(view))

    async def WaitExecution(self, request: pb.WaitExecutionRequest, context: Any) -> pb.WaitExecutionResponse:
        execution_id = wire.read_uuid(request.execution_id, "executionId")
        timeout = wire.read_wait(request)
        left = remaining(context)
        if left is not None:
            timeout = max(timedelta(), min(timeout, left - ANSWER_IN_TIME))
        view = await self._executions.wait(namespace_of(request), execution_id, timeout)
        return pb.WaitExecutionResponse(execution=wire.write_execution(view))

    async def WatchExecutions(
        self, request: pb.WatchExecutionsRequest, context: Any
    ) -> AsyncIterator[pb.WatchExecutionsResponse]:
        watch = Watch(self._executions, self._feed, wire.read_watch(request, namespace_of(request)))
        async for batch in watch.batches():
            yield pb.WatchExecutionsResponse(
                executions=[wire.write_execution(view) for view in batch.executions],
                resume_token=wire.resume_token(batch.seen_to),
            )

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Any
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        watched = wire.read_watch_of_one(request, namespace_of(request))
        async with aclosing(changes_of_one(self._executions, self._feed, watched)) as changes:
            async for view in changes:
                yield pb.WatchExecutionResponse(execution=wire.write_execution(view))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Any) -> pb.ListExecutionsResponse:
        scope = ExecutionScope(
            namespace=namespace_of(request),
            ids=wire.read_ids(request.execution_ids),
            workflow_id=_optional_workflow(request),
            states=wire.read_execution_states(request.states),
        )
        found, token = await self._executions.find_executions(read_query(request, EXECUTIONS), scope)
        return pb.ListExecutionsResponse(executions=map(wire.write_execution, found), next_page_token=token)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        scope = RunScope(
            namespace=namespace_of(request),
            execution_id=wire.read_uuid(request.execution_id, "executionId") if request.execution_id else None,
            workflow_id=_optional_workflow(request),
            states=wire.read_run_states(request.states),
        )
        query = read_query(request, RUNS)
        if scope.execution_id is not None:
            await self._executions.must_exist(scope.namespace, scope.execution_id)
        found, token = await self._executions.find_runs(query, scope, include_outputs=request.include_outputs)
        return pb.ListRunsResponse(runs=map(wire.write_run, found), next_page_token=token)

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        execution_id = wire.read_uuid(request.execution_id, "executionId")
        run, node_id = wire.read_run_or_node(request)
        view = await self._executions.get_run(namespace_of(request), execution_id, run=run, node_id=node_id)
        return pb.GetRunResponse(run=wire.write_run(view))

    async def PauseExecution(self, request: pb.PauseExecutionRequest, context: Any) -> pb.PauseExecutionResponse:
        event = wire.read_pause(request, caller(context).principal)
        view = await self._interventions.pause(namespace_of(request), event)
        return pb.PauseExecutionResponse(execution=wire.write_execution(view))

    async def ResumeExecution(self, request: pb.ResumeExecutionRequest, context: Any) -> pb.ResumeExecutionResponse:
        event = wire.read_resume(request, caller(context).principal)
        view = await self._interventions.resume(namespace_of(request), event)
        return pb.ResumeExecutionResponse(execution=wire.write_execution(view))

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Any) -> pb.CancelExecutionResponse:
        event = wire.read_cancel(request, caller(context).principal)
        view = await self._interventions.cancel(namespace_of(request), event)
        return pb.CancelExecutionResponse(execution=wire.write_execution(view))

    async def RequeueRun(self, request: pb.RequeueRunRequest, context: Any) -> pb.RequeueRunResponse:
        event = wire.read_requeue(request, caller(context).principal)
        view = await self._interventions.resolve(namespace_of(request), event)
        return pb.RequeueRunResponse(run=wire.write_run(view))

    async def CompleteRunManually(
        self, request: pb.CompleteRunManuallyRequest, context: Any
    ) -> pb.CompleteRunManuallyResponse:
        event = wire.read_completion(request, caller(context).principal)
        view = await self._interventions.resolve(namespace_of(request), event)
        return pb.CompleteRunManuallyResponse(run=wire.write_run(view))

    async def DiscardRun(self, request: pb.DiscardRunRequest, context: Any) -> pb.DiscardRunResponse:
        event = wire.read_discard(request, caller(context).principal)
        view = await self._interventions.resolve(namespace_of(request), event)
        return pb.DiscardRunResponse(run=wire.write_run(view))


def _optional_workflow(request: Any) -> UUID | None:
    return wire.read_uuid(request.workflow_id, "workflowId") if request.workflow_id else None
