"""The decisions of the dead letter queue, case by case."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.dlq.model import (
    AnsweredRequest,
    Event,
    Intent,
    IntentState,
    Letter,
    NewId,
    Operator,
    Quarantined,
    Resolution,
    ResolveCommand,
    Resolved,
    operator_of,
)
from services.dlq.planning import KnownLetter, OpenIntent, keys_of, plan_batch, requeues_before, verdict_on
from services.dlq.rulings import check_requeues, decide_request
from valkyr.errors import DeadLetterNotFound, DeadLetterResolved, RequestIdReused, TooManyRequeues

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = Operator("alice")


@pytest.fixture
def new_id() -> NewId:
    numbers = itertools.count(1)
    return lambda: f"new-{next(numbers)}"


def quarantined(run: str = "r", number: int = 1, namespace: str = "n") -> Quarantined:
    return Quarantined(namespace, run, "e", number)


def resolved(
    run: str = "r", number: int = 1, resolution: Resolution = Resolution.FIXED, by: str = "alice", reason: str = ""
) -> Resolved:
    return Resolved("n", run, "e", number, resolution, by, reason)


def known(run: str = "r", number: int = 1, resolution: Resolution = Resolution.PENDING, **fields: Any) -> KnownLetter:
    return KnownLetter(("n", run, number), f"{run}{number}", resolution, **fields)


def test_a_repeat_in_or_across_batches_changes_nothing(new_id: NewId) -> None:
    batch = plan_batch([quarantined(), quarantined()], [], [], new_id=new_id)
    assert [letter.id for letter in batch.letters] == ["new-1"]
    again = plan_batch([quarantined()], [known()], [], new_id=new_id)
    assert not again.letters
    settled = known(resolution=Resolution.FIXED)
    assert not plan_batch([resolved()], [settled], [], new_id=new_id).settled
    early = plan_batch([resolved(), resolved()], [], [], new_id=new_id)
    assert len(early.early) == 1
    assert not plan_batch([resolved()], [], [resolved()], new_id=new_id).early


def test_a_resolution_meets_its_letter_in_any_order(new_id: NewId) -> None:
    cases: list[tuple[list[Event], list[Resolved]]] = [
        ([quarantined(), resolved()], []),
        ([resolved(), quarantined()], []),
        ([quarantined()], [resolved()]),
    ]
    for events, early in cases:
        batch = plan_batch(events, [], early, new_id=new_id)
        assert [letter.resolved for letter in batch.letters] == [resolved()]
        assert not batch.early
        assert batch.met == [one.key for one in early]
    batch = plan_batch([resolved()], [known()], [], new_id=new_id)
    assert [(one.letter.id, one.resolved.resolution) for one in batch.settled] == [("r1", Resolution.FIXED)]


def test_the_first_resolution_stands_and_a_contradiction_is_reported(new_id: NewId) -> None:
    other = resolved(resolution=Resolution.DISCARDED)
    cases: list[tuple[list[Event], list[KnownLetter], list[Resolved]]] = [
        ([quarantined(), resolved(), other], [], []),
        ([resolved(), other], [known()], []),
        ([other], [known(resolution=Resolution.FIXED)], []),
        ([resolved(), other], [], []),
        ([other], [], [resolved()]),
    ]
    for events, letters, early in cases:
        batch = plan_batch(events, letters, early, new_id=new_id)
        assert batch.contradicted == [other]
        assert other not in [one.resolved for one in batch.settled]
        assert other not in batch.early


def test_letters_are_linked_within_their_run_only(new_id: NewId) -> None:
    events = [quarantined(number=3), quarantined("other"), quarantined(number=2, namespace="m")]
    batch = plan_batch(events, [known(number=1), known(number=4)], [], new_id=new_id)
    assert [letter.previous_id for letter in batch.letters] == ["r1", None, None]
    assert [(letter.id, previous) for letter, previous in batch.relinked] == [("r4", "new-1")]


def test_runs_are_named_once_and_in_order() -> None:
    assert keys_of([quarantined("b"), quarantined("a"), resolved("b", 2)]) == [("n", "a"), ("n", "b")]


@pytest.mark.parametrize(
    ("happened", "verdict"),
    [
        (resolved(reason="why"), IntentState.DONE),
        (resolved(reason="otherwise"), IntentState.OPEN),
        (resolved(by="bob", reason="why"), IntentState.LOST),
        (resolved(resolution=Resolution.DISCARDED, reason="why"), IntentState.LOST),
    ],
    ids=["the-same", "another-reason", "somebody-else", "something-else"],
)
def test_i22_whether_it_was_the_intents_doing(happened: Resolved, verdict: IntentState) -> None:
    assert verdict_on(OpenIntent("i", Resolution.FIXED, "alice", "why"), happened) is verdict
    assert verdict_on(None, happened) is None


def test_the_nth_quarantine_follows_n_minus_one_requeues() -> None:
    assert [requeues_before(number) for number in (1, 2, 6)] == [0, 1, 5]


def test_a_principal_that_is_a_uuid_is_an_id_too() -> None:
    spelled = "{0198C5A2-7E1C-7F3A-9D52-0C4B7A1E6F80}"
    assert operator_of(spelled).principal_id == "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
    assert operator_of("alice").principal_id is None


LETTER = Letter(
    namespace="n",
    id="l",
    run_id="r",
    execution_id="e",
    quarantine_number=1,
    task_id=None,
    node_id="a",
    workflow_id=None,
    version=1,
    class_name="",
    failure_type="TIMEOUT",
    failure_reason="",
    error_type="",
    attempts="[]",
    target="",
    episode_id="",
    traceparent="",
    trace_id="",
    quarantined_at=NOW,
    idempotency_key="",
    resolution=Resolution.PENDING,
    requeue_count=0,
)
FIXED = replace(LETTER, resolution=Resolution.FIXED, resolved_by="bob", resolved_at=NOW)
COMMAND = ResolveCommand("n", "l", Resolution.FIXED, "{}", "why", b"hash", ALICE)
INTENT = Intent(
    namespace="n",
    id="i",
    letter_id="l",
    resolution=Resolution.FIXED,
    state=IntentState.OPEN,
    content="{}",
    reason="why",
    request_hash=b"hash",
    operator=ALICE,
    requested_at=NOW,
    run_id="r",
    execution_id="e",
    quarantine_number=1,
    letter_traceparent="",
    target="",
)
NAMED = replace(COMMAND, request_id="q")


def answered(state: IntentState) -> AnsweredRequest:
    return AnsweredRequest(b"hash", replace(INTENT, state=state))


DECISIONS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "new": ((COMMAND, LETTER, None, None), None),
    "repeated-and-open": ((NAMED, LETTER, answered(IntentState.OPEN), INTENT), INTENT),
    "repeated-and-open-though-resolved": ((NAMED, FIXED, answered(IntentState.OPEN), None), INTENT),
    "repeated-and-done": ((NAMED, FIXED, answered(IntentState.DONE), None), FIXED),
    "the-same-unnamed": ((COMMAND, LETTER, None, INTENT), INTENT),
}


@pytest.mark.parametrize(("arguments", "decision"), DECISIONS.values(), ids=DECISIONS.keys())
def test_what_a_request_leads_to(arguments: tuple[Any, ...], decision: Any) -> None:
    assert decide_request(*arguments) == decision


REFUSED: dict[str, tuple[tuple[Any, ...], Callable[..., Any]]] = {
    "another-body": ((replace(NAMED, request_hash=b"x"), FIXED, answered(IntentState.DONE), None), RequestIdReused),
    "unknown": ((COMMAND, None, None, None), DeadLetterNotFound),
    "resolved": ((COMMAND, FIXED, None, None), DeadLetterResolved),
    "lost": ((NAMED, FIXED, answered(IntentState.LOST), None), DeadLetterResolved),
    "in-flight-by-another": ((replace(COMMAND, operator=Operator("bob")), LETTER, None, INTENT), DeadLetterResolved),
    "in-flight-with-another-body": ((replace(COMMAND, request_hash=b"x"), LETTER, None, INTENT), DeadLetterResolved),
    "in-flight-under-another-name": ((NAMED, LETTER, None, INTENT), DeadLetterResolved),
}


@pytest.mark.parametrize(("arguments", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_request_is_refused_with(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        decide_request(*arguments)


@pytest.mark.parametrize(
    ("count", "command", "refused"),
    [
        (4, replace(COMMAND, resolution=Resolution.REQUEUED), False),
        (5, replace(COMMAND, resolution=Resolution.REQUEUED), True),
        (5, replace(COMMAND, resolution=Resolution.REQUEUED, force=True), False),
        (5, COMMAND, False),
    ],
    ids=["below", "at-the-limit", "by-force", "a-fix"],
)
def test_only_requeues_are_counted(count: int, command: ResolveCommand, refused: bool) -> None:
    letter = replace(LETTER, requeue_count=count)
    if refused:
        with pytest.raises(TooManyRequeues):
            check_requeues(command, letter, 5)
    else:
        check_requeues(command, letter, 5)


def test_the_executor_is_asked_under_one_request_id_for_every_try() -> None:
    assert INTENT.request_id == replace(INTENT, id="j", tries=7).request_id == "l:FIXED"
