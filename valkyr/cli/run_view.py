"""How one run reads: what it is, what it does now, all that happened to it in the order of time, and what it gave."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime

from rich.text import Text

from valkyr.cli.blocks import print_fact, print_json, print_stack_trace
from valkyr.cli.printing import Printer, moment, seconds, state_text
from valkyr.cli.trace_history import Event, timeline_of
from valkyr.cli.views import took
from valkyr.client import Run, RunState


def print_run(printer: Printer, run: Run) -> None:
    """The whole run, as it was read alone."""
    print_fact(printer, "run", f"{run.id}  ", state_text(run.state))
    for label, text in _facts(run):
        print_fact(printer, label, text)
    _print_timeline(printer, run)
    last = next((attempt for attempt in reversed(run.attempts) if attempt.stack_trace), None)
    if last is not None:
        printer.line(Text(f"stack trace of attempt {last.attempt}", "bold"))
        print_stack_trace(printer, last.stack_trace)
    if run.inputs is not None:
        print_json(printer, "inputs, replaced by a requeue", run.inputs)
    if run.outputs is not None:
        print_json(printer, "outputs", run.outputs)


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    item = f", item {run.map_index} of its map" if run.map_index >= 0 else ""
    yield "what", f"{run.node_id} ({run.class_name or 'no module'}){item}, pool {run.pool}"
    yield "execution", f"{run.execution_id}; `valkyr trace {run.execution_id}` shows all of it"
    yield "now", _now(run)
    if run.reused_from is not None:
        source = run.reused_from
        yield "reused", f"the outputs of an equal run; `valkyr run get {source.execution_id} {source.run_id}` shows it"
    if run.error:
        yield "why", f"{run.error_type}: {run.error}" if run.error_type else run.error
    if run.target:
        yield "target", f"{run.target}; `valkyr breaker get {shlex.quote(run.target)}` says whether it is up"
    if run.episode_id:
        yield "outage", run.episode_id
    if run.deadline is not None:
        yield "deadline", moment(run.deadline)
    if not run.final and (run.failures or run.lost_leases):
        yield "budgets", f"used up so far: failures {run.failures}, lost leases {run.lost_leases}"
    if run.cost_tokens:
        yield "cost", f"{run.cost_tokens:g} tokens"
    if run.idempotency_key:
        yield "key", f"{run.idempotency_key} (idempotency key that the target is given)"


def _now(run: Run) -> str:
    """What its state means, and what would change it."""
    match run.state:
        case RunState.PENDING:
            return "waits for the nodes before it"
        case RunState.READY:
            return "waits for a runner" + (f", not before {moment(run.retry_after)}" if run.retry_after else "")
        case RunState.LEASED:
            beat = f", last heartbeat {moment(run.heartbeat_at)}" if run.heartbeat_at else ""
            return f"runs on {run.leased_by}, leased until {moment(run.lease_until)}{beat}"
        case RunState.WAITING:
            return f"waits until {moment(run.retry_after)}" if run.retry_after else "waits"
        case RunState.PARKED if run.parked_by == "PAUSE":
            return f"its execution is paused; `valkyr execution resume {run.execution_id}` lets it go on"
        case RunState.PARKED:
            return f"held back while {run.target} is down; looked at again {moment(run.retry_after)}"
        case RunState.QUARANTINED:
            return f"failed for good; `valkyr dlq list --execution {run.execution_id}` shows what can be done about it"
        case _:
            ended = f"ended {moment(run.finished_at)}" if run.finished_at else "ended"
            return f"{ended}, {took(run)} after it began" if took(run) else ended


def _print_timeline(printer: Printer, run: Run) -> None:
    events = timeline_of(run, letters={}, breakers={}, letters_known=False)
    nothing = "  no runner had it" if run.final else "  nothing yet"
    printer.line(Text("timeline", "bold"), "" if events else nothing)
    runners = {f"attempt {attempt.attempt}": attempt.runner_id for attempt in run.attempts}
    width = max((len(event.label) for event in events), default=0)
    for event in events:
        runner = f"  on {runners[event.label]}" if runners.get(event.label) else ""
        printer.line(f"  {_clock(event.at)}  {_took(event):>8}  {event.label:<{width}}  {event.said}{runner}")


def _clock(when: datetime | None) -> str:
    if when is None:
        return "-".ljust(23)
    return f"{moment(when)}.{when.microsecond // 1000:03}"


def _took(event: Event) -> str:
    return "-" if event.took is None else seconds(max(0.0, event.took.total_seconds()))
