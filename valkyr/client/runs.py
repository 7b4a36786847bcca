"""client.runs: one run with all that happened to it, and the three ways out of QUARANTINED.

Each of the three names the quarantine that it means and matches only that one, and the dead letter follows by itself;
from a letter, `client.dead_letters` does the same. Whoever comes second gets QuarantineResolved, which says who won.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from valkyr.api.executor.v1 import executor_pb2
from valkyr.client.calls import Calls
from valkyr.client.ids import new_request_id
from valkyr.client.json_values import value_of
from valkyr.client.results import Run
from valkyr.client.wire import run_of, timestamp


class Runs:
    """Calls to the executor. All raise ExecutionNotFound and RunNotFound; the ways out of QUARANTINED also
    QuarantineResolved and NotQuarantined."""

    def __init__(self, calls: Calls, namespace: str) -> None:
        self._calls = calls
        self._namespace = namespace

    async def get(
        self, execution_id: str, run_id: str = "", *, node_id: str = "", timeout: timedelta | None = None
    ) -> Run:
        """One run, named by its id or by its node's, with outputs, and stack traces of its attempts.

        InvalidRequest where both are given or neither is.
        """
        request = executor_pb2.GetRunRequest(
            namespace=self._namespace, execution_id=execution_id, run_id=run_id, node_id=node_id
        )
        return run_of((await self._calls.unary("GetRun", request, timeout=timeout)).run)

    async def requeue(
        self,
        execution_id: str,
        run_id: str,
        *,
        quarantine_number: int,
        inputs: Any = None,
        new_key: bool = False,
        deadline: datetime | None = None,
        force: bool = False,
        reason: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Run:
        """The run is READY again with fresh budgets, and its execution goes on; earlier outputs are kept.

        `inputs` replaces the whole inputs document, an object with `trigger` and `nodes`; `new_key` gives the target
        another idempotency key although the inputs are the same; `deadline` is a new end of the execution.
        ExecutionEnded, TooManyRequeues (without `force`), DeadlinePassed (without `deadline`).
        """
        request = executor_pb2.RequeueRunRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            run_id=run_id,
            quarantine_number=quarantine_number,
            inputs=None if inputs is None else value_of(inputs, path="inputs"),
            new_key=new_key,
            deadline=None if deadline is None else timestamp(deadline, path="deadline"),
            force=force,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return run_of((await self._calls.unary("RequeueRun", request, timeout=timeout)).run)

    async def complete(
        self,
        execution_id: str,
        run_id: str,
        *,
        quarantine_number: int,
        outputs: Any,
        reason: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Run:
        """The run is SUCCESS with `outputs` (any JSON value, at most 1 MiB; None is null), and the execution goes on.

        ExecutionEnded.
        """
        request = executor_pb2.CompleteRunManuallyRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            run_id=run_id,
            quarantine_number=quarantine_number,
            outputs=value_of(outputs, path="outputs"),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return run_of((await self._calls.unary("CompleteRunManually", request, timeout=timeout)).run)

    async def discard(
        self,
        execution_id: str,
        run_id: str,
        *,
        quarantine_number: int,
        reason: str,
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Run:
        """The run is FAILED for good; what waits behind its SUCCESS edges is skipped. InvalidRequest without reason."""
        request = executor_pb2.DiscardRunRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            run_id=run_id,
            quarantine_number=quarantine_number,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return run_of((await self._calls.unary("DiscardRun", request, timeout=timeout)).run)
