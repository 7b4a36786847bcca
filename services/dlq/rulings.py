"""Who may resolve a letter, and what the others are told. Pure."""

from __future__ import annotations

from datetime import datetime

from services.dlq.model import AnsweredRequest, Intent, IntentState, Letter, Resolution, ResolveCommand
from valkyr.errors import DeadLetterNotFound, DeadLetterResolved, InvalidRequest, RequestIdReused, TooManyRequeues


def decide_request(
    command: ResolveCommand, letter: Letter | None, answered: AnsweredRequest | None, current: Intent | None
) -> Letter | Intent | None:
    """What a resolution that is asked for leads to: the first answer, an intent to be carried out again, or None for a
    new intent. `answered` is the same request id's, `current` the letter's open intent.

    RequestIdReused, DeadLetterNotFound, DeadLetterResolved.
    """
    if answered is not None and answered.request_hash != command.request_hash:
        raise RequestIdReused(
            f"request_id {command.request_id!r} was used before, with another request",
            hint="make a new request_id for every resolution; repeat one only with the same body",
        )
    if letter is None:
        raise DeadLetterNotFound(
            f"there is no dead letter {command.letter_id} in this namespace", hint="ListDeadLetters lists what there is"
        )
    if answered is not None and answered.intent.state is IntentState.OPEN:
        return answered.intent
    if answered is not None and answered.intent.state is IntentState.DONE:
        return letter
    if letter.resolution is not Resolution.PENDING:
        raise dead_letter_resolved(letter)
    if current is None:
        return None
    if not command.request_id and _is_the_same(command, current):
        return current
    raise resolution_in_flight(current)


def check_requeues(command: ResolveCommand, letter: Letter, max_requeues: int) -> None:
    """TooManyRequeues where only `force` requeues once more."""
    if command.resolution is not Resolution.REQUEUED or command.force or letter.requeue_count < max_requeues:
        return
    raise TooManyRequeues(
        f"the run was requeued {letter.requeue_count} times already, and dlq.max-requeues is {max_requeues}",
        hint="find out why it keeps failing; `force` requeues it once more, FixDeadLetter supplies its outputs",
        metadata={"requeueCount": str(letter.requeue_count), "maxRequeues": str(max_requeues)},
    )


def check_deadline(deadline: datetime | None, now: datetime) -> None:
    """InvalidRequest for a time that has passed; the executor would refuse it later, when nobody waits any more."""
    if deadline is not None and deadline <= now:
        raise InvalidRequest.of_field("deadline", f"{deadline.isoformat()} has passed; takes a time to come")


def dead_letter_resolved(letter: Letter) -> DeadLetterResolved:
    """What a loser is told."""
    when = letter.resolved_at.isoformat() if letter.resolved_at else ""
    return DeadLetterResolved(
        f"dead letter {letter.id} was {letter.resolution} by {letter.resolved_by or 'somebody'} at {when or '?'}",
        hint="read the letter; a run that failed again has a letter of its own",
        metadata={"resolution": str(letter.resolution), "resolvedBy": letter.resolved_by, "resolvedTime": when},
    )


def resolution_in_flight(intent: Intent) -> DeadLetterResolved:
    """What is told to whoever comes while another's resolution is being carried out."""
    when = intent.requested_at.isoformat()
    return DeadLetterResolved(
        f"{intent.operator.principal} asked for dead letter {intent.letter_id} to be {intent.resolution} at {when};"
        " the executor's answer is outstanding",
        hint="read the letter again: if the executor refuses, it is open to others",
        metadata={
            "resolution": str(intent.resolution),
            "resolvedBy": intent.operator.principal,
            "resolvedTime": when,
            "outstanding": "true",
        },
    )


def _is_the_same(command: ResolveCommand, intent: Intent) -> bool:
    return intent.request_hash == command.request_hash and intent.operator.principal == command.operator.principal
