"""Executions in memory for tests: facts, results and rows that say only what matters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from services.executor.modules import Modules
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import NO_REPLAY, ExecutionFacts, Replay
from valkyr.flow.plan import Plan
from valkyr.flow.sights import StoredResult
from valkyr.flow.states import RunState
from valkyr.graph.model import Graph
from valkyr.modules import builtin_modules
from valkyr.planning import compiled
from valkyr.planning.inputs import needed_results, prepare

EXECUTION = UUID("0199b1f0-7c3a-7def-8abc-012340000000")
WORKFLOW = UUID("0199b1f0-7c3a-7def-8abc-99999999ffff")


def plan_of(graph: Graph) -> Plan:
    """As an executor plans it whose modules are those that come with Valkyr."""
    return compiled.plan_of(graph, MODULES.target_before, MODULES.dedupe_of)


def a_fact(trigger: Any = None) -> ExecutionFacts:
    return ExecutionFacts(
        id=EXECUTION,
        namespace="default",
        workflow_id=WORKFLOW,
        version=3,
        priority=0,
        trigger_json=orjson.dumps(trigger),
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )


def succeeded(outputs: Any, revision: int = 1) -> StoredResult:
    return StoredResult(RunState.SUCCESS, orjson.dumps(outputs).decode(), None, None, revision)


def failed(message: str, revision: int = 1, state: RunState = RunState.FAILED) -> StoredResult:
    return StoredResult(state, None, message, "TRANSIENT", revision)


POLICY = RetryPolicy(
    max_attempts=3, max_lost_leases=3, backoff_base=timedelta(seconds=1), backoff_max=timedelta(seconds=30)
)
MODULES = Modules(builtin_modules(), POLICY)
UNSETTLED = StoredResult(RunState.LEASED, None, None, None, None)


def prepared(
    graph: Graph,
    node_id: str,
    *,
    results: dict[str, StoredResult] | None = None,
    trigger: Any = None,
    taken: tuple[str, ...] | None = None,
    attempt: int = 1,
    ready_revision: int = 5,
    replay: Replay = NO_REPLAY,
) -> Prepared:
    """What the run of `node_id` is handed; `taken` are edge ids, all incoming ones if not given."""
    plan = plan_of(graph)
    node = plan.nodes[plan.index_of[node_id]]
    incoming = {plan.edges[edge].edge_id: edge for edge in node.incoming}
    edges = tuple(incoming[edge_id] for edge_id in (incoming if taken is None else taken))
    known = {plan.index_of[name]: result for name, result in (results or {}).items()}
    assert known.keys() <= needed_results(plan, node, edges), "nobody would have read these"
    return prepare(
        plan,
        a_fact(trigger),
        node,
        taken=edges,
        epoch=attempt,
        attempt=attempt,
        ready_revision=ready_revision,
        result_of=known.get,
        modules=MODULES,
        replay=replay,
    )
