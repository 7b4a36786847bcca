"""What becomes of outcomes on their way to the breaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from services.executor.breakers import outcomes as module
from services.executor.breakers.outcomes import Outcomes, call_result
from services.executor.model import new_id
from services.executor.targets import CallOutcome, CallResult, TargetKey
from tests.unit.executor.breakers import Clock
from valkyr.errors import InvalidRequest, Unavailable, ValkyrError
from valkyr.flow.effects import AttemptEnded
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Snooze, Success

DONE = Success(b"{}")


class Breaker:
    """Takes outcomes, or says why not."""

    def __init__(self) -> None:
        self.batches: list[list[CallOutcome]] = []
        self.error: ValkyrError | None = None
        self.while_busy: Callable[[], None] = lambda: None

    async def report_outcomes(self, outcomes: Sequence[CallOutcome]) -> None:
        self.while_busy()
        if self.error is not None:
            raise self.error
        self.batches.append(list(outcomes))

    @property
    def told(self) -> list[CallOutcome]:
        return [outcome for batch in self.batches for outcome in batch]


class Lab:
    def __init__(self) -> None:
        self.breaker = Breaker()
        self.clock = Clock()
        self.generation = 0
        self.answered: list[TargetKey] = []
        self.outcomes = Outcomes(
            self.breaker,
            lambda _namespace, _target: self.generation,
            permits_answered=self.answered.append,
            clock=self.clock,
        )


@pytest.fixture
def lab() -> Lab:
    return Lab()


def an_end(**changes: Any) -> AttemptEnded:
    told: dict[str, Any] = {
        "namespace": "default",
        "target": "t",
        "run_id": new_id(),
        "epoch": 1,
        "result": DONE,
        "duration_ms": 5,
        "permit_id": None,
        "traceparent": "",
    }
    return AttemptEnded(**{**told, **changes})


@pytest.mark.parametrize(
    ("result", "called"),
    [
        (DONE, CallResult.SUCCESS),
        *(
            (Failure(kind, "x"), CallResult.FAILURE if kind in ("TRANSIENT", "TIMEOUT") else CallResult.EXCLUDED)
            for kind in FailureType
        ),
        (Release(), CallResult.EXCLUDED),
        (Snooze(timedelta(seconds=1)), CallResult.EXCLUDED),
        (Lost(), CallResult.EXCLUDED),
        (Omitted(), CallResult.EXCLUDED),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'type', '')}" if not isinstance(value, str) else value,
)
def test_only_transient_failures_and_timeouts_are_held_against_a_target(result: Any, called: CallResult) -> None:
    assert call_result(result) is called


async def test_an_outcome_carries_the_generation_of_its_lease_and_an_id_that_makes_repeats_safe(lab: Lab) -> None:
    end = an_end(epoch=3)
    lab.generation = 4
    lab.outcomes.leased("default", "t", end.run_id, 3)
    lab.generation = 5
    lab.outcomes.ended(end)
    await lab.outcomes.step()
    [outcome] = lab.breaker.told
    assert (outcome.generation, outcome.report_id) == (4, f"{end.run_id}:3")
    assert (outcome.result, outcome.duration_ms) == (CallResult.SUCCESS, 5)


async def test_a_probe_counts_under_its_permit_though_the_mirror_has_not_heard_of_it_yet(lab: Lab) -> None:
    end = an_end(permit_id=new_id())
    lab.generation = 1
    lab.outcomes.leased("default", "t", end.run_id, 1, generation=2)
    lab.outcomes.leased("default", "t", end.run_id, 1)
    lab.outcomes.ended(end)
    await lab.outcomes.step()
    assert [outcome.generation for outcome in lab.breaker.told] == [2]


async def test_what_says_nothing_about_a_target_is_sent_only_to_give_a_permit_back(lab: Lab) -> None:
    permit = new_id()
    lab.outcomes.ended(an_end(result=Lost()))
    lab.outcomes.ended(an_end(target="", permit_id=permit))
    lab.outcomes.ended(an_end(result=Lost(), permit_id=permit))
    await lab.outcomes.step()
    assert [(outcome.result, outcome.permit_id) for outcome in lab.breaker.told] == [(CallResult.EXCLUDED, permit)]


async def test_a_permit_that_was_not_used_goes_back_under_a_report_of_its_own(lab: Lab) -> None:
    run, permit = new_id(), new_id()
    lab.outcomes.not_used("default", "t", run, 1, permit, 7)
    lab.outcomes.ended(an_end(run_id=run))
    await lab.outcomes.step()
    back, own = lab.breaker.told
    assert (back.result, back.permit_id, back.generation) == (CallResult.EXCLUDED, permit, 7)
    assert back.report_id != own.report_id


async def test_outcomes_gather_while_a_batch_is_under_way(lab: Lab) -> None:
    lab.breaker.while_busy = lambda: lab.outcomes.ended(an_end()) if len(lab.breaker.batches) < 2 else None
    lab.outcomes.ended(an_end())
    assert lab.outcomes.wake.is_set()
    assert await lab.outcomes.step() is None
    assert [len(batch) for batch in lab.breaker.batches] == [1, 1, 1]


async def test_a_batch_has_a_limit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    for _ in range(10):
        lab.outcomes.ended(an_end())
    await lab.outcomes.step()
    assert [len(batch) for batch in lab.breaker.batches] == [4, 4, 2]


async def test_with_the_breaker_away_outcomes_are_kept_in_order_and_sent_later(lab: Lab) -> None:
    ends = [an_end() for _ in range(3)]
    for end in ends:
        lab.outcomes.ended(end)
    lab.breaker.error = Unavailable("refused")
    pause = await lab.outcomes.step()
    assert pause is not None
    assert pause > timedelta()
    lab.breaker.error = None
    assert await lab.outcomes.step() is not None, "it is not asked again before the pause is over"
    assert lab.breaker.told == []
    lab.clock.now += pause.total_seconds()
    assert await lab.outcomes.step() is None
    assert [outcome.report_id for outcome in lab.breaker.told] == [f"{end.run_id}:1" for end in ends]


async def test_what_waits_is_bounded_and_the_oldest_go(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    ends = [an_end() for _ in range(5)]
    for end in ends:
        lab.outcomes.ended(end)
    await lab.outcomes.step()
    assert [outcome.report_id for outcome in lab.breaker.told] == [f"{end.run_id}:1" for end in ends[2:]]


async def test_leases_that_are_remembered_are_bounded_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LEASED", 2)
    lab.generation = 1
    ends = [an_end() for _ in range(3)]
    for end in ends:
        lab.outcomes.leased("default", "t", end.run_id, 1)
    for end in ends:
        lab.outcomes.ended(end)
    await lab.outcomes.step()
    assert [outcome.generation for outcome in lab.breaker.told] == [0, 1, 1]


async def test_what_the_breaker_refuses_for_good_holds_up_nothing(lab: Lab) -> None:
    lab.outcomes.ended(an_end())
    lab.breaker.error = InvalidRequest("bad")
    assert await lab.outcomes.step() is None
    lab.breaker.error = None
    lab.outcomes.ended(an_end())
    await lab.outcomes.step()
    assert len(lab.breaker.told) == 1


async def test_targets_whose_probes_were_reported_are_told_of(lab: Lab) -> None:
    lab.outcomes.ended(an_end(target="plain"))
    lab.outcomes.ended(an_end(target="probed", permit_id=new_id()))
    await lab.outcomes.step()
    assert lab.answered == [("default", "probed")]
