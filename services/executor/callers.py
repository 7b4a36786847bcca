"""Calls of LeaseRuns that wait together, as a pool: who is given what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from valkyr.flow.effects import Prepared
from valkyr.runner.leases import LeasedRun

AT_ONCE = 500
"""Runs in one answer: what one transaction leases."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of LeaseRuns, checked. `repeated_within`: so long a call of the same request id is the same."""

    namespace: str
    runner_id: str
    incarnation: UUID
    max_runs: int
    wait: timedelta
    request_id: str
    repeated_within: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Given:
    """What a call came to. `at`, by the database's clock, is when the runs were leased; None where there are none.
    `drain`: the runner is to ask no more. `again`: another executor has just leased runs to that call."""

    runs: Sequence[LeasedRun] = ()
    at: datetime | None = None
    drain: bool = False
    again: bool = False


NOTHING = Given()
DRAIN = Given(drain=True)
AGAIN = Given(again=True)


class Caller:
    """One call that waits until it is answered. `leaving`: after the next look it is answered with nothing;
    `draining`: before."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.room = min(asked.max_runs, AT_ONCE)
        self.leaving = False
        self.draining = False
        self.answer: asyncio.Future[Given] = asyncio.get_running_loop().create_future()

    def say(self, given: Given) -> None:
        """The first answer counts."""
        if not self.answer.done():
            self.answer.set_result(given)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


Share = tuple[Caller, Sequence[Prepared]]


class Callers:
    """Those that wait, with room for what they ask for until they are answered. While a look is under way others may
    come, but nobody leaves: what is being leased to a caller is told to it."""

    def __init__(self) -> None:
        self._waiting: list[Caller] = []
        self._shares: Sequence[Share] = ()
        self._leased_at: datetime | None = None

    @property
    def waiting(self) -> Sequence[Caller]:
        return [caller for caller in self._waiting if not caller.answer.done()]

    def come(self, caller: Caller) -> None:
        self._waiting.append(caller)

    def let_go(self, leaving: Sequence[Caller], given: Given = NOTHING) -> None:
        """Between looks: answers these, and forgets all that are answered."""
        for caller in leaving:
            caller.say(given)
        self._waiting = [caller for caller in self._waiting if not caller.answer.done()]

    def room(self) -> int:
        return sum(caller.room for caller in self.waiting)

    def divide(self, runs: Sequence[Prepared]) -> Sequence[Share]:
        """Evenly, as far as each has room; those that have most take what is left over."""
        shares, begin = [], 0
        callers = sorted(self.waiting, key=lambda caller: caller.room)
        for place, caller in enumerate(callers):
            end = begin + min(caller.room, (len(runs) - begin) // (len(callers) - place))
            shares.append((caller, runs[begin:end]))
            begin = end
        return [(caller, share) for caller, share in shares if share]

    def grant(self, shares: Sequence[Share], leased_at: datetime) -> None:
        """Whose the runs are that are being committed."""
        self._shares, self._leased_at = shares, leased_at

    def accept(
        self, runs: Sequence[LeasedRun], *, granted_at: float | None = None, start_by: float | None = None
    ) -> None:
        """Committed. How old the leases are the runner counts itself, from when it asked; one that is gone by now asks
        once more under the same request_id."""
        by_id = {run.ref.run_id: run for run in runs}
        for caller, share in self._shares:
            given = [by_id[str(run.id)] for run in share if str(run.id) in by_id]
            if given:
                caller.say(Given(given, self._leased_at))
        self._shares = ()
