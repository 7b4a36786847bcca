"""The breaker's machine, state by state, and what batches of calls are folded into."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest

from services.breaker.model.calls import CallOutcome, FoldedPermits, Key, PermitRequest, fold_outcomes, fold_permits
from services.breaker.model.machine import (
    FORCED_RETRY,
    Allow,
    Applied,
    Circuit,
    Decided,
    Deny,
    Holder,
    Permit,
    Probe,
    apply_outcome,
    decide_permit,
    needs_lock,
)
from services.breaker.model.policy import Policy
from services.breaker.model.states import BY_ITSELF, FORCED_STATES, Answer, Cause, Result, State, is_legal

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = Policy()
EPISODE, OTHER_EPISODE = UUID(int=1), UUID(int=2)
IDS = [f"00000000-0000-0000-0000-{number:012}" for number in range(500, 600)]
KEY = Key("default", "http:api.example.com")

CLOSED = Circuit()
OPEN = Circuit(
    State.OPEN, 1, 5, last_failure_at=START, opened_at=START, next_retry_at=START + 30 * SECOND, episode_id=EPISODE
)
HALF_OPEN = replace(OPEN, state=State.HALF_OPEN, generation=2)
CIRCUITS = {
    State.CLOSED: replace(CLOSED, generation=3, failure_count=2),
    State.OPEN: OPEN,
    State.HALF_OPEN: HALF_OPEN,
    **{state: Circuit(state, 4) for state in sorted(FORCED_STATES)},
}


def applied(
    circuit: Circuit, result: Result, *, generation: int | None = None, has_permit: bool = False, at: int = 0
) -> Applied:
    return apply_outcome(
        circuit,
        result,
        generation=circuit.generation if generation is None else generation,
        has_permit=has_permit,
        now=START + at * SECOND,
        policy=POLICY,
        episode_id=OTHER_EPISODE,
    )


def decided(circuit: Circuit, *permits: Permit, run: str = "run", at: int = 0) -> Decided:
    return decide_permit(circuit, permits, holder=Holder(run, 1), now=START + at * SECOND, policy=POLICY)


def a_permit(number: int, *, run: str = "", generation: int = 2, until: int = 100) -> Permit:
    return Permit(UUID(int=100 + number), generation, Holder(run or f"run-{number}", 1), START + until * SECOND)


def failures(count: int, circuit: Circuit = CLOSED) -> Circuit:
    for _ in range(count):
        circuit = applied(circuit, Result.FAILURE).circuit
    return circuit


def test_five_failures_in_a_row_open_it_for_thirty_seconds() -> None:
    assert failures(4).state is State.CLOSED
    last = applied(failures(4), Result.FAILURE, at=7)
    assert last.answer is Answer.COUNTED
    opened = last.circuit
    assert (opened.state, opened.generation, opened.failure_count) == (State.OPEN, 1, 5)
    assert (opened.opened_at, opened.next_retry_at) == (START + 7 * SECOND, START + 37 * SECOND)
    assert opened.episode_id == OTHER_EPISODE
    assert last.transition is not None
    assert last.transition.cause is Cause.FAILURES


def test_a_success_begins_the_count_anew() -> None:
    after = applied(failures(4), Result.SUCCESS, at=3).circuit
    assert (after.failure_count, after.window_start_at) == (0, START + 3 * SECOND)
    assert failures(4, after).state is State.CLOSED
    assert failures(5, after).state is State.OPEN


def test_a_success_of_a_target_at_rest_changes_nothing() -> None:
    assert applied(CLOSED, Result.SUCCESS) == replace(applied(CLOSED, Result.SUCCESS), circuit=CLOSED)


@pytest.mark.parametrize(("state", "has_permit"), list(product(sorted(State), [False, True])))
def test_i18_an_outcome_of_an_older_generation_changes_nothing(state: State, has_permit: bool) -> None:
    circuit = CIRCUITS[state]
    for result in Result:
        late = applied(circuit, result, generation=circuit.generation - 1, has_permit=has_permit)
        assert (late.circuit, late.answer, late.transition) == (circuit, Answer.IGNORED, None)


@pytest.mark.parametrize("state", sorted(set(State) - {State.CLOSED}))
def test_an_outcome_of_a_later_generation_changes_nothing_either(state: State) -> None:
    circuit = CIRCUITS[state]
    assert applied(circuit, Result.FAILURE, generation=circuit.generation + 1).circuit == circuit


def test_a_breaker_that_was_forgotten_goes_on_above_what_its_callers_remember() -> None:
    circuit = CLOSED
    for _ in range(5):
        circuit = applied(circuit, Result.FAILURE, generation=8).circuit
    assert (circuit.state, circuit.generation) == (State.OPEN, 9)


@pytest.mark.parametrize("state", sorted(State))
def test_an_exclusion_counts_nowhere(state: State) -> None:
    circuit = CIRCUITS[state]
    assert applied(circuit, Result.EXCLUDED, has_permit=True).circuit == circuit
    assert applied(circuit, Result.EXCLUDED, has_permit=True).answer is Answer.IGNORED


@pytest.mark.parametrize(
    ("circuit", "at", "decision"),
    [
        pytest.param(CLOSED, 0, Allow(), id="closed"),
        pytest.param(OPEN, 0, Deny(30 * SECOND), id="open, just now"),
        pytest.param(OPEN, 29, Deny(SECOND), id="open, nearly over"),
        pytest.param(OPEN, 30, Probe(None), id="open, over"),
        pytest.param(HALF_OPEN, 0, Probe(None), id="half open"),
        pytest.param(CIRCUITS[State.FORCED_OPEN], 99, Deny(FORCED_RETRY), id="forced open"),
        pytest.param(CIRCUITS[State.DISABLED], 0, Allow(), id="disabled"),
        pytest.param(CIRCUITS[State.METRICS_ONLY], 0, Allow(), id="metrics only"),
    ],
)
def test_i17_what_a_request_for_a_permit_is_answered(circuit: Circuit, at: int, decision: object) -> None:
    answer = decided(circuit, at=at)
    assert answer.decision == decision
    moves = circuit.state is State.OPEN and at >= 30
    assert (answer.transition is not None) == moves
    assert answer.circuit.generation == circuit.generation + moves
    assert needs_lock(circuit, START + at * SECOND) == (moves or circuit.state is State.HALF_OPEN)


def test_i17_no_more_probes_than_permits_and_one_more_when_one_expires() -> None:
    first, second = a_permit(1, until=10), a_permit(2, until=20)
    assert decided(HALF_OPEN, first, second, at=9).decision == Deny(SECOND)
    assert decided(HALF_OPEN, first, second, at=0).decision == Deny(5 * SECOND)
    assert decided(HALF_OPEN, first, second, at=10).decision == Probe(None)


def test_i17_the_same_holder_has_the_same_permit() -> None:
    mine, other = a_permit(1, run="run"), a_permit(2)
    assert decided(HALF_OPEN, other, mine).decision == Probe(mine)
    assert decided(HALF_OPEN, other, a_permit(3, run="run", generation=1)).decision == Probe(None)


def test_two_probes_that_succeed_close_it() -> None:
    first = applied(HALF_OPEN, Result.SUCCESS, has_permit=True).circuit
    assert (first.state, first.success_count) == (State.HALF_OPEN, 1)
    second = applied(first, Result.SUCCESS, has_permit=True, at=40)
    closed = second.circuit
    assert (closed.state, closed.generation, closed.failure_count) == (State.CLOSED, 3, 0)
    assert (closed.opened_at, closed.next_retry_at, closed.episode_id) == (None, None, EPISODE)
    assert second.transition is not None
    assert second.transition.cause is Cause.PROBES_SUCCEEDED


def test_a_probe_that_fails_opens_it_again_with_a_fresh_time_and_in_the_same_episode() -> None:
    reopened = applied(replace(HALF_OPEN, success_count=1), Result.FAILURE, has_permit=True, at=40)
    circuit = reopened.circuit
    assert (circuit.state, circuit.generation, circuit.success_count) == (State.OPEN, 3, 0)
    assert circuit.next_retry_at == START + 70 * SECOND
    assert circuit.episode_id == EPISODE


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.FAILURE])
def test_half_open_counts_only_probes(result: Result) -> None:
    assert applied(HALF_OPEN, result, has_permit=False).circuit == HALF_OPEN


@pytest.mark.parametrize("state", [State.OPEN, State.FORCED_OPEN, State.DISABLED])
@pytest.mark.parametrize("result", sorted(Result))
def test_states_that_count_nothing(state: State, result: Result) -> None:
    answer = applied(CIRCUITS[state], result, has_permit=True)
    assert (answer.circuit, answer.answer) == (CIRCUITS[state], Answer.IGNORED)


def test_a_shadow_counts_and_never_opens() -> None:
    shadow = failures(50, CIRCUITS[State.METRICS_ONLY])
    assert (shadow.state, shadow.failure_count, shadow.generation) == (State.METRICS_ONLY, 50, 4)
    assert applied(shadow, Result.SUCCESS).circuit.failure_count == 0


@pytest.mark.parametrize(("before", "after"), list(product(sorted(State), sorted(State))))
def test_which_state_may_follow_which(before: State, after: State) -> None:
    causes = {cause for cause in Cause if is_legal(before, after, cause)}
    expected = {BY_ITSELF[before, after]} if (before, after) in BY_ITSELF else set()
    if before in (State.OPEN, State.HALF_OPEN) and after is State.CLOSED:
        expected |= {Cause.FORGOTTEN}
    if before is not after and after in FORCED_STATES | {State.CLOSED}:
        expected |= {Cause.OPERATOR}
    assert causes == expected


def a_report(result: Result, report: str, *, generation: int = 0, permit: UUID | None = None) -> CallOutcome:
    return CallOutcome(KEY, result, generation, report, permit)


def test_i18_a_repeated_report_counts_once_within_a_batch_and_after_it() -> None:
    batch = [a_report(Result.FAILURE, name) for name in ("a", "b", "a", "c")]
    folded = fold_outcomes(CLOSED, (), batch, reported={"c"}, now=START, policy=POLICY, episode_id=EPISODE)
    assert folded.circuit.failure_count == 2
    assert folded.answers == [Answer.COUNTED, Answer.COUNTED, Answer.REPEATED, Answer.REPEATED]
    assert folded.remembered == ["a", "b"]


def test_what_comes_after_the_trip_in_the_same_batch_is_of_an_older_generation() -> None:
    batch = [a_report(Result.FAILURE, str(number)) for number in range(7)]
    folded = fold_outcomes(CLOSED, (), batch, reported=(), now=START, policy=POLICY, episode_id=EPISODE)
    assert (folded.circuit.state, folded.circuit.generation) == (State.OPEN, 1)
    assert folded.answers == [Answer.COUNTED] * 5 + [Answer.IGNORED] * 2
    assert [caused.by.run_id for caused in folded.caused] == [""]


def test_an_exclusion_gives_the_permit_back_and_the_next_probe_may_go() -> None:
    held = [a_permit(1), a_permit(2)]
    back = a_report(Result.EXCLUDED, "x", generation=2, permit=held[0].id)
    folded = fold_outcomes(HALF_OPEN, held, [back], reported=(), now=START, policy=POLICY, episode_id=EPISODE)
    assert (folded.circuit, folded.answers) == (HALF_OPEN, [Answer.IGNORED])
    assert folded.ended == [held[0].id]
    assert decided(folded.circuit, held[1]).decision == Probe(None)


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.FAILURE])
def test_i17_a_probe_that_outlasts_its_permit_counts_once(result: Result) -> None:
    expired = a_permit(1, until=10)
    late = [a_report(result, name, generation=2, permit=expired.id) for name in ("x", "x", "y")]
    folded = fold_outcomes(
        HALF_OPEN, [expired], late, reported=(), now=START + 10 * SECOND, policy=POLICY, episode_id=EPISODE
    )
    assert folded.answers == [Answer.COUNTED, Answer.REPEATED, Answer.IGNORED]
    assert folded.ended == [expired.id]
    expected = applied(HALF_OPEN, result, has_permit=True, at=10).circuit
    assert folded.circuit == expected != HALF_OPEN


def test_i18_an_expired_permit_of_an_earlier_half_open_counts_nothing() -> None:
    earlier = a_permit(1, generation=0, until=10)
    late = a_report(Result.FAILURE, "x", generation=2, permit=earlier.id)
    folded = fold_outcomes(
        HALF_OPEN, [earlier], [late], reported=(), now=START + 10 * SECOND, policy=POLICY, episode_id=EPISODE
    )
    assert (folded.circuit, folded.answers, folded.ended) == (HALF_OPEN, [Answer.IGNORED], [earlier.id])


def fold_asked(*runs: str, permits: list[Permit], at: int) -> FoldedPermits:
    asked = [PermitRequest(KEY, Holder(run, 1), 30 * SECOND) for run in runs]
    now = START + at * SECOND
    return fold_permits(HALF_OPEN, permits, asked, now=now, policy=POLICY, new_id=iter(map(UUID, IDS)).__next__)


def test_i17_an_expired_permit_is_kept_for_its_answer_and_is_in_nobodys_way() -> None:
    expired = [a_permit(1, until=10), a_permit(2, until=10)]
    folded = fold_asked("c", "d", permits=expired, at=10)
    assert [isinstance(answer.decision, Probe) for answer in folded.answers] == [True, True]
    assert folded.ended == []


def test_i17_a_holder_whose_permit_expired_gets_the_same_one_again_while_there_is_room() -> None:
    mine, other = a_permit(1, run="run", until=10), a_permit(2, until=20)
    folded = fold_asked("run", "run", permits=[mine, other], at=10)
    assert [answer.permit_id for answer in folded.answers] == [mine.id, mine.id]
    assert folded.granted == [replace(mine, expires_at=START + 40 * SECOND)]
    assert isinstance(fold_asked("run", permits=[mine, other, a_permit(3)], at=10).answers[0].decision, Deny)


def test_a_transition_ends_the_permits_of_before() -> None:
    held = [a_permit(1), a_permit(2)]
    failed = a_report(Result.FAILURE, "x", generation=2, permit=held[0].id)
    folded = fold_outcomes(HALF_OPEN, held, [failed], reported=(), now=START, policy=POLICY, episode_id=EPISODE)
    assert sorted(folded.ended) == sorted(permit.id for permit in held)


def test_a_batch_of_requests_gets_as_many_probes_as_there_are_permits() -> None:
    asked = [PermitRequest(KEY, Holder(f"run-{number}", 1), 10 * SECOND) for number in range(20)]
    ids = iter(UUID(int=number) for number in range(1000, 2000))
    folded = fold_permits(OPEN, (), [*asked, *asked], now=START + 30 * SECOND, policy=POLICY, new_id=lambda: next(ids))
    probes = [answer.permit_id for answer in folded.answers if isinstance(answer.decision, Probe)]
    assert len(probes) == 4
    assert len(set(probes)) == len(folded.granted) == 2
    assert [caused.transition.after for caused in folded.caused] == [State.HALF_OPEN]
