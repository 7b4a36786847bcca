"""One execution as a tree by cause, from the times that are stored: what made each run ready, how long it took, how it
ended.

A run stands below the predecessor that readied it: of those whose edge fits how they ended, the one that ended last
before the run began (first, where the node takes any). Conditions are not evaluated again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from rich.text import Text

from valkyr.cli.printing import joined, seconds, state_text
from valkyr.client import Attempt, Execution, Run, RunState
from valkyr.graph.model import Edge, EdgeKind, Graph, Join

_FAR = datetime.max.replace(tzinfo=UTC)
_KINDS = {
    RunState.SUCCESS: (EdgeKind.SUCCESS, EdgeKind.ALWAYS),
    RunState.FAILED: (EdgeKind.FAILURE, EdgeKind.ALWAYS),
}


def trace_tree(execution: Execution, runs: Sequence[Run], graph: Graph, *, title: str = "") -> list[Text]:
    """A line for the execution, one per run below its cause, and one per attempt where there were more."""
    began = execution.started_at or execution.created_at
    rows = list(_rows(runs, graph))
    labels = [
        branches + (entry.node_id if isinstance(entry, Run) else _attempt_name(entry)) for branches, entry in rows
    ]
    width = max(map(len, labels), default=0)
    lines = [_root(execution, title)]
    for label, (_, entry) in zip(labels, rows, strict=True):
        line = _run_line if isinstance(entry, Run) else _attempt_line
        lines.append(line(entry, began, label.ljust(width)))  # type: ignore[arg-type]
    return lines


def _rows(runs: Sequence[Run], graph: Graph) -> Iterator[tuple[str, Run | Attempt]]:
    """Branches and what stands at their end, from the top down; nothing recurses, as a chain may be long."""
    below = _children(runs, graph)
    pending: list[tuple[str, bool, Run | Attempt]] = _stacked("", below[None])
    while pending:
        indent, is_last, entry = pending.pop()
        yield indent + ("└─ " if is_last else "├─ "), entry
        if isinstance(entry, Run):
            attempts = entry.attempts if len(entry.attempts) > 1 else ()
            pending.extend(_stacked(indent + ("   " if is_last else "│  "), [*attempts, *below[entry.id]]))


def _stacked(indent: str, entries: Sequence[Run | Attempt]) -> list[tuple[str, bool, Run | Attempt]]:
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
    for run in sorted(runs, key=lambda run: run.started_at or run.finished_at or _FAR):
        cause = _cause(run, incoming[run.node_id], by_node, first=run.node_id in any_joins)
        below[cause.id if cause else None].append(run)
    return below


def _cause(run: Run, incoming: Sequence[Edge], by_node: Mapping[str, Run], *, first: bool) -> Run | None:
    sources = [(edge, by_node[edge.source]) for edge in incoming if edge.source in by_node]
    began = run.started_at or _FAR
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
        f"  {took}  trace {execution.trace_id or '-'}",
    )


def _run_line(run: Run, began: datetime | None, label: str) -> Text:
    attempts = f"{len(run.attempts)} attempt{'s' if len(run.attempts) != 1 else ' '}"
    return joined(
        f"{label}  {_offset(began, run.started_at):>10}  {_between(run.started_at, run.finished_at):>8}  {attempts}  ",
        state_text(run.state),
        f"  {run.error_type}: {run.error}" if run.error else "",
    )


def _attempt_line(attempt: Attempt, began: datetime | None, label: str) -> Text:
    return joined(
        f"{label}  {_offset(began, attempt.started_at):>10}  {_between(attempt.started_at, attempt.finished_at):>8}"
        f"              {attempt.outcome}",
        f"  {attempt.error}" if attempt.error else "",
    )


def _attempt_name(attempt: Attempt) -> str:
    return f"attempt {attempt.attempt}"


def _offset(began: datetime | None, when: datetime | None) -> str:
    if began is None or when is None:
        return "-"
    return f"+{max(0.0, (when - began).total_seconds()):.3f} s"


def _between(start: datetime | None, end: datetime | None) -> str:
    return "-" if start is None or end is None else seconds(max(0.0, (end - start).total_seconds()))
