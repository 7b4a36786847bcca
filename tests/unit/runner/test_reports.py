"""Reports: at most two calls under way, the second for enough; one that fails or hangs holds up only itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.unit.runner.fakes import Clock, a_lease, eventually, turns
from valkyr.errors import Unavailable
from valkyr.runner.attempt import Attempt
from valkyr.runner.leases import ReportAnswer, RunResult, Success
from valkyr.runner.reports import ENOUGH, Reporter


class Gated:
    """Each call waits for its turn: `calls` are those that came, `let(n)` answers the n-th, `fail` refuses it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.under_way = 0
        self.most = 0

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
        self.calls.append([result.ref.run_id for result in results])
        self.gates.append(asyncio.get_running_loop().create_future())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gates[-1]
        finally:
            self.under_way -= 1
        return [ReportAnswer.ACCEPTED] * len(results)

    def let(self, number: int) -> None:
        self.gates[number].set_result(None)

    def fail(self, number: int, error: Exception) -> None:
        self.gates[number].set_exception(error)


class Bench:
    def __init__(self, *, at_once: int) -> None:
        self.transport = Gated()
        self.settled: list[str] = []
        self._clock = Clock()
        self.reporter = Reporter(self.transport, self._note, at_once=at_once, clock=self._clock)  # type: ignore[arg-type]
        self._made = 0

    def _note(self, attempt: Attempt, /, *, accepted: bool) -> None:
        self.settled.append(attempt.key[0])

    def put(self, count: int) -> None:
        for _ in range(count):
            attempt = Attempt(a_lease(f"r{self._made}"), granted_at=self._clock())
            attempt.result = RunResult(attempt.leased.ref, Success(b"{}"))
            self.reporter.put(attempt)
            self._made += 1


@asynccontextmanager
async def reporting(*, at_once: int = 1_000) -> AsyncIterator[Bench]:
    bench = Bench(at_once=at_once)
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
        await eventually(lambda: len(bench.transport.calls) == 1)
        bench.put(ENOUGH - 1)
        await turns()
        assert len(bench.transport.calls) == 1
        bench.put(1)
        await eventually(lambda: len(bench.transport.calls) == 2)
        bench.put(10 * ENOUGH)
        await turns()
        assert [len(call) for call in bench.transport.calls] == [1, ENOUGH]
        bench.transport.let(0)
        await eventually(lambda: len(bench.transport.calls) == 3)
        assert bench.transport.most == 2


async def test_a_call_takes_no_more_than_half_of_what_a_worker_holds() -> None:
    async with reporting(at_once=100) as bench:
        bench.put(200)
        await eventually(lambda: len(bench.transport.calls) == 2)
        assert [len(call) for call in bench.transport.calls] == [100, 100]
        assert len({*bench.transport.calls[0], *bench.transport.calls[1]}) == 200


async def test_a_call_that_hangs_holds_up_only_its_own() -> None:
    async with reporting() as bench:
        bench.put(1)
        await eventually(lambda: len(bench.transport.calls) == 1)
        for number in (1, 2, 3):
            bench.put(ENOUGH)
            await eventually(lambda number=number: len(bench.transport.calls) == number + 1)
            bench.transport.let(number)
        await eventually(lambda: len(bench.settled) == 3 * ENOUGH)
        assert "r0" not in bench.settled


async def test_a_call_that_fails_is_repeated_whatever_the_other_does() -> None:
    async with reporting() as bench:
        bench.put(1)
        await eventually(lambda: len(bench.transport.calls) == 1)
        bench.put(ENOUGH)
        await eventually(lambda: len(bench.transport.calls) == 2)
        bench.transport.fail(0, Unavailable("away"))
        bench.transport.let(1)
        await eventually(lambda: len(bench.transport.calls) == 3)
        assert bench.transport.calls[2] == ["r0"]
        bench.transport.let(2)
        await eventually(lambda: "r0" in bench.settled)
        assert len(bench.settled) == len(set(bench.settled)) == ENOUGH + 1


async def test_what_is_no_error_of_ours_ends_the_reporter_and_the_other_call_with_it() -> None:
    bench = Bench(at_once=1_000)
    running = asyncio.create_task(bench.reporter.run())
    bench.put(1)
    await eventually(lambda: len(bench.transport.calls) == 1)
    bench.put(ENOUGH)
    await eventually(lambda: len(bench.transport.calls) == 2)
    bench.transport.fail(0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        await running
    assert bench.transport.under_way == 0
