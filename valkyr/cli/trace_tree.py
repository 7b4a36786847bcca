"""One execution as an indented tree, from the times that are stored: what ran when, for how long, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

from valkyr.cli.printing import joined, seconds, state_text
from valkyr.client import Attempt, Execution, Run

_FAR = datetime.max.replace(tzinfo=UTC)


def trace_tree(execution: Execution, runs: Sequence[Run], *, title: str = "") -> list[Text]:
    """A line for the execution, one per run in the order they started, and one per attempt where there were more."""
    began = execution.started_at or execution.created_at
    lines = [_root(execution, title)]
    ordered = sorted(enumerate(runs), key=lambda item: (item[1].started_at or item[1].finished_at or _FAR, item[0]))
    width = max((len(run.node_id) for run in runs), default=0)
    for position, (_, run) in enumerate(ordered):
        is_last = position == len(ordered) - 1
        lines.append(_run_line(run, began, width, "└─" if is_last else "├─"))
        lines.extend(_attempt_lines(run, began, "   " if is_last else "│  "))
    return lines


def _root(execution: Execution, title: str) -> Text:
    took = _between(execution.started_at or execution.created_at, execution.finished_at)
    return joined(
        f"{title or 'execution'} {execution.id}  ",
        state_text(execution.state),
        f"  {took}  trace {execution.trace_id or '-'}",
    )


def _run_line(run: Run, began: datetime | None, width: int, branch: str) -> Text:
    attempts = f"{len(run.attempts)} attempt{'s' if len(run.attempts) != 1 else ' '}"
    return joined(
        f"{branch} {run.node_id.ljust(width)}  {_offset(began, run.started_at):>10}  {_took(run):>8}  {attempts}  ",
        state_text(run.state),
        f"  {run.error_type}: {run.error}" if run.error else "",
    )


def _attempt_lines(run: Run, began: datetime | None, indent: str) -> list[Text]:
    if len(run.attempts) < 2:
        return []
    lines = []
    for attempt in run.attempts:
        branch = "└─" if attempt is run.attempts[-1] else "├─"
        lines.append(_attempt_line(attempt, began, f"{indent} {branch}"))
    return lines


def _attempt_line(attempt: Attempt, began: datetime | None, branch: str) -> Text:
    return joined(
        f"{branch} attempt {attempt.attempt}  {_offset(began, attempt.started_at):>10}"
        f"  {_between(attempt.started_at, attempt.finished_at):>8}  {attempt.outcome}",
        f"  {attempt.error}" if attempt.error else "",
    )


def _took(run: Run) -> str:
    if run.started_at and run.finished_at:
        return _between(run.started_at, run.finished_at)
    return "-"


def _offset(began: datetime | None, when: datetime | None) -> str:
    if began is None or when is None:
        return "-"
    return f"+{max(0.0, (when - began).total_seconds()):.3f} s"


def _between(start: datetime | None, end: datetime | None) -> str:
    return "-" if start is None or end is None else seconds(max(0.0, (end - start).total_seconds()))
