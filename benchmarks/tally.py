"""Which executions were asked for, which have answered, and whether each answered what it must."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from benchmarks.errors import BenchError
from benchmarks.graphs import Answer
from valkyr.client import Execution, ExecutionState

SILENCE = 120.0
"""Seconds without any answer after which no more are waited for."""


class WrongAnswer(BenchError):
    """An execution ended otherwise than it must: no time counts."""


class NoAnswer(BenchError):
    """Executions that were started do not end, or nobody says so."""


def check(execution: Execution, answer: Answer, n: int) -> None:
    """WrongAnswer unless it succeeded with exactly the outputs that its trigger's `n` makes."""
    expected = answer.expected(n)
    if execution.state is not ExecutionState.SUCCESS or execution.outputs != expected:
        raise WrongAnswer(
            f"execution {execution.id} of n={n} is {execution.state} {execution.error_message}"
            f" with {execution.outputs}, and not SUCCESS with {expected}"
        )


class Tally:
    """Executions may answer before the call that started them does. Each counts once, when its answer was right."""

    def __init__(self, answer: Answer, *, silence: float = SILENCE) -> None:
        self._answer = answer
        self._silence = silence
        self._asked: dict[str, int] = {}
        self._early: dict[str, Execution] = {}
        self._changed = asyncio.Event()
        self.done = 0
        self.per_second: Counter[int] = Counter()
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Counts anew from here on; nothing may be outstanding."""
        assert not self._asked
        self.done = 0
        self.per_second.clear()
        self._began = time.perf_counter()

    def asked(self, execution_id: str, n: int) -> None:
        """WrongAnswer if it has answered already, and wrongly."""
        self._asked[execution_id] = n
        early = self._early.pop(execution_id, None)
        if early is not None:
            self.came(early)

    def came(self, execution: Execution) -> None:
        """A change that the watch told. WrongAnswer."""
        if not execution.settled:
            return
        n = self._asked.pop(execution.id, None)
        if n is None:
            self._early[execution.id] = execution
            return
        check(execution, self._answer, n)
        self.done += 1
        self.per_second[int(time.perf_counter() - self._began)] += 1
        self._changed.set()

    async def at_most(self, outstanding: int) -> None:
        """Returns when no more than so many are without an answer. NoAnswer after a long silence."""
        while len(self._asked) > outstanding:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._silence):
                    await self._changed.wait()
            except TimeoutError:
                raise NoAnswer(f"{len(self._asked)} executions have not answered for {self._silence:g} s") from None
