"""The checks of histories see what they are for: each is shown a history with one fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.breaker.model.policy import Policy
from tests.builders import a_graph
from tests.chaos.ledger import late_leases, permit_problems, too_many_probes, transition_problems
from tests.run_history import Event, leases_ended_early, leases_without_success, violations
from valkyr.flow.ids import run_id

EXECUTION = UUID("01920000-0000-7000-8000-00000000e000")
GRAPH = a_graph("a -> b")
START = datetime(2026, 1, 1, tzinfo=UTC)
BREAKER = uuid4()
POLICY = Policy(timeout_duration=timedelta(seconds=1))


def history(*steps: str) -> list[Event]:
    """`"a READY"`, `"a LEASED 1 1"`: node, state, epoch, attempt, failures, lost leases; what is not said stays."""
    last: dict[str, Event] = {}
    events = []
    for n, step in enumerate(steps, 1):
        node, state, *said = step.split()
        before = last.get(node)
        kept = (before.epoch, before.attempt, before.failures, before.lost_leases) if before else (0, 0, 0, 0)
        epoch, attempt, failures, lost = (*(int(number) for number in said), *kept[len(said) :])
        was = before.state if before else None
        run = run_id(EXECUTION, "ab".index(node))
        event = Event(n, EXECUTION, run, was, state, epoch, attempt, lost, 0, str(n), failures, 0, None, None, START)
        events.append(event)
        last[node] = event
    return events


A_GOOD_ONE = ("a READY", "b PENDING", "a LEASED 1 1", "a SUCCESS", "b LEASED 1 1", "b SUCCESS")
RETRIED = ("a READY", "b PENDING", "a LEASED 1 1", "a READY 1 1 1", "a LEASED 2 2", "a SUCCESS", "b SKIPPED")
PAUSED = (
    "a READY",
    "b PENDING",
    "a LEASED 1 1",
    "a PARKED 2 1 0 1",
    "a READY",
    "a LEASED 3 2",
    "a SUCCESS",
    "b SKIPPED",
)
LOST = ("a READY", "b PENDING", "a LEASED 1 1", "a READY 2 1 0 1", "a LEASED 3 2", "a SUCCESS", "b SKIPPED")
FAILED = ("a READY", "b PENDING", "a LEASED 1 1", "a QUARANTINED 1 1 1")
REQUEUED = (*FAILED, "a READY 1 1 0", "a LEASED 2 2", "a SUCCESS", "b LEASED 1 1", "b SUCCESS")


@pytest.mark.parametrize(
    "steps",
    [A_GOOD_ONE, RETRIED, PAUSED, LOST, FAILED, REQUEUED],
    ids=["good", "retried", "paused", "lost", "failed", "requeued"],
)
def test_a_history_as_it_should_be_is_passed(steps: Sequence[str]) -> None:
    assert violations(history(*steps), str(EXECUTION), GRAPH) == []


def test_what_one_transaction_writes_may_come_in_any_order() -> None:
    events = history(*A_GOOD_ONE[:3], "b LEASED 1 1", "a SUCCESS", "b SUCCESS")
    at_once = [replace(event, tx="one") if event.n in (4, 5) else event for event in events]
    assert violations(at_once, str(EXECUTION), GRAPH) == []


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (A_GOOD_ONE[:4], "b: C1: never settled"),
        (("a READY",), "b: C1: no such run"),
        ((*A_GOOD_ONE, "a SUCCESS"), "a: C2: 2 terminal transitions"),
        ((*A_GOOD_ONE, "a LEASED 2 2"), "a: C2: 1 terminal transitions, the last event is LEASED"),
        (("a READY", "b PENDING", "a LEASED 0 1", "a SUCCESS", "b SKIPPED"), "a: C3: the epoch went from 0 to 0"),
        ((*LOST[:3], "a READY 1 1 0 1", "a LEASED 2 2", *LOST[5:]), "a: C3: the epoch went from 1 to 1"),
        ((*RETRIED[:3], "a READY 2 1 1", "a LEASED 3 2", *RETRIED[5:]), "a: C3: the epoch went from 1 to 2"),
        (("a READY", "b PENDING", "a LEASED 1 1", "a LEASED 2 2", "a SUCCESS", "b SKIPPED"), "a: C4: leased while"),
        ((*A_GOOD_ONE[:3], "a SUCCESS 1 1 1", *A_GOOD_ONE[4:]), "a: C5: a success was counted as a failure"),
        ((*A_GOOD_ONE[:2], "a LEASED 1 2", *A_GOOD_ONE[3:]), "a: C5: 1 leases, and 2 attempts"),
        ((*RETRIED[:3], "a READY 2 1 1 1", "a LEASED 3 2", *RETRIED[5:]), "a: C5: LEASED -> READY counted 1 failures"),
        ((*RETRIED[:3], "a READY 1 1 3", "a LEASED 2 2", *RETRIED[5:]), "a: C5: tried again although"),
        ((*A_GOOD_ONE[:3], "b LEASED 1 1", "a SUCCESS", "b SUCCESS"), "C8: b left PENDING before a had ended"),
        ((*LOST[:4], "a SUCCESS", "b SKIPPED"), "a: C2: it went from READY to SUCCESS"),
        ((*A_GOOD_ONE[:4], "b READY", "b PENDING", "b SKIPPED"), "b: C8: left PENDING more than once"),
    ],
)
def test_a_history_with_a_fault_is_not(steps: Sequence[str], said: str) -> None:
    assert any(problem.startswith(said) for problem in violations(history(*steps), str(EXECUTION), GRAPH))


def test_leases_that_ended_without_success_are_counted() -> None:
    assert leases_ended_early(history(*LOST)).total() == 1
    assert leases_ended_early(history(*RETRIED)).total() == 0
    assert [leases_without_success(history(*steps)) for steps in (LOST, RETRIED, FAILED, A_GOOD_ONE)] == [1, 1, 1, 0]


def transition(generation: int, before: str, after: str, cause: str, at: float) -> dict[str, Any]:
    when = START + timedelta(seconds=at)
    row = {"breaker_id": BREAKER, "target": "t", "from_state": before, "to_state": after, "cause": cause}
    return {**row, "generation": generation, "at": when, "created_date": when}


OPENED = transition(1, "CLOSED", "OPEN", "FAILURES", 0)
HALF_OPENED = transition(2, "OPEN", "HALF_OPEN", "RETRY_TIME", 1)
REOPENED = transition(3, "HALF_OPEN", "OPEN", "PROBE_FAILED", 1.5)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ([OPENED, HALF_OPENED, REOPENED], ""),
        ([OPENED, transition(2, "OPEN", "CLOSED", "PROBES_SUCCEEDED", 1)], "OPEN -> CLOSED because"),
        ([OPENED, transition(2, "OPEN", "HALF_OPEN", "RETRY_TIME", 0.9)], "HALF_OPEN 0:00:00.900000 after"),
        ([OPENED, transition(3, "OPEN", "HALF_OPEN", "RETRY_TIME", 1)], "generation 3 is transition 2"),
        ([OPENED, transition(2, "HALF_OPEN", "OPEN", "PROBE_FAILED", 1)], "OPEN, then from HALF_OPEN"),
        ([transition(1, "OPEN", "HALF_OPEN", "RETRY_TIME", 1)], "its first transition is from OPEN"),
    ],
    ids=["legal", "skips half open", "too early", "skips a generation", "another state", "no beginning"],
)
def test_a_log_of_transitions_is_replayed(log: list[dict[str, Any]], said: str) -> None:
    problems = list(transition_problems(log, POLICY))
    assert any(said in problem for problem in problems) if said else problems == []


def permit(op: str, number: int, at: float, *, generation: int = 2) -> dict[str, Any]:
    when = START + timedelta(seconds=at)
    expires = START + timedelta(seconds=10)
    key = {"breaker_id": BREAKER, "generation": generation, "id": number}
    return {**key, "op": op, "at": when, "expires_at": expires}


@pytest.mark.parametrize(
    ("permits", "said"),
    [
        ([permit("INSERT", 1, 1), permit("INSERT", 2, 1), permit("DELETE", 1, 2), permit("INSERT", 3, 2)], ""),
        ([permit("INSERT", 1, 1), permit("INSERT", 2, 1), permit("INSERT", 3, 11)], ""),
        ([permit("INSERT", 1, 1), permit("INSERT", 2, 1), permit("INSERT", 3, 2)], "I17: 3 permits in flight"),
        ([permit("INSERT", 1, 1, generation=1)], "C12: a permit of generation 1"),
    ],
    ids=["given back", "expired", "too many", "not half open"],
)
def test_permits_in_flight_are_counted(permits: list[dict[str, Any]], said: str) -> None:
    problems = list(permit_problems(permits, [OPENED, HALF_OPENED], 2))
    assert any(said in problem for problem in problems) if said else problems == []


def lease(at: float, permit_id: UUID | None = None, run: UUID = EXECUTION) -> Event:
    when = START + timedelta(seconds=at)
    return Event(1, EXECUTION, run, "READY", "LEASED", 1, 1, 0, 0, "1", 0, 0, "t", permit_id, when)


@pytest.mark.parametrize(
    ("event", "is_late"),
    [
        (lease(-1), False),
        (lease(0.9), False),
        (lease(1.2), True),
        (lease(1.2, uuid4()), False),
        (lease(2.4, uuid4()), False),
        (lease(2.6, uuid4()), True),
    ],
    ids=["before", "within a second", "later", "a probe", "a probe that crossed", "a probe while open"],
)
def test_a_lease_of_an_open_target_is_late(event: Event, is_late: bool) -> None:
    assert bool(list(late_leases([event], [OPENED, HALF_OPENED, REOPENED]))) == is_late


def test_probes_of_one_generation_are_counted() -> None:
    ids = [uuid4() for _ in range(3)]
    leases = [lease(1.1, permit_id, uuid4()) for permit_id in ids]
    assert list(too_many_probes(leases, dict.fromkeys(ids, 2), 2)) != []
    assert list(too_many_probes(leases, {ids[0]: 2, ids[1]: 2, ids[2]: 4}, 2)) == []
