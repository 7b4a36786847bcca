"""Records executions: versions pinned, request ids honoured, execution and runs written in one statement with all
others that start at the same time. I09."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services.chassis.batching import NaturalBatcher
from services.executor.facts import ExecutionCache, Known
from services.executor.handoff import Grant, Handoff, monotonic
from services.executor.model import ExecutionView, Heard, LeasePolicy, StartRequest, new_id, rank_of
from services.executor.modules import Modules
from services.executor.plans import PlannedVersion, Plans
from services.executor.preparing import refusals
from services.executor.progress import Progress
from services.executor.signals import Signals
from services.executor.store import starts as store
from services.executor.store.reads import ExecutionFilter, database_now, list_executions
from services.executor.store.session import Session
from services.executor.store.starts import NewExecution
from services.executor.versions import Versions
from valkyr.errors import Conflict, LimitExceeded, RequestIdReused
from valkyr.flow.effects import Prepared
from valkyr.flow.events import ControlReady, Event
from valkyr.flow.facts import ExecutionFacts
from valkyr.flow.ids import run_id
from valkyr.flow.resolutions import deadline_to_come
from valkyr.flow.states import SETTLED_EXECUTION_STATES
from valkyr.frozen import cheaply_made
from valkyr.planning.inputs import prepare
from valkyr.telemetry import get_logger

log = get_logger(__name__)

RUNS_PER_TRANSACTION = 20_000
CONTROL_AT_ONCE = 500
MAX_RACES = 5

RequestKey = tuple[str, str]  # namespace, request_id


@cheaply_made
@dataclass(frozen=True, slots=True)
class _Resolved:
    """A request with its version and plan."""

    request: StartRequest
    version: int
    planned: PlannedVersion
    key: RequestKey | None


Group = Sequence[_Resolved]


@dataclass(slots=True)
class _Written:
    """What one transaction wrote."""

    answers: list[list[UUID] | Exception] = field(default_factory=list)
    fresh: list[ExecutionView] = field(default_factory=list)
    views: dict[UUID, ExecutionView] = field(default_factory=dict)
    new: list[NewExecution] = field(default_factory=list)
    known: dict[UUID, Known] = field(default_factory=dict)


class Starts:
    """The use case behind StartExecution and StartExecutions."""

    def __init__(
        self,
        session: Session,
        versions: Versions,
        plans: Plans,
        cache: ExecutionCache,
        progress: Progress,
        handoff: Handoff,
        signals: Signals,
        *,
        lease: LeasePolicy,
        modules: Modules,
        runs_limit: int,
    ) -> None:
        self._runs_limit = runs_limit
        self._session = session
        self._versions = versions
        self._plans = plans
        self._cache = cache
        self._progress = progress
        self._handoff = handoff
        self._signals = signals
        self._lease = lease
        self._modules = modules
        self._batcher = NaturalBatcher[Group, list[ExecutionView]](
            self._record, limit=RUNS_PER_TRANSACTION, weight=_number_of_rows
        )

    async def start(self, requests: Sequence[StartRequest]) -> list[ExecutionView]:
        """All or none; the executions in order, those that a request_id made before included, as they are now.

        WorkflowNotFound, VersionNotFound, WorkflowArchived, RequestIdReused, LimitExceeded; Unavailable if a version
        has to be looked up or fetched and cannot be.
        """
        group = await self._resolve(requests)
        runs = sum(len(item.planned.plan.nodes) for item in group)
        if runs > self._runs_limit:
            raise LimitExceeded.of_field(
                "executions", f"together they have {runs} runs, over {self._runs_limit}; start them in several calls"
            )
        return await self._batcher.submit(group)

    async def close(self) -> None:
        await self._batcher.close()

    async def _resolve(self, requests: Sequence[StartRequest]) -> Group:
        versions = await self._versions.pin(requests)
        keys = [
            (request.namespace, request.workflow_id, version)
            for request, version in zip(requests, versions, strict=True)
        ]
        planned = {key: await self._plans.get(key) for key in dict.fromkeys(keys)}
        return [
            _Resolved(request, key[2], planned[key], (key[0], request.request_id) if request.request_id else None)
            for request, key in zip(requests, keys, strict=True)
        ]

    async def _record(self, groups: Sequence[Group]) -> Sequence[list[ExecutionView] | Exception]:
        """The insert itself tells whether a request_id was used before, which is rare: only then it is looked for. And
        where there is a deadline: a passed one is no reason to refuse what was started before."""
        look = any(item.request.deadline for group in groups for item in group)
        for _ in range(MAX_RACES):
            written = await self._record_once(groups, look=look)
            if written is not None:
                return [
                    ids if isinstance(ids, Exception) else [written.views[execution_id] for execution_id in ids]
                    for ids in written.answers
                ]
            look = True
        raise Conflict("other calls with the same request_id keep getting in between; repeat this one")

    async def _record_once(self, groups: Sequence[Group], *, look: bool) -> _Written | None:
        """None, and nothing is written, if a request_id was used before and not looked for."""
        roots = sum(len(item.planned.plan.roots) for group in groups for item in group)
        wanted = 0 if self._handoff.ready.backlog else roots
        granted_at = monotonic()
        with self._handoff.grant(wanted=wanted) as grant:
            size = grant.left

            async def attempt(connection: Any) -> _Written | None:
                nonlocal granted_at
                grant.left, granted_at = size, monotonic()
                return await self._write(connection, groups, grant, look=look)

            written = await self._session.repeat_single(attempt)
            if written is None:
                return None
            leased = [run for execution in written.new for run in execution.leased.values()]
            self._handoff.deliver(self._progress.preparing.hand_out(leased, written.known), granted_at=granted_at)
        self._signals.executions_changed(
            [Heard(view.id, view.revision, view.state in SETTLED_EXECUTION_STATES, view) for view in written.fresh]
        )
        try:
            await self._follow_up(written, leased)
        except Exception as error:
            log.error("starts.follow_up_failed", error=str(error), exc_info=error)
            self._signals.control_ready.set()
        return written

    async def _write(self, connection: Any, groups: Sequence[Group], grant: Grant, *, look: bool) -> _Written | None:
        """The insert comes last: it is committed by itself, and nothing may fail after that."""
        requests = [item.request for group in groups for item in group] if look else ()
        used = await store.find_requests(connection, requests) if look else {}
        now = await database_now(connection) if any(request.deadline for request in requests) else None
        written = _Written()
        for group in groups:
            self._plan_group(group, used, grant, written, now)
        if look:
            await self._read_earlier(connection, groups, written)
        if written.new:
            created_at = await store.insert_starts(connection, written.new, self._lease)
            if created_at is None:
                return None
            written.fresh = [execution.as_created(created_at) for execution in written.new]
            written.views.update((view.id, view) for view in written.fresh)
        return written

    async def _read_earlier(self, connection: Any, groups: Sequence[Group], written: _Written) -> None:
        """The executions that request_ids made before."""
        earlier: dict[str, list[UUID]] = {}
        for group, ids in zip(groups, written.answers, strict=True):
            if not isinstance(ids, Exception):
                unread = [execution_id for execution_id in ids if execution_id not in written.known]
                earlier.setdefault(group[0].request.namespace, []).extend(unread)
        for namespace, ids in earlier.items():
            if ids:
                found = await list_executions(connection, ExecutionFilter(namespace, ids), limit=len(ids))
                written.views.update((view.id, view) for view in found)

    def _plan_group(
        self,
        group: Group,
        used: dict[RequestKey, tuple[UUID, bytes]],
        grant: Grant,
        written: _Written,
        now: datetime | None,
    ) -> None:
        """All of a group or nothing of it: a reused request_id or a passed deadline refuses the whole. `now` is the
        database's clock, if any of them has a deadline."""
        asked: dict[RequestKey, bytes] = {}
        for item in group:
            if item.key is None:
                continue
            first = used.get(item.key)
            if (first[1] if first else asked.setdefault(item.key, item.request.request_hash)) != (
                item.request.request_hash
            ):
                written.answers.append(_reused(item.request, first[0] if first else None))
                return
        for place, item in enumerate(group if now is not None else ()):
            deadline = item.request.deadline
            if deadline is not None and now is not None and deadline <= now and item.key not in used:
                path = f"executions[{place}].deadline" if len(group) > 1 else "deadline"
                written.answers.append(deadline_to_come(deadline, path))
                return
        ids = []
        for item in group:
            first = used.get(item.key) if item.key else None
            if first is not None:
                ids.append(first[0])
                continue
            execution = self._new(item, grant, written)
            ids.append(execution.id)
            if item.key:
                used[item.key] = (execution.id, item.request.request_hash)
        written.answers.append(ids)

    def _new(self, item: _Resolved, grant: Grant, written: _Written) -> NewExecution:
        request = item.request
        facts = ExecutionFacts(
            id=new_id(),
            namespace=request.namespace,
            workflow_id=request.workflow_id,
            version=item.version,
            priority=request.priority,
            trigger_json=(request.payload or "null").encode(),
            traceparent=request.traceparent,
        )
        plan = item.planned.plan
        leased = {}
        for root in plan.roots if grant.left else ():
            node = plan.nodes[root]
            if not (self._handoff.may_take(facts.namespace, node) and grant.take()):
                continue
            prepared = prepare(
                plan,
                facts,
                node,
                taken=(),
                epoch=1,
                attempt=1,
                ready_revision=1,
                result_of=lambda _node: None,
                modules=self._modules,
                deadline=datetime.now(UTC) + node.deadline if node.deadline else None,
            )
            if self._handoff.closed(facts.namespace, prepared.target):
                leased[root] = prepared
        execution = NewExecution(facts.id, request, item.version, plan, item.planned.task_ids, leased)
        written.new.append(execution)
        written.known[facts.id] = Known(facts, item.planned)
        return execution

    async def _follow_up(self, written: _Written, leased: Sequence[Prepared]) -> None:
        """After the commit: control roots are decided, what found no room is announced, what cannot start fails.

        Control roots beyond a batch are left to the control loop, and so are those whose equals are looked for.
        """
        control: list[Event] = []
        left: dict[str, int] = {}
        deadlines = undecided = False
        for execution in written.new:
            self._cache.remember(written.known[execution.id].facts)
            request, plan = execution.request, execution.plan
            control += [ControlReady(execution.id, run_id(execution.id, root)) for root in plan.control_roots]
            deadlines = deadlines or request.deadline is not None or plan.settings.timeout is not None
            for root in plan.roots:
                node = plan.nodes[root]
                deadlines = deadlines or node.deadline is not None
                undecided = undecided or node.dedupe is not None
                if root not in execution.leased and not node.decided_first:
                    rank = rank_of(request.priority, node.priority)
                    left[node.pool] = min(rank, left.get(node.pool, rank))
        if left:
            self._signals.left_ready(left)
        if deadlines:
            self._signals.deadlines_changed.set()
        if undecided or len(control) > CONTROL_AT_ONCE:
            self._signals.control_ready.set()
        events = [*refusals(leased), *control[:CONTROL_AT_ONCE]]
        if events:
            await self._progress.apply(events)


def _number_of_rows(group: Group) -> int:
    return sum(1 + len(item.planned.plan.nodes) for item in group)


def _reused(request: StartRequest, first: UUID | None) -> RequestIdReused:
    where = f"for execution {first}" if first else "in the same call"
    return RequestIdReused(
        f"request_id {request.request_id!r} was used before, {where}, with another request",
        hint="use a new request_id for a new execution",
        metadata={"executionId": str(first)} if first else {},
    )
