"""AcquirePermits: leave to call a target. Most answers need no lock; probes are given out one batch after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain

from services.breaker.model.calls import Key, PermitAnswer, PermitRequest, answer_of, fold_permits
from services.breaker.model.history import Change, change_of
from services.breaker.model.machine import Allow, Circuit, Probe, decide_permit, needs_lock
from services.breaker.model.policy import Policy
from services.breaker.store import Store, Transaction, new_id
from services.breaker.tracing import tell_permit, tell_transition
from services.chassis.batching import NaturalBatcher

BATCH = 1_000

Answered = dict[Key, list[PermitAnswer]]


class Permits:
    """The use case of AcquirePermits. `changed` is called after a commit that watchers have to hear of."""

    def __init__(self, store: Store, policy: Policy, changed: Callable[[], None]) -> None:
        self._store = store
        self._policy = policy
        self._changed = changed
        self._batcher = NaturalBatcher[Sequence[PermitRequest], Sequence[PermitAnswer]](
            self._decide, limit=BATCH, weight=len
        )

    async def acquire(self, requests: Sequence[PermitRequest]) -> list[PermitAnswer]:
        """In order. A batch of requests is decided at one moment."""
        if not requests:
            return []
        views, now = await self._store.read({request.key for request in requests})
        circuits = {key: view.circuit for key, view in views.items()}
        alone = [r for r in requests if r.key in circuits and needs_lock(circuits[r.key], now)]
        answered = iter(await self._batcher.submit(alone) if alone else ())
        locked = {request.key for request in alone}
        answers = []
        for request in requests:
            if request.key in locked:
                answers.append(next(answered))
                continue
            circuit = circuits.get(request.key, Circuit())
            decided = decide_permit(circuit, (), holder=request.holder, now=now, policy=self._policy)
            answers.append(answer_of(circuit, decided.decision))
        return answers

    async def close(self) -> None:
        """Waits for what was asked."""
        await self._batcher.close()

    async def _decide(self, batch: Sequence[Sequence[PermitRequest]]) -> list[list[PermitAnswer]]:
        grouped: dict[Key, list[PermitRequest]] = defaultdict(list)
        for request in chain.from_iterable(batch):
            grouped[request.key].append(request)

        async def work(tx: Transaction) -> tuple[Answered, list[Change]]:
            return await self._decide_locked(tx, grouped)

        answered, changes = await self._store.in_transaction(work)
        self._tell(grouped, answered, changes)
        waiting = {key: iter(answers) for key, answers in answered.items()}
        return [[next(waiting[request.key]) for request in requests] for requests in batch]

    async def _decide_locked(
        self, tx: Transaction, grouped: dict[Key, list[PermitRequest]]
    ) -> tuple[Answered, list[Change]]:
        views = await tx.lock(grouped)
        now = await tx.now()
        permits = await tx.permits_of(views.values())
        answered: Answered = {}
        changes = []
        for key, requests in grouped.items():
            view = views.get(key)
            if view is None or view.id is None:
                answered[key] = [PermitAnswer(Allow())] * len(requests)
                continue
            folded = fold_permits(view.circuit, permits[view.id], requests, now=now, policy=self._policy, new_id=new_id)
            answered[key] = list(folded.answers)
            changes.append(change_of(key, view.id, view.circuit, folded, now))
        await tx.write(changes, now)
        return answered, changes

    def _tell(self, grouped: dict[Key, list[PermitRequest]], answered: Answered, changes: Sequence[Change]) -> None:
        for change in changes:
            for row in change.transitions:
                tell_transition(row)
        for key, requests in grouped.items():
            for request, answer in zip(requests, answered[key], strict=True):
                if isinstance(answer.decision, Probe):
                    tell_permit(request, answer)
        if any(change.is_visible for change in changes):
            self._changed()
