"""Executions that fail in every way, drawn from a seed; their payload says how each must end."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from examples.target_server import TargetServer
from tests import run_history
from tests.builders import a_graph
from tests.chaos.rooms import until_answered
from valkyr.client import Client
from valkyr.client.executions import Start
from valkyr.graph.model import Graph, Module, Retry

ALWAYS = 1_000_000
SHOP = "shop"
PATH = "/stock"
MAX_LOST_LEASES = 100


def a_graph_that_fails() -> Graph:
    """`flaky` succeeds after retries or fails for good; `tried` fails and that is handled; `call` needs the shop."""
    flaky = {"type": "${trigger.kind}", "times": "${trigger.flaky}"}
    tried = {"type": "PERMANENT", "times": "${trigger.tried}"}
    call = {"method": "POST", "url": "${trigger.url}", "body": {"order": "${trigger.order}"}}
    return a_graph(
        "start -> flaky -> end, start -> call -> end, start -> tried -> fine -> end, tried -> rescue -> end",
        modules={
            "flaky": ("FailModule", flaky),
            "tried": ("FailModule", tried),
            "call": Module("call", "HttpRequestModule", config=call, target=SHOP),
        },
        nodes={
            "call": {
                "retry": Retry(500, timedelta(milliseconds=50), timedelta(milliseconds=400)),
                "timeout": timedelta(seconds=10),
            }
        },
        edges={"tried->rescue": {"kind": "FAILURE"}},
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One execution: `flaky` and `tried` are how often these nodes fail."""

    order: str
    kind: str
    flaky: int
    tried: int

    @property
    def states(self) -> Mapping[str, str]:
        """Of each run, once settled."""
        fails, handled = self.flaky == ALWAYS, self.tried == ALWAYS
        return {
            "start": "SUCCESS",
            "flaky": "QUARANTINED" if fails else "SUCCESS",
            "call": "SUCCESS",
            "tried": "FAILED" if handled else "SUCCESS",
            "fine": "SKIPPED" if handled else "SUCCESS",
            "rescue": "SUCCESS" if handled else "SKIPPED",
            "end": "PENDING" if fails else "SUCCESS",
        }

    @property
    def state(self) -> str:
        return "FAILED" if self.flaky == ALWAYS else "SUCCESS"


def draw_cases(number: int, seed: int) -> list[Case]:
    """A third of them fail for good: by a permanent failure, or when the budget is used up."""
    chance = random.Random(seed)
    cases = []
    for index in range(number):
        flaky = chance.choice((0, 1, 2, 2, ALWAYS, ALWAYS))
        kinds = ("TRANSIENT", "TIMEOUT", "RATE_LIMITED", "PERMANENT") if flaky == ALWAYS else ("TRANSIENT", "TIMEOUT")
        cases.append(Case(f"{seed}-{index}", chance.choice(kinds), flaky, chance.choice((0, 0, ALWAYS))))
    return cases


class Load:
    """Starts cases, and knows what became of them."""

    def __init__(self, client: Client, workflow_id: str, graph: Graph, shop: TargetServer) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._graph = graph
        self._shop = shop
        self.acknowledged: dict[str, Case] = {}

    async def start(self, cases: Sequence[Case]) -> None:
        """Repeated, with the same request ids, until it is answered."""
        starts = [
            Start(self._workflow_id, payload=self._payload(case), request_id=f"order {case.order}") for case in cases
        ]
        answers = await until_answered(lambda: self._client.executions.start_many(starts))
        self.acknowledged.update((answer.id, case) for answer, case in zip(answers, cases, strict=True))

    def _payload(self, case: Case) -> dict[str, Any]:
        url = f"{self._shop.url}{PATH}"
        return {"order": case.order, "kind": case.kind, "flaky": case.flaky, "tried": case.tried, "url": url}

    async def problems(self, sql: asyncpg.Connection) -> list[str]:
        """C1 to C5 and C8 of every execution, and whether each ended as its payload says."""
        found = []
        stored = await sql.fetch("SELECT id, state, open_runs FROM executor.workflow_execution")
        if len(stored) != len(self.acknowledged):
            found.append(f"C1: {len(self.acknowledged)} starts were acknowledged, and there are {len(stored)}")
        for execution_id, state, open_runs in stored:
            case = self.acknowledged.get(str(execution_id))
            if case is None:
                found.append(f"C6: nobody was told of {execution_id}")
            else:
                found += [f"{execution_id}: {problem}" for problem in await self._of_one(sql, execution_id, case)]
                if (state, open_runs) != (case.state, 0):
                    found.append(f"{execution_id}: {state} with {open_runs} open runs, and {case} ends {case.state}")
        return found

    async def _of_one(self, sql: asyncpg.Connection, execution_id: UUID, case: Case) -> list[str]:
        events = await run_history.read(sql, str(execution_id))
        found = run_history.violations(events, str(execution_id), self._graph, max_lost_leases=MAX_LOST_LEASES)
        rows = await sql.fetch("SELECT node_id, state FROM executor.run WHERE execution_id = $1", execution_id)
        if dict(rows) != case.states:
            found.append(f"{case} ended as {dict(rows)}")
        noted = await sql.fetchval("SELECT count(*) FROM executor.run_attempt WHERE execution_id = $1", execution_id)
        if noted != run_history.leases_without_success(events):
            found.append(f"C5: {noted} attempts noted, {run_history.leases_without_success(events)} leases ended badly")
        return found
