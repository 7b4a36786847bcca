"""What executions must answer, and that no time counts where one does not."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

import pytest

from benchmarks.errors import BenchError
from benchmarks.graphs import NOOP, Shape, chain, fan, mosaic, single
from benchmarks.modules import step
from benchmarks.tally import NoAnswer, Tally, WrongAnswer
from benchmarks.workloads.w05_backlog import per_second, tenths
from valkyr import Context
from valkyr.client import Execution, ExecutionState

ANSWER = single().answer()


def an_execution(n: int, *, outputs: Mapping[str, Any] | None = None, state: str = "SUCCESS") -> Execution:
    """Of a single node, right unless said otherwise."""
    return Execution(
        id=f"e{n}",
        namespace="default",
        workflow_id="w",
        version=1,
        state=ExecutionState(state),
        trigger_type=None,
        trigger_payload=None,
        outputs=ANSWER.expected(n) if outputs is None else outputs,
        created_at=None,
        started_at=None,
        finished_at=None,
        error_message="",
        error_type="",
        run_counts={},
        revision=2,
        priority=0,
        trace_id="",
        created_by="",
    )


async def run(shape: Shape, n: int) -> dict[str, Any]:
    """The leaf's outputs, by running the modules in an order that the graph allows."""
    outputs: dict[str, Any] = {}
    for node in TopologicalSorter(shape.before).static_order():
        nodes = {source: {"outputs": outputs[source]} for source in shape.before[node]}
        outputs[node] = await step(Context(inputs={"trigger": {"n": n}, "nodes": nodes}))
    return {shape.leaf: outputs[shape.leaf]}


@pytest.mark.parametrize("shape", [single(), chain(10), fan(7), mosaic()], ids=lambda shape: shape.name)
async def test_the_expected_answer_is_what_the_modules_make(shape: Shape) -> None:
    assert await run(shape, 3) == shape.answer().expected(3)


def test_the_module_that_does_nothing_answers_nothing() -> None:
    assert single(NOOP).answer().expected(3) == {"only": {}}


async def test_an_answer_changes_when_a_predecessor_is_not_read() -> None:
    less = dict(mosaic().before)
    less["add"] = less["add"][1:]
    assert await run(Shape("less", less, "publish"), 3) != mosaic().answer().expected(3)


def test_the_mosaic_has_300_nodes_and_fans_of_100() -> None:
    before = mosaic().before
    sources = [source for each in before.values() for source in each]
    assert len(before) == 300
    assert len(before["fit"]) == len(before["add"]) == 100
    assert sources.count("stage") == sources.count("fit") == 100


@pytest.mark.parametrize("shape", [single(), chain(3), fan(2)], ids=lambda shape: shape.name)
def test_a_shape_is_a_document_with_an_edge_for_each_predecessor(shape: Shape) -> None:
    document = shape.document("name")
    assert document["workflow"] == {"name": "name"}
    assert [node["nodeId"] for node in document["nodes"]] == list(shape.before)
    assert len(document["modules"]) == len(shape.before)
    assert {(edge["source"], edge["target"]) for edge in document["edges"]} == {
        (source, target) for target, sources in shape.before.items() for source in sources
    }


async def test_answers_are_counted_whether_they_come_before_or_after_the_call_returns() -> None:
    tally = Tally(ANSWER)
    tally.asked("e1", 1)
    tally.came(an_execution(1))
    tally.came(an_execution(2))
    tally.asked("e2", 2)
    await tally.at_most(0)
    assert tally.done == tally.per_second.total() == 2


async def test_a_change_that_is_no_end_is_no_answer_and_an_answer_counts_once() -> None:
    tally = Tally(ANSWER, silence=0.01)
    tally.asked("e1", 1)
    tally.came(an_execution(1, state="RUNNING", outputs={}))
    with pytest.raises(NoAnswer):
        await tally.at_most(0)
    tally.came(an_execution(1))
    tally.came(an_execution(1))
    await tally.at_most(0)
    assert tally.done == 1


def tell(tally: Tally, execution: Execution, *, early: bool) -> None:
    """The answer comes before, or after, it is known that it was asked for."""
    if early:
        tally.came(execution)
    tally.asked("e1", 1)
    if not early:
        tally.came(execution)


@pytest.mark.parametrize(
    "wrong",
    [
        an_execution(1, outputs={}),
        an_execution(1, outputs={"only": {"depth": 1, "paths": 2}}),
        an_execution(1, outputs={**ANSWER.expected(1), "more": 1}),
        an_execution(1, state="FAILED"),
    ],
    ids=["missing", "of another", "too many", "failed"],
)
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_a_wrong_answer_ends_the_measurement(wrong: Execution, early: bool) -> None:
    tally = Tally(ANSWER)
    with pytest.raises(WrongAnswer, match="execution e1 of n=1"):
        tell(tally, wrong, early=early)
    assert tally.done == 0


def test_counting_anew_forgets_what_was_warming_up() -> None:
    tally = Tally(ANSWER)
    tally.asked("e1", 1)
    tally.came(an_execution(1))
    tally.begin()
    assert (tally.done, tally.per_second.total()) == (0, 0)


def test_tenths_of_a_steady_backlog_are_alike_and_of_one_that_slows_down_are_not() -> None:
    first, last = tenths([0.1 * (index + 1) for index in range(1000)])
    assert first == pytest.approx(10)
    assert last == pytest.approx(10)
    first, last = tenths([0.001 * (index + 1) ** 2 for index in range(1000)])
    assert first == pytest.approx(10)
    assert last == pytest.approx(1 / 1.9, rel=0.01)


def test_tenths_do_not_cut_what_one_transaction_ended() -> None:
    first, last = tenths([1.0] * 40 + [2.0] * 60)
    assert (first, last) == (40, 60)
    with pytest.raises(BenchError, match="at once"):
        tenths([1.0] * 10)


def test_ends_are_counted_by_second() -> None:
    assert per_second([0.1, 0.9, 2.5]) == {"0": 2, "2": 1}
