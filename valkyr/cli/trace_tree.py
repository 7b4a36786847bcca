"""One execution as a tree by cause, from the times that are stored: what made each run ready, how long it took, how it
ended.

A run stands below the predecessor that readied it: of those whose edge fits how they ended, the one that ended last
before the run began (first, where the node takes any). Conditions are not evaluated again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rich.text import Text

from valkyr.cli.printing import joined, moment, seconds, state_text
from valkyr.cli.trace_history import Event, Letters, history_of
from valkyr.client import Breaker, Execution, ExecutionState, Run, RunState
from valkyr.graph.model import Edge, EdgeKind, Graph, Join

_FAR = datetime.max.replace(tzinfo=UTC)
_FAR_AWAY = timedelta(days=1)
_NARROWEST = ("", " " * 10, " " * 8, " " * 10)
"""Of the columns before what is said, so that most trees look alike."""
_KINDS = {
    RunState.SUCCESS: (EdgeKind.SUCCESS, EdgeKind.ALWAYS),
    RunState.FAILED: (EdgeKind.FAILURE, EdgeKind.ALWAYS),
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the other services say about an execution: `graph` of the version, `away` who could not be asked."""

    letters: Letters = field(default_factory=dict)
    letters_known: bool = True
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    graph: str = ""
    away: Sequence[str] = ()


def trace_tree(
    execution: Execution, runs: Sequence[Run], graph: Graph, *, title: str = "", known: Known | None = None
) -> list[Text]:
    """A line for the execution, one per run below its cause, and its history below a run that did not just succeed."""
    known = known or Known()
    began = execution.started_at or execution.created_at
    rows = list(_rows(execution, runs, graph, known))
    cells = [_cells(branches, entry, began) for branches, entry in rows]
    widths = [max(map(len, column)) for column in zip(_NARROWEST, *(columns for columns, _ in cells), strict=True)]
    lines = [_root(execution, title)]
    for (label, offset, took, attempts), said in cells:
        head = f"{label:<{widths[0]}}  {offset:>{widths[1]}}  {took:>{widths[2]}}  {attempts:<{widths[3]}}  "
        line = joined(head, said)
        line.rstrip()
        lines.append(line)
    return [*lines, *(joined(Text("! ", "yellow"), sentence) for sentence in known.away)]


def _rows(execution: Execution, runs: Sequence[Run], graph: Graph, known: Known) -> Iterator[tuple[str, Run | Event]]:
    """Branches and what stands at their end, from the top down; nothing recurses, as a chain may be long."""
    below = _children(runs, graph)
    pending = _stacked("", [*_beginning(execution, known), *below[None], *_end(execution)])
    while pending:
        indent, is_last, entry = pending.pop()
        yield indent + ("└─ " if is_last else "├─ "), entry
        if isinstance(entry, Run):
            history = history_of(
                entry, letters=known.letters, breakers=known.breakers, letters_known=known.letters_known
            )
            pending.extend(_stacked(indent + ("   " if is_last else "│  "), [*history, *below[entry.id]]))


def _beginning(execution: Execution, known: Known) -> Iterator[Event]:
    if known.graph:
        yield Event("graph", execution.created_at, None, known.graph, "graph_store")


def _end(execution: Execution) -> Iterator[Event]:
    """What holds an execution, or ends it, from outside."""
    if execution.deadline is not None:
        late = execution.error_type == "TIMEOUT"
        said = "ended it" if late else "was not reached" if execution.settled else "ends it then at the latest"
        yield Event("deadline", execution.deadline, None, said)
    if execution.state is ExecutionState.PAUSED:
        why = f": {execution.pause_reason}" if execution.pause_reason else ""
        said = f"by {execution.paused_by or '-'}{why}; nothing of it is started until it is resumed"
        yield Event("paused", execution.paused_at, None, said)
    if execution.cancel_requested and not execution.settled:
        yield Event("cancel", None, None, f"requested{_by(execution)}; runs under way are told, and have their grace")
    elif execution.state is ExecutionState.CANCELLED:
        said = f"what had not ended by then was CANCELLED{_by(execution)}"
        yield Event("cancel", execution.finished_at, None, said)


def _by(execution: Execution) -> str:
    who = f" by {execution.cancelled_by}" if execution.cancelled_by else ""
    return f"{who}: {execution.cancel_reason}" if execution.cancel_reason else who


def _stacked(indent: str, entries: Sequence[Run | Event]) -> list[tuple[str, bool, Run | Event]]:
    last = len(entries) - 1
    return [(indent, position == last, entry) for position, entry in enumerate(entries)][::-1]


def _children(runs: Sequence[Run], graph: Graph) -> Mapping[str | None, list[Run]]:
    """By the id of the run that readied them, None for the execution itself; in the order of starting."""
    by_node = {run.node_id: run for run in runs}
    incoming: dict[str, list[Edge]] = defaultdict(list)
    for edge in graph.edges:
        incoming[edge.target].append(edge)
    any_joins = {node.node_id for node in graph.nodes if node.join is Join.ANY}
    below: dict[str | None, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.first_started_at or run.finished_at or _FAR):
        cause = _cause(run, incoming[run.node_id], by_node, first=run.node_id in any_joins)
        below[cause.id if cause else None].append(run)
    return below


def _cause(run: Run, incoming: Sequence[Edge], by_node: Mapping[str, Run], *, first: bool) -> Run | None:
    sources = [(edge, by_node[edge.source]) for edge in incoming if edge.source in by_node]
    began = run.first_started_at or _FAR
    ended = [(edge, source) for edge, source in sources if (source.finished_at or _FAR) <= began]
    taken = [source for edge, source in ended if edge.kind in _KINDS.get(source.state, ())]
    candidates = taken or [source for _, source in ended] or [source for _, source in sources]
    if not candidates:
        return None
    choose = min if first and taken else max
    return choose(candidates, key=lambda source: source.finished_at or _FAR)


def _root(execution: Execution, title: str) -> Text:
    took = _between(execution.started_at or execution.created_at, execution.finished_at)
    return joined(
        f"{title or 'execution'} {execution.id}  ",
        state_text(execution.state),
        f"  {took}  trace {execution.trace_id or '-'}  [executor]",
        f"  {execution.error_type}: {execution.error_message}" if execution.error_message else "",
    )


def _cells(branches: str, entry: Run | Event, began: datetime | None) -> tuple[tuple[str, str, str, str], Text]:
    """Label, when, how long and how many attempts, which stand in columns; and what is said behind them."""
    if isinstance(entry, Run):
        start, count = entry.first_started_at, len(entry.attempts)
        attempts = f"{count} attempt{'s' if count != 1 else ''}"
        error = f"  {entry.error_type}: {entry.error}" if entry.error else ""
        columns = (branches + entry.node_id, _offset(began, start), _between(start, entry.finished_at), attempts)
        return columns, joined(state_text(entry.state), error)
    took = "-" if entry.took is None else seconds(max(0.0, entry.took.total_seconds()))
    said = f"[{entry.service}] {entry.said}" if entry.service else entry.said
    return (branches + entry.label, _offset(began, entry.at), took, ""), joined(said)


def _offset(began: datetime | None, when: datetime | None) -> str:
    """Since the beginning; what is far away, such as a deadline, by its date."""
    if began is None or when is None:
        return "-"
    since = max(timedelta(), when - began)
    return moment(when) if since >= _FAR_AWAY else f"+{since.total_seconds():.3f} s"


def _between(start: datetime | None, end: datetime | None) -> str:
    return "-" if start is None or end is None else seconds(max(0.0, (end - start).total_seconds()))
