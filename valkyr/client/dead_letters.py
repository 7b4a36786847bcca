"""client.dead_letters: runs that failed for good, and what an operator does about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.client.calls import Calls
from valkyr.client.examples import ListQuery, Matcher, TimeRange
from valkyr.client.failures import DeadLetter, DeadLetterType, Resolution
from valkyr.client.ids import new_request_id
from valkyr.client.json_values import value_of
from valkyr.client.pages import Page, Pages
from valkyr.client.wire import timestamp
from valkyr.client.wire_failures import dead_letter_of, dead_letter_type_to_wire, resolution_to_wire


class DeadLetters:
    """Calls to the dead letter queue. A letter is resolved once: DeadLetterResolved says who was first, and what as."""

    def __init__(self, calls: Calls, namespace: str) -> None:
        self._calls = calls
        self._namespace = namespace

    async def get(self, dead_letter_id: str, *, timeout: timedelta | None = None) -> DeadLetter:
        """With inputs, config and stack traces. DeadLetterNotFound."""
        request = dlq_pb2.GetDeadLetterRequest(namespace=self._namespace, dead_letter_id=dead_letter_id)
        return dead_letter_of((await self._calls.unary("GetDeadLetter", request, timeout=timeout)).dead_letter)

    def list(
        self,
        *,
        resolutions: Sequence[Resolution] = (),
        execution_id: str = "",
        workflow_id: str = "",
        run_id: str = "",
        target: str = "",
        failure_types: Sequence[DeadLetterType] = (),
        example: Mapping[str, Any] | None = None,
        matcher: Matcher | None = None,
        order_by: str = "",
        time_ranges: Sequence[TimeRange] = (),
        page_size: int = 100,
        timeout: timedelta | None = None,
    ) -> Pages[DeadLetter]:
        """Letters that look like `example`, newest first unless `order_by` says otherwise, without inputs, config and
        stack traces, though the first two may be asked for.

        `list(example={"nodeId": "charge_card", "originalInputs": {"trigger": {"order": 17}}})`; what is not given does
        not restrict, and the filters beside the example hold whatever the matcher says.
        """
        request = dlq_pb2.ListDeadLettersRequest(
            namespace=self._namespace,
            resolutions=[resolution_to_wire(resolution) for resolution in resolutions],
            execution_id=execution_id,
            workflow_id=workflow_id,
            run_id=run_id,
            target=target,
            failure_types=[dead_letter_type_to_wire(kind) for kind in failure_types],
            page_size=page_size,
        )
        ListQuery(example, matcher, order_by, time_ranges).put_into(request)

        async def fetch(token: str) -> Page[DeadLetter]:
            asked = dlq_pb2.ListDeadLettersRequest()
            asked.CopyFrom(request)
            asked.page_token = token
            answer = await self._calls.unary("ListDeadLetters", asked, timeout=timeout)
            return Page([dead_letter_of(letter) for letter in answer.dead_letters], answer.next_page_token)

        return Pages(fetch)

    async def requeue(
        self,
        dead_letter_id: str,
        *,
        inputs: Any = None,
        new_key: bool = False,
        deadline: datetime | None = None,
        force: bool = False,
        reason: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> DeadLetter:
        """Sends the run back into its execution, from where it failed; earlier outputs are kept. As `runs.requeue`.

        DeadLetterNotFound, DeadLetterResolved, ExecutionEnded, TooManyRequeues, DeadlinePassed.
        """
        request = dlq_pb2.RequeueDeadLetterRequest(
            namespace=self._namespace,
            dead_letter_id=dead_letter_id,
            inputs=None if inputs is None else value_of(inputs, path="inputs"),
            new_key=new_key,
            deadline=None if deadline is None else timestamp(deadline, path="deadline"),
            force=force,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return dead_letter_of((await self._calls.unary("RequeueDeadLetter", request, timeout=timeout)).dead_letter)

    async def fix(
        self,
        dead_letter_id: str,
        *,
        outputs: Any,
        reason: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> DeadLetter:
        """Supplies what the run would have answered (any JSON value; None is null); its execution goes on.

        DeadLetterNotFound, DeadLetterResolved, ExecutionEnded.
        """
        request = dlq_pb2.FixDeadLetterRequest(
            namespace=self._namespace,
            dead_letter_id=dead_letter_id,
            outputs=value_of(outputs, path="outputs"),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return dead_letter_of((await self._calls.unary("FixDeadLetter", request, timeout=timeout)).dead_letter)

    async def discard(
        self,
        dead_letter_id: str,
        *,
        reason: str,
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> DeadLetter:
        """Gives the run up: it is FAILED for good.

        InvalidRequest without a reason; DeadLetterNotFound, DeadLetterResolved.
        """
        request = dlq_pb2.DiscardDeadLetterRequest(
            namespace=self._namespace,
            dead_letter_id=dead_letter_id,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return dead_letter_of((await self._calls.unary("DiscardDeadLetter", request, timeout=timeout)).dead_letter)
