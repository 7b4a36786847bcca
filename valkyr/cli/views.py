"""How an execution under way looks: a table that moves on a terminal, a line per change on a pipe, JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from valkyr.cli.documents import document_of
from valkyr.cli.printing import Printer, joined, moment, seconds, state_text, table_of
from valkyr.client import Execution, ExecutionState, Run, RunState

MIN_ROWS = 5
_QUIET = frozenset({RunState.PENDING, RunState.READY, RunState.LEASED})
RUN_COLUMNS = ("NODE", "STATE", "ATTEMPT", "TOOK", "")


def view_for(printer: Printer) -> LiveView | LineView | JsonView:
    """The view that suits where the output goes; use it with `with`."""
    if printer.as_json:
        return JsonView(printer)
    return LiveView(printer) if printer.is_live else LineView(printer)


class LineView:
    """A line whenever a run ends, waits or is tried again, and when the execution is paused or resumed."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._seen: dict[str, tuple[RunState, int]] = {}
        self._counts: Mapping[str, int] = {}
        self._paused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def show(self, execution: Execution, runs: Sequence[Run] | None) -> None:
        self._show_pause(execution)
        if runs is None:
            self._show_counts(execution)
            return
        for run in changed(self._seen, runs):
            if run.state not in _QUIET or run.attempt > 1:
                self._printer.line(*run_line(execution, run))

    def _show_pause(self, execution: Execution) -> None:
        was, self._paused = self._paused, execution.state is ExecutionState.PAUSED
        if was == self._paused:
            return
        if self._paused:
            self._printer.line(" " * 11, state_text(execution.state), f"  {paused_text(execution)}")
        elif not execution.settled:
            self._printer.line(" " * 11, state_text(execution.state), "  resumed")

    def _show_counts(self, execution: Execution) -> None:
        if execution.run_counts != self._counts:
            self._counts = dict(execution.run_counts)
            self._printer.line(f"{_clock(execution)}  {counts_text(execution.run_counts)}")


class JsonView(LineView):
    """A JSON object on a line of its own for every run that changed: {"run": ...}, or {"runCounts": ...}."""

    def show(self, execution: Execution, runs: Sequence[Run] | None) -> None:
        if runs is None:
            if execution.run_counts != self._counts:
                self._counts = dict(execution.run_counts)
                self._printer.json_line({"runCounts": dict(execution.run_counts)})
            return
        for run in changed(self._seen, runs):
            self._printer.json_line({"run": document_of(run)})


class LiveView:
    """A table that is drawn anew; it stays on the screen when the execution has ended."""

    def __init__(self, printer: Printer) -> None:
        self._live = Live(console=printer.screen, auto_refresh=False, vertical_overflow="crop")
        self._screen = printer.screen

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, execution: Execution, runs: Sequence[Run] | None) -> None:
        self._live.update(self._picture(execution, runs), refresh=True)

    def _picture(self, execution: Execution, runs: Sequence[Run] | None) -> RenderableType:
        paused = f"  {paused_text(execution)}" if execution.state is ExecutionState.PAUSED else ""
        head = joined(f"{execution.id}  ", state_text(execution.state), f"  {_clock(execution)}{paused}")
        if runs is None:
            return Group(head, joined(counts_text(execution.run_counts)))
        shown = most_telling(runs, max(MIN_ROWS, self._screen.height - 5))
        hidden = len(runs) - len(shown)
        rest = [joined(f"and {hidden} more: {counts_text(execution.run_counts)}")] if hidden else []
        return Group(head, runs_table(shown), *rest)


def changed(seen: dict[str, tuple[RunState, int]], runs: Sequence[Run]) -> list[Run]:
    """Runs that are new or differ in state or attempt from what `seen` has; it is brought up to date."""
    news = [run for run in runs if seen.get(run.id) != (run.state, run.attempt)]
    seen.update((run.id, (run.state, run.attempt)) for run in news)
    return news


def most_telling(runs: Sequence[Run], rows: int) -> Sequence[Run]:
    """At most so many runs in the graph's order: under way or gone wrong first, then ended, then the rest."""

    def rank(item: tuple[int, Run]) -> tuple[int, int]:
        position, run = item
        if not run.final and run.state is not RunState.PENDING:
            return 0, position
        return (0 if run.error else 1 if run.final else 2), position

    if len(runs) <= rows:
        return runs
    kept = sorted(sorted(enumerate(runs), key=rank)[:rows])
    return [run for _, run in kept]


def runs_table(runs: Sequence[Run]) -> RenderableType:
    """One row per run."""
    return table_of(RUN_COLUMNS, [run_row(run) for run in runs])


def run_row(run: Run) -> list[str | Text]:
    """The cells of RUN_COLUMNS."""
    attempt = str(run.attempt) if run.attempt else ""
    remark = _parking(run) or (f"{run.error_type}: {run.error}" if run.error else run.class_name)
    return [run.node_id, state_text(run.state), attempt, took(run), remark]


def run_line(execution: Execution, run: Run) -> list[str | Text]:
    """What is said of a run that changed."""
    since = _offset(execution, run.finished_at or run.started_at)
    attempt = f"attempt {run.attempt}" if run.attempt > 1 else ""
    remark = _parking(run) or (f"{run.error_type}: {run.error}" if run.error else "")
    facts = "  ".join(fact for fact in (took(run), attempt, remark) if fact)
    return [f"{since:>9}  ", state_text(run.state), f"  {run.node_id}", f"  {facts}" if facts else ""]


def _parking(run: Run) -> str:
    """Why a run that is PARKED waits, "" for the others."""
    if run.state is not RunState.PARKED:
        return ""
    return f"waits for the breaker of {run.target}" if run.parked_by == "BREAKER" else "its execution is paused"


def took(run: Run) -> str:
    """How long a run took from its first start, "" while that is not known."""
    if run.first_started_at is None or run.finished_at is None:
        return ""
    return seconds((run.finished_at - run.first_started_at).total_seconds())


def paused_text(execution: Execution) -> str:
    """Who paused it, when and why."""
    why = f": {execution.pause_reason}" if execution.pause_reason else ""
    return f"paused by {execution.paused_by or '-'} at {moment(execution.paused_at)}{why}"


def counts_text(counts: Mapping[str, int]) -> str:
    """12 SUCCESS, 3 PENDING."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no runs"


def _clock(execution: Execution) -> str:
    began = execution.started_at or execution.created_at
    if began is None:
        return ""
    return seconds(max(0.0, ((execution.finished_at or datetime.now(UTC)) - began).total_seconds()))


def _offset(execution: Execution, when: datetime | None) -> str:
    began = execution.started_at or execution.created_at
    if began is None or when is None:
        return ""
    return f"+{max(0.0, (when - began).total_seconds()):.2f} s"
