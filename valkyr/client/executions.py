"""client.executions: start, wait for, watch, read, pause, resume and cancel executions, and read their runs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from valkyr.api.executor.v1 import executor_pb2
from valkyr.client.calls import Calls
from valkyr.client.examples import ListQuery, Matcher, TimeRange
from valkyr.client.ids import new_request_id
from valkyr.client.json_values import value_of
from valkyr.client.pages import Page, Pages
from valkyr.client.results import Execution, Run, TriggerType
from valkyr.client.watch import Watch
from valkyr.client.watch_one import changes_of_one
from valkyr.client.wire import execution_of, run_of, timestamp, trigger_type_to_wire
from valkyr.flow.states import ExecutionState, RunState

LONG_POLL = timedelta(seconds=20)
ANSWER_MARGIN = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Start:
    """One execution to start. `payload` is any JSON value: what expressions see as `trigger`; None sends none.

    `version` is the latest by default; `request_id` makes starting it twice start it once, and is made if absent.
    Not settled by its `deadline` (a time with a zone), it is ended like a cancelled one, as FAILED with TIMEOUT.
    """

    workflow_id: str
    version: int | None = None
    payload: Any = None
    trigger_type: TriggerType = TriggerType.MANUAL
    priority: int = 0
    request_id: str | None = None
    deadline: datetime | None = None


class Executions:
    """Calls to the executor."""

    def __init__(self, calls: Calls, namespace: str) -> None:
        self._calls = calls
        self._namespace = namespace

    async def start(
        self,
        workflow_id: str,
        *,
        version: int | None = None,
        payload: Any = None,
        trigger_type: TriggerType = TriggerType.MANUAL,
        priority: int = 0,
        request_id: str | None = None,
        deadline: datetime | None = None,
        timeout: timedelta | None = None,
    ) -> Execution:
        """Records an execution; answers before anything has run. Arguments as in `Start`.

        WorkflowNotFound, VersionNotFound, RequestIdReused, ExecutionsDisabled; InvalidRequest for what is no JSON.
        """
        start = Start(workflow_id, version, payload, trigger_type, priority, request_id, deadline)
        answer = await self._calls.unary("StartExecution", self._request(start, ""), timeout=timeout)
        return execution_of(answer.execution)

    async def start_many(self, starts: Sequence[Start], *, timeout: timedelta | None = None) -> Sequence[Execution]:
        """As `start` for up to 1,000 at once: all or none, answers in the order asked."""
        request = executor_pb2.StartExecutionsRequest(
            namespace=self._namespace,
            executions=[self._request(start, f"executions[{index}].") for index, start in enumerate(starts)],
        )
        answer = await self._calls.unary("StartExecutions", request, timeout=timeout)
        return [execution_of(execution) for execution in answer.executions]

    async def get(self, execution_id: str, *, timeout: timedelta | None = None) -> Execution:
        """With `outputs` and `run_counts`. ExecutionNotFound."""
        request = executor_pb2.GetExecutionRequest(namespace=self._namespace, execution_id=execution_id)
        return execution_of((await self._calls.unary("GetExecution", request, timeout=timeout)).execution)

    async def wait(self, execution_id: str, *, timeout: timedelta | None = None) -> Execution:
        """The execution once it is settled, or as it is after `timeout` (see `settled`); no bound by default.

        Long polls, repeated, each with a deadline of its own. ExecutionNotFound.
        """
        expires = None if timeout is None else time.monotonic() + timeout.total_seconds()
        while True:
            poll = LONG_POLL if expires is None else _clamped(expires - time.monotonic())
            request = executor_pb2.WaitExecutionRequest(namespace=self._namespace, execution_id=execution_id)
            request.timeout.CopyFrom(_duration(poll))
            answer = await self._calls.unary("WaitExecution", request, timeout=poll + ANSWER_MARGIN)
            execution = execution_of(answer.execution)
            if execution.settled or (expires is not None and time.monotonic() >= expires):
                return execution

    async def pause(
        self, execution_id: str, *, reason: str = "", request_id: str | None = None, timeout: timedelta | None = None
    ) -> Execution:
        """Nothing of it is started until it is resumed: its runs are PARKED as they become READY.

        Leased runs finish, so that it may settle while it is paused; timers and deadlines go on.

        Pausing what is paused changes nothing, and so does a repeat of a `request_id` that comes after a resume.
        ExecutionNotFound, ExecutionSettled, RequestIdReused.
        """
        request = executor_pb2.PauseExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return execution_of((await self._calls.unary("PauseExecution", request, timeout=timeout)).execution)

    async def resume(
        self, execution_id: str, *, reason: str = "", request_id: str | None = None, timeout: timedelta | None = None
    ) -> Execution:
        """What the pause has parked is READY again. Resuming what is not paused changes nothing.

        ExecutionNotFound, ExecutionSettled, RequestIdReused.
        """
        request = executor_pb2.ResumeExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return execution_of((await self._calls.unary("ResumeExecution", request, timeout=timeout)).execution)

    async def cancel(
        self, execution_id: str, *, reason: str = "", request_id: str | None = None, timeout: timedelta | None = None
    ) -> Execution:
        """Ends an execution: what nobody holds is CANCELLED at once, runs under way are told and given their grace.

        Answers with the execution as it is then: RUNNING with `cancel_requested` while a lease is out, so `wait` for
        it. Cancelling what is cancelled already changes nothing. ExecutionNotFound, ExecutionSettled.
        """
        request = executor_pb2.CancelExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return execution_of((await self._calls.unary("CancelExecution", request, timeout=timeout)).execution)

    def watch(
        self,
        execution_ids: Sequence[str] = (),
        *,
        workflow_id: str = "",
        include_outputs: bool = False,
        patience: timedelta = timedelta(minutes=1),
    ) -> AsyncGenerator[Execution, None]:
        """Each execution's newest state as it changes, never an older or repeated one.

        With `execution_ids` (up to 10,000) it ends when all of them are settled; without, it goes on with the whole
        namespace or one workflow. A broken stream is resumed where it was; Unavailable after `patience` of silence.
        """
        return Watch(
            self._calls,
            namespace=self._namespace,
            execution_ids=tuple(execution_ids),
            workflow_id=workflow_id,
            include_outputs=include_outputs,
            patience=patience,
        ).changes()

    def watch_one(
        self, execution_id: str, *, patience: timedelta = timedelta(minutes=1)
    ) -> AsyncGenerator[Execution, None]:
        """One execution as it is and as it changes, newest state only, with `run_counts`; ends with the settled one.

        A broken stream is resumed where it was; Unavailable after `patience` of silence. ExecutionNotFound.
        """
        return changes_of_one(self._calls, namespace=self._namespace, execution_id=execution_id, patience=patience)

    def list(
        self,
        *,
        workflow_id: str = "",
        states: Sequence[ExecutionState] = (),
        execution_ids: Sequence[str] = (),
        example: Mapping[str, Any] | None = None,
        matcher: Matcher | None = None,
        order_by: str = "",
        time_ranges: Sequence[TimeRange] = (),
        page_size: int = 100,
        timeout: timedelta | None = None,
    ) -> Pages[Execution]:
        """Executions that look like `example`, newest first unless `order_by` says otherwise.

        `list(example={"state": "FAILED", "triggerPayload": {"order": 17}})`; what is not given does not restrict, and
        `workflow_id`, `states` and `execution_ids` hold whatever the matcher says. InvalidRequest naming every path of
        the example that cannot be asked for.
        """
        query = ListQuery(example, matcher, order_by, time_ranges)
        wire_states = [executor_pb2.Execution.State.Value(state.value) for state in states]

        async def fetch(token: str) -> Page[Execution]:
            request = executor_pb2.ListExecutionsRequest(
                namespace=self._namespace,
                execution_ids=execution_ids,
                workflow_id=workflow_id,
                states=wire_states,
                page_size=page_size,
                page_token=token,
            )
            query.put_into(request)
            answer = await self._calls.unary("ListExecutions", request, timeout=timeout)
            return Page([execution_of(execution) for execution in answer.executions], answer.next_page_token)

        return Pages(fetch)

    def list_runs(
        self,
        execution_id: str = "",
        *,
        workflow_id: str = "",
        states: Sequence[RunState] = (),
        include_outputs: bool = False,
        example: Mapping[str, Any] | None = None,
        matcher: Matcher | None = None,
        order_by: str = "",
        time_ranges: Sequence[TimeRange] = (),
        page_size: int = 100,
        timeout: timedelta | None = None,
    ) -> Pages[Run]:
        """Runs that look like `example`, each with its attempts; by execution, newest first, and within one in the
        graph's order of nodes, unless `order_by` says otherwise.

        `list_runs(example={"nodeId": "charge_card", "state": "QUARANTINED"})`; `execution_id`, `workflow_id` and
        `states` hold whatever the matcher says. ExecutionNotFound; InvalidRequest as with `list`.
        """
        query = ListQuery(example, matcher, order_by, time_ranges)
        wire_states = [executor_pb2.Run.State.Value(state.value) for state in states]

        async def fetch(token: str) -> Page[Run]:
            request = executor_pb2.ListRunsRequest(
                namespace=self._namespace,
                execution_id=execution_id,
                workflow_id=workflow_id,
                states=wire_states,
                page_size=page_size,
                page_token=token,
                include_outputs=include_outputs,
            )
            query.put_into(request)
            answer = await self._calls.unary("ListRuns", request, timeout=timeout)
            return Page([run_of(run) for run in answer.runs], answer.next_page_token)

        return Pages(fetch)

    def _request(self, start: Start, place: str) -> executor_pb2.StartExecutionRequest:
        given: dict[str, Any] = {}
        if start.payload is not None:
            given["payload"] = value_of(start.payload, path=f"{place}payload")
        if start.deadline is not None:
            given["deadline"] = timestamp(start.deadline, path=f"{place}deadline")
        return executor_pb2.StartExecutionRequest(
            namespace=self._namespace,
            workflow_id=start.workflow_id,
            version=start.version,
            trigger_type=trigger_type_to_wire(start.trigger_type),
            request_id=start.request_id or new_request_id(),
            priority=start.priority,
            **given,
        )


def _clamped(seconds_left: float) -> timedelta:
    return min(LONG_POLL, timedelta(seconds=max(0.0, seconds_left)))


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
