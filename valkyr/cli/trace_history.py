"""What happened to one run beside the attempts themselves: waits, parking, quarantines and what settled them.

From stored times only. What another service knows or did is said with its name in brackets; the rest is the executor's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from valkyr.cli.printing import moment, seconds
from valkyr.client import Attempt, Breaker, BreakerState, DeadLetter, Quarantine, Run, RunState

_FAR = datetime.max.replace(tzinfo=UTC)
_WAITS = {
    "TRANSIENT": "back-off",
    "RATE_LIMITED": "back-off",
    "TIMEOUT": "back-off",
    "RUNNER_LOST": "back-off",
    "SNOOZED": "snoozed",
}
SHORTEST_WAIT = timedelta(milliseconds=1)

Letters = Mapping[tuple[str, int], DeadLetter]
"""By run and quarantine number."""


@dataclass(frozen=True, slots=True)
class Event:
    """A line below a run. `took` is None where it has no length or has not ended; `service` where not the executor."""

    label: str
    at: datetime | None
    took: timedelta | None
    said: str
    service: str = ""


def history_of(
    run: Run, *, letters: Letters, breakers: Mapping[str, Breaker], letters_known: bool = True
) -> Sequence[Event]:
    """All of it in the order of time; nothing for a run that went through at its first attempt, or is not that far."""
    is_tried_again = len(run.attempts) > 1 or (run.attempts and run.state is RunState.READY)
    if not is_tried_again and not run.quarantines and not _was_parked(run) and run.reused_from is None:
        return ()
    return timeline_of(run, letters=letters, breakers=breakers, letters_known=letters_known)


def timeline_of(
    run: Run, *, letters: Letters, breakers: Mapping[str, Breaker], letters_known: bool = True
) -> Sequence[Event]:
    """As `history_of`, of any run: its attempts at least."""
    parked = _parked_span(run)
    events = [
        *_waits(run, parked),
        *_parking(run, parked, breakers.get(run.target)),
        *(event for number in run.quarantines for event in _quarantine(run, number, letters, known=letters_known)),
        *(_attempt(attempt) for attempt in run.attempts),
        *_reuse(run),
    ]
    return sorted(events, key=lambda event: event.at or _FAR)


def _attempt(attempt: Attempt) -> Event:
    took = None
    if attempt.started_at is not None and attempt.finished_at is not None:
        took = attempt.finished_at - attempt.started_at
    return Event(f"attempt {attempt.attempt}", attempt.started_at, took, _both(attempt.outcome, attempt.error))


def _reuse(run: Run) -> Iterator[Event]:
    if run.reused_from is not None:
        said = f"the success of run {run.reused_from.run_id} of execution {run.reused_from.execution_id}"
        yield Event("reused", run.finished_at, None, said)


@dataclass(frozen=True, slots=True)
class _Span:
    start: datetime
    end: datetime


def _gaps(run: Run) -> Iterator[tuple[Attempt, Attempt, _Span]]:
    """Between two attempts; behind a quarantine from when it was settled."""
    for before, after in pairwise(run.attempts):
        if before.finished_at is None or after.started_at is None:
            continue
        start, end = before.finished_at, after.started_at
        for quarantine in run.quarantines:
            if start <= (quarantine.quarantined_at or _FAR) <= end:
                start = min(quarantine.resolved_at or end, end)
        yield before, after, _Span(start, end)


def _parked_span(run: Run) -> _Span | None:
    """Where a run that is not PARKED any more was: only how long is stored, and it ended with an attempt's beginning.

    None where it was never, or more than once, so that it fits nowhere.
    """
    if run.state is RunState.PARKED or not run.parked_duration or not run.attempts:
        return None
    gaps = [gap for _, _, gap in _gaps(run)]
    longest = max(gaps, key=lambda gap: gap.end - gap.start, default=None)
    if longest is not None and longest.end - longest.start >= run.parked_duration:
        return _Span(longest.end - run.parked_duration, longest.end)
    first = run.attempts[0].started_at
    between = sum((gap.end - gap.start for gap in gaps), timedelta())
    if first is None or run.parked_duration <= between:
        return None
    # More than all waits between its attempts: before the first of them.
    return _Span(first - run.parked_duration, first)


def _waits(run: Run, parked: _Span | None) -> Iterator[Event]:
    """Between a failed attempt and the next; what is known better (parking, a quarantine) is told there."""
    for before, after, gap in _gaps(run):
        label = _WAITS.get(before.outcome)
        if label is None or gap.start != before.finished_at:
            continue
        end = parked.start if parked is not None and parked.end == gap.end else gap.end
        scattered = parked is None and run.parked_duration > timedelta(0)
        if end - gap.start >= SHORTEST_WAIT:
            then = f"then attempt {after.attempt}{' (parked for a part of it)' if scattered else ''}"
            yield Event("waits" if scattered else label, gap.start, end - gap.start, then)
    last = run.attempts[-1] if run.attempts else None
    if last is not None and last.finished_at and run.state is RunState.READY and run.retry_after:
        label = _WAITS.get(last.outcome, "waits")
        yield Event(label, last.finished_at, None, f"not before {moment(run.retry_after)}")


def _was_parked(run: Run) -> bool:
    return run.parked_at is not None or run.parked_duration > timedelta(0)


def _parking(run: Run, span: _Span | None, breaker: Breaker | None) -> Iterator[Event]:
    if not _was_parked(run):
        return
    waits = run.state is RunState.PARKED
    if waits and run.parked_by and run.parked_by != "BREAKER":
        yield Event("parked", run.parked_at, None, "its execution is paused")
        return
    before = f", {seconds(run.parked_duration.total_seconds())} before that" if run.parked_duration else ""
    what = f"still waits{before}" if waits else "waited" if span else "waited in all"
    at = run.parked_at if waits else span.start if span else None
    took = None if waits else run.parked_duration
    if not waits and not run.episode_id:
        held = f", or {run.target} was not to be called" if run.target else ""
        yield Event("parked", at, took, f"{what}: its execution was paused{held}")
        return
    outage = f", outage {run.episode_id}" if run.episode_id else ""
    yield Event("parked", at, took, f"{what} for {run.target}{outage}{_state_now(breaker)}", "breaker")
    if breaker is not None and breaker.opened_at is not None and breaker.episode_id == run.episode_id:
        again = run.parked_at is not None and breaker.opened_at > run.parked_at
        what = f"again, as a probe of {run.target} had failed" if again else f"{run.target} was called no more"
        yield Event("opened", breaker.opened_at, None, what, "breaker")


def _state_now(breaker: Breaker | None) -> str:
    if breaker is None:
        return ""
    probe = f", the next probe {moment(breaker.next_retry_at)}" if breaker.state is BreakerState.OPEN else ""
    return f"; it is {breaker.state} now{probe}"


def _quarantine(run: Run, quarantine: Quarantine, letters: Letters, *, known: bool) -> Iterator[Event]:
    number = quarantine.quarantine_number
    letter = letters.get((run.id, number))
    why = ": ".join(part for part in (quarantine.error_type, quarantine.error) if part)
    yield Event(f"quarantine {number}", quarantine.quarantined_at, None, _both(quarantine.failure_type, why))
    if letter is not None:
        settled = quarantine.resolution not in ("", "PENDING")
        waits = (", not told of its end yet" if settled else ", waits for somebody") if letter.pending else ""
        yield Event("letter", letter.quarantined_at or quarantine.quarantined_at, None, f"{letter.id}{waits}", "dlq")
    elif known:
        yield Event("letter", quarantine.quarantined_at, None, "not arrived yet", "dlq")
    if quarantine.resolution not in ("", "PENDING"):
        yield _resolution(run, quarantine, letter)


def _resolution(run: Run, quarantine: Quarantine, letter: DeadLetter | None) -> Event:
    """At the latest when the attempt that it caused began: both are written in one transaction."""
    later = [attempt.started_at for attempt in run.attempts if attempt.started_at]
    caused = min((when for when in later if when >= (quarantine.quarantined_at or _FAR)), default=_FAR)
    at = min(quarantine.resolved_at or _FAR, caused)
    after = ""
    if quarantine.resolved_at is not None and quarantine.quarantined_at is not None:
        after = f" after {seconds((quarantine.resolved_at - quarantine.quarantined_at).total_seconds())}"
    why = f": {quarantine.reason}" if quarantine.reason else ""
    linked = f"; its own, linked trace is {quarantine.resolution_trace_id}" if quarantine.resolution_trace_id else ""
    said = f"by {quarantine.resolved_by or '-'}{after}{why}{linked}"
    through_dlq = letter is not None and letter.resolved_here
    return Event(quarantine.resolution.lower(), None if at is _FAR else at, None, said, "dlq" if through_dlq else "")


def _both(what: str, detail: str) -> str:
    return f"{what}  {detail}" if detail else what
