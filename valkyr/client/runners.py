"""client.runners: who runs modules, what they hold, and how one is told to take no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from valkyr.api.executor.v1 import runner_pb2
from valkyr.client.calls import Calls
from valkyr.client.pages import Page, Pages
from valkyr.client.wire import known, time_of


class RunnerState(StrEnum):
    """LOST: not heard of for longer than its leases last."""

    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Runner:
    """A process that runs modules; the executors' own pools are among them.

    `capacity` is how many runs at once, `leases` how many it holds. `serves_all`: it takes every class of its pool.
    """

    id: str
    pool: str
    state: RunnerState | None
    incarnation: str
    class_names: Sequence[str]
    serves_all: bool
    capacity: int
    leases: int
    host: str
    version: str
    registered_at: datetime | None
    last_seen_at: datetime | None


_STATES: Mapping[int, RunnerState] = {runner_pb2.Runner.State.Value(state.value): state for state in RunnerState}


class Runners:
    """Calls of the executor about runners."""

    def __init__(self, calls: Calls, namespace: str) -> None:
        self._calls = calls
        self._namespace = namespace

    def list(self, *, pool: str = "", page_size: int = 100, timeout: timedelta | None = None) -> Pages[Runner]:
        """By pool and id; of all pools unless one is named. One that has been silent for a day is forgotten."""

        async def fetch(token: str) -> Page[Runner]:
            request = runner_pb2.ListRunnersRequest(
                namespace=self._namespace, pool=pool, page_size=page_size, page_token=token
            )
            answer = await self._calls.unary("ListRunners", request, timeout=timeout)
            return Page([_runner_of(runner) for runner in answer.runners], answer.next_page_token)

        return Pages(fetch)

    async def drain(self, runner_id: str, *, timeout: timedelta | None = None) -> Runner:
        """It takes nothing new, ends what it has begun, and then its process ends; telling it twice is telling it once.
        RunnerNotFound."""
        request = runner_pb2.DrainRunnerRequest(namespace=self._namespace, runner_id=runner_id)
        return _runner_of((await self._calls.unary("DrainRunner", request, timeout=timeout)).runner)


def _runner_of(message: runner_pb2.Runner) -> Runner:
    return Runner(
        id=message.runner_id,
        pool=message.pool,
        state=known(_STATES, message.state),
        incarnation=message.incarnation,
        class_names=tuple(message.class_names),
        serves_all=message.serves_all,
        capacity=message.capacity,
        leases=message.leases,
        host=message.host,
        version=message.version,
        registered_at=time_of(message, "register_time"),
        last_seen_at=time_of(message, "last_seen_time"),
    )
