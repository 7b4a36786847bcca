"""Reports: at most two calls under way, the second for enough; one that fails or is slow holds up only itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from tests.unit.runner.fakes import Clock, a_lease, eventually, turns
from valkyr.errors import Conflict, Internal, InvalidRequest, RunnerReplaced, Unavailable, ValkyrError, all_kinds
from valkyr.runner.attempt import Attempt
from valkyr.runner.leases import ReportAnswer, RunResult, Success
from valkyr.runner.reports import ENOUGH, MOST_CALLS, Reporter


class Gated:
    """Each call waits for its turn: `calls` are those that came, `let(n)` answers the n-th, `fail` refuses it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.results: list[list[object]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.poison: str | None = None
        self.refused: str | None = None
        self.under_way = 0
        self.most = 0

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer | InvalidRequest]:
        self.calls.append([result.ref.run_id for result in results])
        self.results.append([result.result for result in results])
        self.gates.append(asyncio.get_running_loop().create_future())
        if self.poison is not None:
            if self.poison in self.calls[-1]:
                raise Internal("a bug")
            self.let(-1)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gates[-1]
        finally:
            self.under_way -= 1
        return [
            InvalidRequest("too large")
            if result.ref.run_id == self.refused and isinstance(result.result, Success)
            else ReportAnswer.ACCEPTED
            for result in results
        ]

    def let(self, number: int) -> None:
        self.gates[number].set_result(None)

    def fail(self, number: int, error: Exception) -> None:
        self.gates[number].set_exception(error)


class Bench:
    def __init__(self, *, at_once: int) -> None:
        self.transport = Gated()
        self.settled: list[str] = []
        self.accepted: list[str] = []
        self._clock = Clock()
        self.reporter = Reporter(self.transport, self._note, at_once=at_once, clock=self._clock)  # type: ignore[arg-type]
        self._made = 0

    def _note(self, attempt: Attempt, /, *, accepted: bool) -> None:
        self.settled.append(attempt.key[0])
        if accepted:
            self.accepted.append(attempt.key[0])

    async def called(self, times: int) -> None:
        await eventually(lambda: len(self.transport.calls) == times)

    async def refused(self, times: int, error: Exception) -> None:
        """The first calls, one after the other."""
        for number in range(times):
            await self.called(number + 1)
            self.transport.fail(number, error)

    def put(self, count: int) -> None:
        for _ in range(count):
            attempt = Attempt(a_lease(f"r{self._made}"), granted_at=self._clock())
            attempt.result = RunResult(attempt.leased.ref, Success(b"{}"))
            self.reporter.put(attempt)
            self._made += 1


@asynccontextmanager
async def reporting(*, at_once: int = 1_000, slow: float = 600.0) -> AsyncIterator[Bench]:
    bench = Bench(at_once=at_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("valkyr.runner.reports.SLOW", slow)
        running = asyncio.create_task(bench.reporter.run())
        try:
            yield bench
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert bench.transport.under_way == 0


async def test_a_second_call_goes_out_for_enough_and_never_a_third() -> None:
    async with reporting() as bench:
        bench.put(1)
        await bench.called(1)
        bench.put(ENOUGH - 1)
        await turns()
        assert len(bench.transport.calls) == 1
        bench.put(1)
        await bench.called(2)
        bench.put(10 * ENOUGH)
        await turns()
        assert [len(call) for call in bench.transport.calls] == [1, ENOUGH]
        bench.transport.let(0)
        await bench.called(3)
        assert bench.transport.most == 2


async def test_a_call_takes_no_more_than_half_of_what_a_worker_holds() -> None:
    async with reporting(at_once=100) as bench:
        bench.put(200)
        await bench.called(2)
        assert [len(call) for call in bench.transport.calls] == [100, 100]
        assert len({*bench.transport.calls[0], *bench.transport.calls[1]}) == 200


async def test_a_call_that_hangs_holds_up_only_its_own() -> None:
    async with reporting() as bench:
        bench.put(1)
        await bench.called(1)
        for number in (1, 2, 3):
            bench.put(ENOUGH)
            await bench.called(number + 1)
            bench.transport.let(number)
        await eventually(lambda: len(bench.settled) == 3 * ENOUGH)
        assert "r0" not in bench.settled


async def test_a_call_that_is_slow_keeps_no_result_waiting_and_there_are_so_many_at_most() -> None:
    async with reporting(slow=0.01) as bench:
        for number in range(MOST_CALLS):
            bench.put(1)
            await bench.called(number + 1)
        bench.put(10 * ENOUGH)
        await turns()
        assert len(bench.transport.calls) == MOST_CALLS
        bench.transport.let(1)
        await bench.called(MOST_CALLS + 1)
        assert bench.transport.most == MOST_CALLS
        bench.transport.let(MOST_CALLS)
        await eventually(lambda: len(bench.settled) == 10 * ENOUGH + 1)
        assert "r0" not in bench.settled


async def test_a_call_that_ends_as_it_becomes_slow_is_over() -> None:
    """Its timer may be due in the pass of the loop in which it ends: were it slow for ever, few results would wait for
    many."""
    async with reporting() as bench:
        bench.put(1)
        await bench.called(1)
        [call] = bench.reporter._calls
        bench.transport.let(0)
        await eventually(call.done)
        bench.reporter._note_slow(call)
        bench.put(1)
        await bench.called(2)
        bench.reporter._slow.add(call)
        bench.transport.let(1)
        await eventually(lambda: len(bench.settled) == 2)
        bench.put(1)
        await bench.called(3)


async def test_a_call_that_is_refused_for_one_result_sends_each_alone() -> None:
    async with reporting() as bench:
        bench.put(2)
        await bench.refused(2, Conflict("one of them"))
        await bench.called(3)
        bench.transport.let(2)
        await bench.called(4)
        bench.transport.let(3)
        await eventually(lambda: len(bench.accepted) == 2)
    assert bench.transport.calls == [["r0", "r1"]] * 2 + [["r0"], ["r1"]]


NOTHING_ABOUT_RESULTS = [kind for kind in all_kinds() if not issubclass(kind, InvalidRequest | RunnerReplaced)]


@pytest.mark.parametrize("kind", NOTHING_ABOUT_RESULTS, ids=lambda kind: kind.__name__)
async def test_only_an_invalid_request_makes_a_failure_of_a_success(
    kind: type[ValkyrError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else a call fails with, such as a proxy's own answer, is no word on what it carried."""
    monkeypatch.setattr("valkyr.runner.reports._LAST_BACKOFF", timedelta(milliseconds=1))
    async with reporting() as bench:
        bench.put(1)
        await bench.refused(3, kind("no"))
        await bench.called(4)
        bench.transport.let(3)
        await eventually(lambda: bench.accepted == ["r0"])
    assert [type(result) for [result] in bench.transport.results] == [Success] * 4


async def test_a_call_that_fails_is_repeated_whatever_the_other_does() -> None:
    async with reporting() as bench:
        bench.put(1)
        await bench.called(1)
        bench.put(ENOUGH)
        await bench.called(2)
        bench.transport.fail(0, Unavailable("away"))
        bench.transport.let(1)
        await bench.called(3)
        assert bench.transport.calls[2] == ["r0"]
        bench.transport.let(2)
        await eventually(lambda: "r0" in bench.settled)
        assert len(bench.settled) == len(set(bench.settled)) == ENOUGH + 1


async def test_what_is_no_error_of_ours_ends_the_reporter_and_the_other_call_with_it() -> None:
    bench = Bench(at_once=1_000)
    running = asyncio.create_task(bench.reporter.run())
    bench.put(1)
    await bench.called(1)
    bench.put(ENOUGH)
    await bench.called(2)
    bench.transport.fail(0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        await running
    assert bench.transport.under_way == 0


async def test_who_was_replaced_says_no_more() -> None:
    bench = Bench(at_once=1_000)
    running = asyncio.create_task(bench.reporter.run())
    bench.put(3)
    await bench.called(1)
    bench.transport.fail(0, RunnerReplaced("another process has registered"))
    with pytest.raises(RunnerReplaced):
        await running
    assert (len(bench.transport.calls), bench.settled) == (1, [])


async def test_a_result_that_the_executor_fails_at_costs_the_others_nothing_and_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("valkyr.runner.reports._LAST_BACKOFF", timedelta(milliseconds=1))
    async with reporting() as bench:
        bench.transport.poison = "r1"
        bench.put(3)
        await eventually(lambda: len(bench.settled) == 3)
    assert sorted(bench.accepted) == ["r0", "r2"]
    assert bench.transport.calls.count(["r0", "r1", "r2"]) == 2


async def test_a_result_that_is_refused_goes_alone_as_a_failure_and_the_others_go_once() -> None:
    async with reporting() as bench:
        bench.transport.refused = "r1"
        bench.put(3)
        await bench.called(1)
        bench.transport.let(0)
        await bench.called(2)
        assert sorted(bench.accepted) == ["r0", "r2"]
        bench.transport.let(1)
        await eventually(lambda: len(bench.accepted) == 3)
    assert bench.transport.calls == [["r0", "r1", "r2"], ["r1"]]


async def test_a_bug_of_the_executor_that_passes_costs_nothing() -> None:
    async with reporting() as bench:
        bench.put(2)
        await bench.called(1)
        bench.transport.fail(0, Internal("a bug"))
        await bench.called(2)
        bench.transport.let(1)
        await eventually(lambda: len(bench.settled) == 2)
    assert bench.accepted == ["r0", "r1"]
