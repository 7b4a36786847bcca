"""What an execution looks like: lines on a pipe, the choice of rows on a terminal, the tree of its trace."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from tests.builders import a_chain, a_graph
from valkyr.cli.exits import ExitCode
from valkyr.cli.printing import Printer, seconds
from valkyr.cli.trace_tree import trace_tree
from valkyr.cli.views import JsonView, LineView, LiveView, most_telling
from valkyr.client import Attempt, Execution, ExecutionState, Run, RunState
from valkyr.errors import Difference, VersionConflict
from valkyr.graph.model import Join

BEGAN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def after(**units: float) -> datetime:
    return BEGAN + timedelta(**units)


def an_execution(state: str = "RUNNING", **more: Any) -> Execution:
    values: dict[str, Any] = {
        "id": "e1",
        "namespace": "default",
        "workflow_id": "w1",
        "version": 1,
        "state": ExecutionState(state),
        "trigger_type": None,
        "trigger_payload": None,
        "outputs": {},
        "created_at": BEGAN,
        "started_at": BEGAN,
        "finished_at": None,
        "error_message": "",
        "error_type": "",
        "run_counts": {},
        "revision": 1,
        "priority": 0,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "created_by": "ada",
    }
    return Execution(**(values | more))


def a_run(node_id: str, state: str = "SUCCESS", **more: Any) -> Run:
    values: dict[str, Any] = dict.fromkeys(
        ("task_id", "parked_by", "target", "pool", "class_name", "error", "error_type", "leased_by", "idempotency_key"),
        "",
    )
    values |= dict.fromkeys(
        ("outputs", "lease_until", "heartbeat_at", "retry_after", "started_at", "finished_at"), None
    )
    values |= {"id": f"run of {node_id}", "execution_id": "e1", "node_id": node_id, "map_index": -1, "attempt": 0}
    values |= {"state": RunState(state), "duration_ms": 0, "cost_tokens": 0.0, "quarantine_number": 0}
    return Run(**(values | more))


@pytest.fixture
def printer() -> Printer:
    printer = Printer(as_json=False)
    printer.screen = Console(file=io.StringIO(), width=80, soft_wrap=True, highlight=False)  # type: ignore[assignment]
    return printer


def printed(printer: Printer) -> list[str]:
    file = printer.screen.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_a_line_is_printed_when_a_run_ends_waits_or_is_tried_again_and_only_once(printer: Printer) -> None:
    view = LineView(printer)
    execution = an_execution()
    view.show(execution, [a_run("a", "LEASED", attempt=1), a_run("b", "PENDING")])
    assert printed(printer) == []
    ended = a_run("a", attempt=1, started_at=BEGAN, finished_at=after(milliseconds=250))
    view.show(execution, [ended, a_run("b", "LEASED", attempt=1)])
    view.show(execution, [ended, a_run("b", "READY", attempt=2, error_type="TIMEOUT", error="too slow")])
    view.show(execution, [ended, a_run("b", "READY", attempt=2, error_type="TIMEOUT", error="too slow")])
    assert printed(printer) == [
        "  +0.25 s  SUCCESS  a  250 ms",
        "           READY  b  attempt 2  TIMEOUT: too slow",
    ]


def test_a_pause_is_a_line_when_it_begins_and_when_it_ends(printer: Printer) -> None:
    view = LineView(printer)
    paused = an_execution("PAUSED", paused_by="bob", pause_reason="to look", paused_at=BEGAN)
    for execution in (an_execution(), paused, paused, an_execution(), paused, an_execution("SUCCESS")):
        view.show(execution, [a_run("a", "PENDING")])
    said = [line.split(" at ")[0].strip() for line in printed(printer)]
    assert said == ["PAUSED  paused by bob", "RUNNING  resumed", "PAUSED  paused by bob"]
    assert printed(printer)[0].endswith(": to look")


def test_too_many_runs_are_shown_as_counts(printer: Printer) -> None:
    view = LineView(printer)
    for _ in range(2):
        view.show(an_execution(run_counts={"SUCCESS": 7, "PENDING": 9000}, finished_at=after(seconds=3)), None)
    assert printed(printer) == ["3.00 s  7 SUCCESS, 9000 PENDING"]


def test_what_a_module_says_cannot_drive_the_terminal(printer: Printer) -> None:
    LineView(printer).show(an_execution(), [a_run("a\x1b[2J", "FAILED", error_type="PERMANENT", error="x\r\ny\x07")])
    (line,) = printed(printer)
    assert line.endswith("FAILED  a\\x1b[2J  PERMANENT: x\\r\\ny\\x07")


def test_a_conflict_shows_what_was_changed_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    conflict = VersionConflict(
        "somebody saved",
        hint="save again",
        metadata={"currentVersion": "3", "total": "1005", "truncated": "true"},
        differences=[
            Difference("ADDED", "NODE", "a\x1b[2J"),
            Difference("CHANGED", "MODULE", "b", "config.url", '"x"', None),
            Difference("CHANGED", "SETTINGS", "", "timeout", None, '"30s"'),
            Difference("MOVED", "NODE", "c", "position", None, '{"x":1,"y":2}'),
        ],
    )
    Printer(as_json=False).error(conflict, ExitCode.CONFLICT)
    assert capsys.readouterr().err.splitlines() == [
        "error: somebody saved",
        "what was changed meanwhile:",
        "  @@ node a\\x1b[2J added @@",
        "  @@ module of b @@",
        '  -config.url: "x"',
        "  @@ the settings @@",
        '  +timeout: "30s"',
        "  @@ layout: 1 node moved @@",
        "   c: nowhere -> (1, 2)",
        "  and 1,001 more",
        " hint: save again",
    ]
    Printer(as_json=True).error(conflict, ExitCode.CONFLICT)
    shown = json.loads(capsys.readouterr().err)["error"]["differences"]
    assert shown[1] == {
        "kind": "CHANGED",
        "part": "MODULE",
        "id": "b",
        "path": "config.url",
        "old": '"x"',
        "new": None,
    }


def test_json_lines_hold_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonView(Printer(as_json=True))
    view.show(an_execution(), [a_run("a", "LEASED", attempt=1)])
    view.show(an_execution(), [a_run("a", "LEASED", attempt=1)])
    view.show(an_execution(), [a_run("a", attempt=1, started_at=BEGAN)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert '"startTime": "2026-03-01T12:00:00Z"' in lines[1]


def test_the_moving_picture_keeps_to_the_height_of_the_terminal() -> None:
    printer = Printer(as_json=False)
    printer.screen = Console(file=io.StringIO(), width=60, height=12, force_terminal=True)  # type: ignore[assignment]
    runs = [a_run(f"n{number}") for number in range(100)] + [a_run("stuck", "LEASED", attempt=1)]
    with LiveView(printer) as view:
        view.show(an_execution(run_counts={"SUCCESS": 100, "LEASED": 1}), runs)
    text = "\n".join(printed(printer))
    assert "stuck" in text
    assert "and 94 more: 100 SUCCESS, 1 LEASED" in text


def test_where_not_all_runs_fit_those_under_way_and_gone_wrong_stay() -> None:
    runs = [
        a_run("done"),
        a_run("bad", "QUARANTINED", error="no"),
        a_run("later", "PENDING"),
        a_run("now", "LEASED"),
        a_run("also done"),
    ]
    assert [run.node_id for run in most_telling(runs, 3)] == ["done", "bad", "now"]
    assert most_telling(runs, 5) is runs


def test_the_trace_is_a_tree_by_cause() -> None:
    failed = Attempt(1, "TIMEOUT", "r1", after(seconds=1), after(seconds=2), "no answer")
    again = Attempt(2, "SUCCESS", "r1", after(seconds=3), after(seconds=3.5), "")
    runs = [
        a_run("join", attempt=1, started_at=after(seconds=4), finished_at=after(seconds=5), attempts=(again,)),
        a_run("slow", attempt=2, started_at=after(seconds=1), finished_at=after(seconds=3.5), attempts=(failed, again)),
        a_run("fast", attempt=1, started_at=after(seconds=1), finished_at=after(seconds=2), attempts=(again,)),
        a_run("first", attempt=1, started_at=BEGAN, finished_at=after(milliseconds=20), attempts=(again,)),
        a_run("never", "SKIPPED", finished_at=after(seconds=0.02)),
    ]
    graph = a_graph(
        "first -> slow -> join, first -> fast -> join, first -> never -> join",
        edges={"first -> never": {"kind": "FAILURE"}},
    )
    execution = an_execution("SUCCESS", finished_at=after(seconds=5))
    assert [line.plain for line in trace_tree(execution, runs, graph, title="orders")] == [
        "orders e1  SUCCESS  5.00 s  trace 4bf92f3577b34da6a3ce929d0e0e4736  [executor]",
        "└─ first              +0.000 s     20 ms  1 attempt   SUCCESS",
        "   ├─ never                  -         -  0 attempts  SKIPPED",
        "   ├─ slow            +1.000 s    2.50 s  2 attempts  SUCCESS",
        "   │  ├─ attempt 1    +1.000 s    1.00 s              TIMEOUT  no answer",
        "   │  ├─ back-off     +2.000 s    1.00 s              then attempt 2",
        "   │  ├─ attempt 2    +3.000 s    500 ms              SUCCESS",
        "   │  └─ join         +4.000 s    1.00 s  1 attempt   SUCCESS",
        "   └─ fast            +1.000 s    1.00 s  1 attempt   SUCCESS",
    ]


def ended(node_id: str, second: float, state: str = "SUCCESS") -> Run:
    return a_run(node_id, state, started_at=BEGAN, finished_at=after(seconds=second))


@pytest.mark.parametrize(
    ("first", "second", "kinds", "cause"),
    [
        (ended("a", 1), ended("b", 2), {}, "b"),
        (ended("a", 1), ended("b", 9), {}, "a"),
        (ended("a", 1), ended("b", 2, "FAILED"), {}, "a"),
        (ended("a", 1), ended("b", 2, "FAILED"), {"b": "FAILURE"}, "b"),
        (ended("a", 1), ended("b", 2, "FAILED"), {"b": "ALWAYS"}, "b"),
        (ended("a", 1), ended("b", 2), {"b": "ALWAYS"}, "b"),
        (ended("a", 1), ended("b", 2), {"b": "FAILURE"}, "a"),
        (ended("a", 1, "FAILED"), ended("b", 2, "SKIPPED"), {}, "b"),
        (ended("a", 1, "FAILED"), ended("b", 9), {}, "a"),
        (ended("a", 8), ended("b", 9), {}, "b"),
    ],
    ids=[
        "the one that ended last",
        "not one that ended after it began",
        "not by a success edge of a failure",
        "by a failure edge of a failure",
        "by an always edge of a failure",
        "by an always edge of a success",
        "not by a failure edge of a success",
        "where no edge fits the one that ended last",
        "where no edge fits one that had ended",
        "where none had ended the last of all",
    ],
)
def test_a_run_stands_below_the_predecessor_that_readied_it(
    first: Run, second: Run, kinds: dict[str, str], cause: str
) -> None:
    end = a_run("end", started_at=after(seconds=3), finished_at=after(seconds=4))
    graph = a_graph("a -> end, b -> end", edges={f"{node} -> end": {"kind": kind} for node, kind in kinds.items()})
    names = [
        line.plain.removesuffix("SUCCESS").split("+")[0].rstrip()
        for line in trace_tree(an_execution(), [first, second, end], graph)[1:]
    ]
    below = {"a": ["├─ a", "│  └─ end", "└─ b"], "b": ["├─ a", "└─ b", "   └─ end"]}
    assert names == below[cause]


def test_a_predecessor_without_a_run_is_no_cause() -> None:
    runs = [a_run("b", started_at=BEGAN, finished_at=after(seconds=1))]
    tree = trace_tree(an_execution(started_at=None, trace_id=""), runs, a_graph("a -> b"))
    assert [line.plain for line in tree] == [
        "execution e1  RUNNING  -  trace -  [executor]",
        "└─ b    +0.000 s    1.00 s  0 attempts  SUCCESS",
    ]


def test_times_count_from_the_creation_of_what_has_not_started_and_are_never_negative() -> None:
    early = a_run(
        "a", "FAILED", started_at=after(seconds=-1), finished_at=after(seconds=-2), error="no", error_type="PERMANENT"
    )
    tree = trace_tree(an_execution(started_at=None, finished_at=after(seconds=3)), [early], a_graph("a"))
    assert [line.plain for line in tree] == [
        "execution e1  RUNNING  3.00 s  trace 4bf92f3577b34da6a3ce929d0e0e4736  [executor]",
        "└─ a    +0.000 s      0 ms  0 attempts  FAILED  PERMANENT: no",
    ]


@pytest.mark.parametrize("state", ["SUCCESS", "SKIPPED"])
def test_a_node_that_takes_any_edge_stands_below_the_last_where_none_was_taken(state: str) -> None:
    runs = [ended("a", 1, "SKIPPED"), ended("b", 2, "SKIPPED"), a_run("c", state, started_at=after(seconds=3))]
    graph = a_graph("a -> c, b -> c", nodes={"c": {"join": Join.ANY}})
    tree = [line.plain.split("  +")[0].rstrip() for line in trace_tree(an_execution(), runs, graph)[1:]]
    assert tree == ["├─ a", "└─ b", "   └─ c"]


def test_a_node_that_takes_any_edge_stands_below_the_first() -> None:
    runs = [
        a_run("a", started_at=BEGAN, finished_at=after(seconds=1)),
        a_run("b", started_at=BEGAN, finished_at=after(seconds=2)),
        a_run("c", started_at=after(seconds=2), finished_at=after(seconds=3)),
    ]
    graph = a_graph("a -> c, b -> c", nodes={"c": {"join": Join.ANY}})
    tree = [line.plain.split("  +")[0].rstrip() for line in trace_tree(an_execution(), runs, graph)[1:]]
    assert tree == ["├─ a", "│  └─ c", "└─ b"]


def test_a_long_chain_is_a_tree_without_recursion() -> None:
    runs = [
        a_run(f"n{number}", started_at=after(seconds=number), finished_at=after(seconds=number + 1))
        for number in range(1_500)
    ]
    assert len(trace_tree(an_execution(), runs, a_chain(1_500))) == 1_501


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "0 ms"), (0.25, "250 ms"), (1.5, "1.50 s"), (119, "119.00 s"), (185, "3 min 5 s")]
)
def test_durations_read_well(value: float, text: str) -> None:
    assert seconds(value) == text
