"""Gives runs to the runners of this process: how much room there is, what they can run, and what goes to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from services.executor.model import LeasePolicy
from services.executor.signals import Readiness
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import ExecutionFacts
from valkyr.flow.leasing import Serving
from valkyr.flow.plan import Plan, PlannedNode
from valkyr.runner.leases import LeasedRun, LeaseRef
from valkyr.telemetry import attempt_traceparent

LATEST_START = 5.0
"""Seconds from before the transaction until the runs that it leased must have been handed over: half as long as until
the reaper takes leases back that the worker does not hold. It takes so long where the process stood still, or where
connections are hard to get."""


class Pool(Protocol):
    """The worker of this process, as far as leasing needs it."""

    def room(self) -> int: ...

    def accept(
        self, runs: Sequence[LeasedRun], *, granted_at: float | None = None, start_by: float | None = None
    ) -> None: ...


@dataclass(slots=True)
class Grant:
    """Room set aside while a transaction leases: `left` is how many more runs it may take."""

    left: int

    def take(self) -> bool:
        """Whether there is room for one more; takes it."""
        if self.left <= 0:
            return False
        self.left -= 1
        return True


class Targets(Protocol):
    """What is known of breakers: closed until heard otherwise, by a look into memory."""

    def closed(self, namespace: str, target: str) -> bool: ...


class Handoff:
    """The door to the own pool. I13: room is concurrency less live leases less grants under way, never a counter."""

    def __init__(
        self,
        worker: Pool,
        ready: Readiness,
        targets: Targets,
        *,
        pool: str,
        class_names: frozenset[str],
        serves_all: bool,
        namespace: str | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """`namespace`: whose runs alone these runners take; None: all. `max_bytes`: of inputs, configs and
        progress that go through at once; one run alone may have more."""
        self._targets = targets
        self.serving = Serving(pool, class_names, serves_all)
        self.namespace = namespace
        self.max_bytes = max_bytes
        self._worker = worker
        self.ready = ready
        self._grants: list[int] = []
        self._grant_ended = asyncio.Event()
        self._returned: list[LeasedRun] = []
        self._open = True

    def close(self) -> None:
        """I12: a draining runner is never handed a run."""
        self._open = False

    async def returned(self) -> Sequence[LeasedRun]:
        """After `close`: the runs of transactions that were under way then, once these have ended. To be released."""
        while self._grants:
            self._grant_ended.clear()
            await self._grant_ended.wait()
        returned, self._returned = self._returned, []
        return returned

    def room(self) -> int:
        return max(0, self._worker.room() - sum(self._grants)) if self._open else 0

    def closed(self, namespace: str, target: str) -> bool:
        """I17: whether a run with this target may be leased without asking the breaker; true without a target."""
        return not target or self._targets.closed(namespace, target)

    def may_take(self, namespace: str, node: PlannedNode) -> bool:
        """Whether a run of this node may go to the own pool at once, as far as is known before its config. Not where it
        is first looked whether an equal run has ended well."""
        return node.dedupe is None and self.serving.takes(node) and self.closed(namespace, node.target)

    @contextmanager
    def grant(self, *, wanted: int, freed: int = 0) -> Iterator[Grant]:
        """Sets room aside for one transaction. `freed` leases end with it and make room for as many."""
        size = max(0, min(wanted, self.room() + freed)) if self._open else 0
        reserved = max(0, size - freed)
        self._grants.append(reserved)
        try:
            yield Grant(size)
        finally:
            self._grants.remove(reserved)
            self._grant_ended.set()
            if self.ready.backlog:
                self.ready.wake.set()  # the dispatcher may have found all room set aside

    def deliver(self, runs: Sequence[LeasedRun], *, granted_at: float) -> None:
        """Starts leased runs. `granted_at` is this process's monotonic clock before their transaction began."""
        if runs and self._open:
            self._worker.accept(runs, granted_at=granted_at, start_by=granted_at + LATEST_START)
        elif runs:
            self._returned.extend(runs)


def monotonic() -> float:
    """The clock of `granted_at`."""
    return time.monotonic()


def leased_run(
    prepared: Prepared, facts: ExecutionFacts, plan: Plan, policy: LeasePolicy, timeouts: Mapping[str, timedelta]
) -> LeasedRun:
    """What a runner gets. `timeouts` are the modules' own, where the node sets none."""
    node = plan.nodes[prepared.node_index]
    return LeasedRun(
        ref=LeaseRef(str(prepared.execution_id), str(prepared.id), prepared.epoch),
        attempt=prepared.attempt,
        node_id=node.node_id,
        class_name=node.class_name,
        config=prepared.config,
        inputs=prepared.inputs,
        idempotency_key=prepared.idempotency_key,
        lease_duration=policy.duration,
        timeout=node.timeout or timeouts.get(node.class_name),
        deadline=prepared.deadline,
        traceparent=prepared.replay.traceparent or facts.traceparent,
        links=links_of(prepared, facts),
        target=prepared.target,
        progress=(prepared.progress or "").encode(),
    )


def links_of(prepared: Prepared, facts: ExecutionFacts) -> tuple[str, ...]:
    """What an attempt's span links to: the attempt before it, in the trace in which that ran; and where a requeue has
    begun a trace of its own, the execution's."""
    replay = prepared.replay
    if prepared.attempt == 1 and not replay.traceparent:
        return ()
    links = []
    if prepared.attempt > 1:
        before = prepared.attempt - 1
        trace = facts.traceparent if before <= replay.after_attempt else replay.traceparent or facts.traceparent
        links.append(attempt_traceparent(trace, str(prepared.id), before))
    if replay.traceparent and replay.traceparent != facts.traceparent:
        links.append(facts.traceparent)
    return tuple(links)
