"""ReportOutcomes: what became of calls. Successes of targets at rest cost a look; what is reported meanwhile of all
others becomes one transaction, with one update for each target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.breaker.model.calls import CallOutcome, Key, answer_without_lock, fold_outcomes
from services.breaker.model.history import Change, change_of
from services.breaker.model.machine import Circuit
from services.breaker.model.policy import Policy
from services.breaker.model.states import Answer, Result
from services.breaker.model.views import BreakerView
from services.breaker.store import Store, Transaction, new_id
from services.breaker.tracing import tell_transition
from services.chassis.batching import NaturalBatcher
from valkyr.telemetry import get_logger

BATCH = 10_000
_log = get_logger(__name__)

Answered = dict[Key, list[Answer]]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Outcomes of one call that may change something; `unknown` are those of its targets that had no row."""

    outcomes: Sequence[CallOutcome]
    unknown: frozenset[Key]


class Outcomes:
    """The use case of ReportOutcomes. `changed` is called after a commit that watchers have to hear of."""

    def __init__(self, store: Store, policy: Policy, changed: Callable[[], None], *, max_breakers: int) -> None:
        self._store = store
        self._policy = policy
        self._changed = changed
        self._max_breakers = max_breakers
        self._full: set[str] = set()
        self._batcher = NaturalBatcher[_Batch, Sequence[Answer]](
            self._apply, limit=BATCH, weight=lambda batch: len(batch.outcomes)
        )

    async def report(self, outcomes: Sequence[CallOutcome]) -> list[Answer]:
        """In order; those of one target are applied in order."""
        if not outcomes:
            return []
        grouped = _grouped(outcomes)
        views, _ = await self._store.read(grouped)
        answered: Answered = {}
        for key, group in grouped.items():
            circuit = views[key].circuit if key in views else Circuit()
            answers = [answer for outcome in group if (answer := answer_without_lock(circuit, outcome))]
            if len(answers) == len(group):
                answered[key] = answers
        left = [outcome for outcome in outcomes if outcome.key not in answered]
        unknown = frozenset(outcome.key for outcome in left if outcome.key not in views)
        applied = iter(await self._batcher.submit(_Batch(left, unknown)) if left else ())
        at_rest = {key: iter(answers) for key, answers in answered.items()}
        return [next(at_rest.get(outcome.key, applied)) for outcome in outcomes]

    async def close(self) -> None:
        """Waits for what was reported."""
        await self._batcher.close()

    async def _apply(self, batches: Sequence[_Batch]) -> list[list[Answer]]:
        grouped = _grouped(outcome for batch in batches for outcome in batch.outcomes)
        unknown = frozenset[Key]().union(*(batch.unknown for batch in batches))
        failing = [key for key in unknown if any(outcome.result is Result.FAILURE for outcome in grouped[key])]
        new = await self._within_limit(failing)

        async def work(tx: Transaction) -> tuple[Answered, list[Change]]:
            await tx.insert_breakers(new)
            return await self._apply_locked(tx, grouped)

        answered, changes = await self._store.in_transaction(work)
        for change in changes:
            for row in change.transitions:
                tell_transition(row)
        if any(change.is_visible for change in changes):
            self._changed()
        waiting = {key: iter(answers) for key, answers in answered.items()}
        return [[next(waiting[outcome.key]) for outcome in batch.outcomes] for batch in batches]

    async def _apply_locked(
        self, tx: Transaction, grouped: Mapping[Key, Sequence[CallOutcome]]
    ) -> tuple[Answered, list[Change]]:
        views = await tx.lock(grouped)
        now = await tx.now()
        permits = await tx.permits_of(views.values())
        reported = await tx.reported(_reports(views, grouped))
        answered: Answered = {}
        changes = []
        for key, outcomes in grouped.items():
            view = views.get(key)
            if view is None or view.id is None:
                answered[key] = [answer_without_lock(Circuit(), outcome) or Answer.IGNORED for outcome in outcomes]
                continue
            folded = fold_outcomes(
                view.circuit,
                permits[view.id],
                outcomes,
                reported=reported[view.id],
                now=now,
                policy=self._policy,
                episode_id=new_id(),
            )
            answered[key] = list(folded.answers)
            changes.append(change_of(key, view.id, view.circuit, folded, now))
        await tx.write(changes, now)
        return answered, changes

    async def _within_limit(self, keys: Sequence[Key]) -> list[Key]:
        """Those that a namespace has room for; the rest is said once, until there is room again."""
        if not keys:
            return []
        counts = await self._store.count({key.namespace for key in keys}, self._max_breakers)
        taken: list[Key] = []
        for key in keys:
            if counts[key.namespace] < self._max_breakers:
                counts[key.namespace] += 1
                taken.append(key)
                self._full.discard(key.namespace)
            elif key.namespace not in self._full:
                self._full.add(key.namespace)
                _log.warning(
                    "breaker.limit_reached",
                    namespace=key.namespace,
                    limit=self._max_breakers,
                    note="failures of more targets are not counted; do targets hold ids?",
                )
        return taken


def _grouped(outcomes: Iterable[CallOutcome]) -> dict[Key, list[CallOutcome]]:
    grouped: dict[Key, list[CallOutcome]] = defaultdict(list)
    for outcome in outcomes:
        grouped[outcome.key].append(outcome)
    return grouped


def _reports(
    views: Mapping[Key, BreakerView], grouped: Mapping[Key, Sequence[CallOutcome]]
) -> list[tuple[str, UUID, str]]:
    return [
        (key.namespace, view.id, outcome.report_id)
        for key, view in views.items()
        if view.id is not None
        for outcome in grouped[key]
    ]
