"""How a dead letter reads in the middle of the night: what, why, when, with what - and then what can be done."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.text import Text

from valkyr.cli.blocks import STACK_LINES, print_fact, print_json, print_stack_trace
from valkyr.cli.printing import Printer, moment, seconds, state_text
from valkyr.client import Attempt, DeadLetter, Execution, ExecutionState


def print_letter(
    printer: Printer, letter: DeadLetter, *, namespace: str = "", ended: str = "", stack_lines: int = STACK_LINES
) -> None:
    """The whole letter; `namespace` is named in the commands where the command line named it, `ended` says why its
    execution cannot go on, if so."""
    print_fact(printer, "letter", f"{letter.id}  ", state_text(letter.resolution))
    for label, text in _facts(letter):
        print_fact(printer, label, text)
    _print_attempts(printer, letter, stack_lines)
    print_json(printer, "inputs", letter.original_inputs)
    print_json(printer, "config", letter.original_config)
    for line in what_to_do(letter, namespace=namespace, ended=ended):
        printer.line(line)


def why_it_cannot_go_on(execution: Execution) -> str:
    """What ended the execution, so that nothing of it runs again; empty where a requeue or a fix lets it go on."""
    if execution.cancel_requested or execution.state is ExecutionState.CANCELLED:
        who = f" by {execution.cancelled_by}" if execution.cancelled_by else ""
        return f"its execution was cancelled{who}"
    if execution.state is not ExecutionState.FAILED:
        return ""
    if execution.deadline and execution.finished_at and execution.finished_at >= execution.deadline:
        return f"its execution was ended by its deadline, {moment(execution.deadline)}"
    return "its execution failed fast" if execution.run_counts.get("CANCELLED") else ""


def what_to_do(letter: DeadLetter, *, namespace: str = "", ended: str = "") -> list[str | Text]:
    """The commands that would settle it, each with when to take it; who did, where it is settled."""
    if not letter.pending:
        why = f": {letter.resolution_reason}" if letter.resolution_reason else ""
        who = letter.resolved_by or "somebody"
        return [
            "",
            f"{letter.resolution} by {who} at {moment(letter.resolved_at)}{why}",
            f"  `valkyr trace {letter.execution_id}` shows what became of it",
        ]
    more = f" --namespace {shlex.quote(namespace)}" if namespace else ""
    lines: list[str | Text] = ["", Text("what you can do", "bold")]
    if letter.requested_resolution is not None:
        lines.append(f"  {letter.requested_resolution} was asked for, and the executor has not answered yet; ask again")
    if ended:
        lines.append(f"  {ended}: it can be neither requeued nor fixed; start the workflow anew instead")
    go_on = (
        ("the cause is gone, do it again:", [f"requeue {letter.id}{more} --reason TEXT"]),
        (
            "its inputs were wrong, mend them and do it again:",
            [f"get {letter.id}{more} --inputs > inputs.json", f"requeue {letter.id}{more} --inputs @inputs.json"],
        ),
        ("it was done by hand, go on with this answer:", [f"fix {letter.id}{more} --outputs JSON --reason TEXT"]),
    )
    give_up = ("give it up:", [f"discard {letter.id}{more} --reason TEXT"])
    for when, commands in (*(() if ended else go_on), give_up):
        lines.append(f"  {when}")
        lines.extend(Text(f"    valkyr dlq {command}", "cyan") for command in commands)
    return lines


def _facts(letter: DeadLetter) -> Iterator[tuple[str, str]]:
    yield "what", f"{letter.node_id} ({letter.class_name}), {_what_happened(letter)}"
    yield "why", f"{letter.error_type}: {letter.failure_reason}" if letter.error_type else letter.failure_reason
    yield "when", f"{moment(letter.quarantined_at)}{_ago(letter.quarantined_at)}"
    if letter.target:
        yield "target", f"{letter.target}; `valkyr breaker get {shlex.quote(letter.target)}` says whether it is back"
    if letter.episode_id:
        yield "outage", letter.episode_id
    yield "workflow", f"{letter.workflow_id} version {letter.version}"
    yield "execution", letter.execution_id
    again = f", requeued {_times(letter.requeue_count)} before" if letter.requeue_count else ""
    yield "run", f"{letter.run_id}, quarantine {letter.quarantine_number}{again}"
    if letter.previous_id:
        yield "before", f"letter {letter.previous_id}"
    yield "key", f"{letter.idempotency_key or '-'} (idempotency key that the target was given)"
    yield "trace", f"{letter.trace_id or '-'}; `valkyr trace {letter.execution_id}` shows it"
    if letter.refused is not None:
        refused = letter.refused
        asked = f"{refused.resolution}, asked for by {refused.requested_by or '-'}"
        yield "refused", f"{asked}, at {moment(refused.refused_at)}: {refused.problem}"
    if letter.reviewed_by or letter.notes:
        yield "review", f"{letter.reviewed_by or '-'}: {letter.notes}"


def _what_happened(letter: DeadLetter) -> str:
    attempts = _times(len(letter.attempts))
    match letter.failure_type:
        case "MAX_RETRIES":
            return f"failed {attempts}, its last attempt included (MAX_RETRIES)"
        case "PERMANENT_ERROR":
            return "failed in a way that no retry mends (PERMANENT_ERROR)"
        case "RUNNER_LOST":
            return "lost its runner too often (RUNNER_LOST)"
        case "TIMEOUT":
            return "ran out of time (TIMEOUT)"
        case "CIRCUIT_BREAKER":
            return "its deadline passed while the breaker of its target held it back (CIRCUIT_BREAKER)"
        case other:
            return f"failed for good ({other or '-'})"


def _print_attempts(printer: Printer, letter: DeadLetter, stack_lines: int) -> None:
    printer.line(Text("attempts", "bold"), "" if letter.attempts else "  none: it never began")
    for attempt in letter.attempts:
        printer.line(
            f"  {attempt.attempt:>3}  {_clock(attempt)}  {_took(attempt):>8}  {attempt.outcome}  {attempt.error}"
        )
    stack_trace = next((attempt.stack_trace for attempt in reversed(letter.attempts) if attempt.stack_trace), "")
    print_stack_trace(printer, stack_trace, limit=stack_lines)


def _clock(attempt: Attempt) -> str:
    return moment(attempt.started_at) if attempt.started_at else "-".ljust(19)


def _took(attempt: Attempt) -> str:
    if attempt.started_at is None or attempt.finished_at is None:
        return "-"
    return seconds((attempt.finished_at - attempt.started_at).total_seconds())


def _ago(when: datetime | None) -> str:
    if when is None:
        return ""
    return f", {seconds(max(0.0, (datetime.now(UTC) - when).total_seconds()))} ago"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
