"""Which executions were asked for, which have answered, and whether each answered what it must."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from benchmarks.graphs import Answer
from valkyr.client import Execution, ExecutionState


class WrongAnswer(Exception):
    """An execution ended otherwise than it must: no time counts."""


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

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._asked: dict[str, int] = {}
        self._early: dict[str, Execution] = {}
        self._changed = asyncio.Condition()
        self.done = 0
        self.per_second: Counter[int] = Counter()
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Counts anew from here on; nothing may be outstanding."""
        assert not self._asked
        self.done = 0
        self.per_second.clear()
        self._began = time.perf_counter()

    async def asked(self, execution_id: str, n: int) -> None:
        self._asked[execution_id] = n
        early = self._early.pop(execution_id, None)
        if early is not None:
            await self.came(early)

    async def came(self, execution: Execution) -> None:
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
        async with self._changed:
            self._changed.notify_all()

    async def at_most(self, outstanding: int) -> None:
        """Returns when no more than so many are without an answer."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._asked) <= outstanding)
