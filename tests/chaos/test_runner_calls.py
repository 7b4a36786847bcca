"""Calls of runners that are lost, delayed, held, repeated, or left without their answer, one kind of call at a time and
all of them at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.chaos.call_proxy import LOST, PASS, TWICE, UNANSWERED, CallProxy, Fate, at_random, in_turn, outcomes
from tests.chaos.runner_lab import HEARTBEAT, LONG, Lab, lease_settings, open_lab, overlaps, works
from tests.effect_modules import of
from tests.executor_stack import until_true
from tests.postgres import PostgresForTests

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

SEED = 6
RUNS = 200
FATES = (LOST, UNANSWERED, TWICE, Fate(before=0.3), Fate(after=0.7), Fate(again_after=1.0))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    folder = tmp_path_factory.mktemp("calls")
    async with open_lab(postgres, folder, "graph_store", "executor", **lease_settings(LONG, HEARTBEAT)) as lab:
        yield lab


async def test_a_registration_that_is_lost_repeated_or_not_answered_is_one(lab: Lab) -> None:
    judge = in_turn("RegisterRunner", LOST, UNANSWERED, TWICE)
    graph = works("registered", "registered", milliseconds=10)
    async with CallProxy(lab.executor, judge) as proxy, lab.runner("registered", executor=proxy.address) as runner:
        await lab.all_is_well(await lab.start(graph), graph)
        assert runner.said("runner.started")[0]["leases_ended"] == 0
    asked = proxy.of("RegisterRunner")
    assert [len(call.answers) for call in asked[:3]] == [0, 1, 2]
    assert len({call.request.incarnation for call in asked}) == 1


async def test_when_the_answer_to_a_call_for_runs_is_lost_the_same_runs_come_again_and_none_is_started_twice(
    lab: Lab,
) -> None:
    names = [f"granted{number}" for number in range(5)]
    graph = works("granted", *names, milliseconds=50)
    execution_id = await lab.start(graph)
    judge = in_turn("LeaseRuns", UNANSWERED, UNANSWERED, TWICE)
    async with CallProxy(lab.executor, judge) as proxy, lab.runner("granted", executor=proxy.address):
        await lab.all_is_well(execution_id, graph)
    asked = proxy.of("LeaseRuns")[:3]
    assert len({call.request.request_id for call in asked}) == 1
    granted = [sorted((run.node_id, run.epoch) for run in answer.runs) for call in asked for answer in call.answers]
    assert granted == [[(name, 1) for name in names]] * 4
    assert {row["attempt"] for row in await lab.rows(execution_id)} == {1}
    assert [len(of(lab.effects, "BEGUN", name)) for name in names] == [1] * len(names)


async def test_i07_a_report_that_is_not_answered_or_comes_twice_is_applied_once(lab: Lab) -> None:
    graph = works("reported", "reported", milliseconds=50)
    judge = in_turn("ReportRuns", LOST, UNANSWERED, UNANSWERED, Fate(deliveries=2, again_after=0.1))
    async with CallProxy(lab.executor, judge) as proxy, lab.runner("reported", executor=proxy.address):
        execution_id = await lab.start(graph)
        await until_true(lambda: sum(len(call.answers) for call in proxy.of("ReportRuns")) == 5, "all were delivered")
        await lab.all_is_well(execution_id, graph)
    said = [outcome for call in proxy.of("ReportRuns") for answer in outcomes(call) for outcome in answer]
    assert said == ["ACCEPTED"] + ["ALREADY_REPORTED"] * 4
    assert await lab.budgets(execution_id) == {(0, 0)}


async def test_hundreds_of_runs_are_done_once_while_a_third_of_all_calls_goes_wrong(lab: Lab) -> None:
    graph = works("random", "random", milliseconds=30)
    async with CallProxy(lab.executor, at_random(random.Random(SEED), FATES)) as proxy, AsyncExitStack() as runners:
        for number in range(3):
            runner = lab.runner("random", "--concurrency", "4", name=f"random{number}", executor=proxy.address)
            await runners.enter_async_context(runner)
        execution_ids = await lab.start_many(graph, RUNS)
        await lab.all_ended(execution_ids)
        assert await lab.problems(execution_ids, graph) == []
    assert await lab.budgets(*execution_ids) == {(0, 0)}, "no trouble was longer than a lease"
    assert overlaps(lab.effects) == {}
    befallen = Counter(call.fate for call in proxy.carried)
    assert len(befallen) == len({PASS, *FATES}), "every fault was met"
