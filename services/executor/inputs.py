"""What a run is handed: inputs from its frozen edges, its config resolved, hashes and idempotency key. Pure.

A run sees only ancestors whose outcome has a revision up to the one that readied it, in every attempt, so that hashes
and key never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

import orjson

from services.executor.compiled import CompiledConfig, canonical, digest_of
from services.executor.model import ExecutionFacts, Prepared, StoredResult, idempotency_key, run_id
from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.plan import Plan, PlannedNode, Sight
from valkyr.flow.states import RunState

INPUTS_LIMIT = 4 * 1024 * 1024
CONFIG_LIMIT = 4 * 1024 * 1024

ResultOf = Callable[[int], StoredResult | None]


def needed_results(plan: Plan, node: PlannedNode, taken: Iterable[int]) -> set[int]:
    """Nodes whose results are needed to prepare a run: sources of its taken edges, and what its config refers to."""
    return {plan.edges[edge].source for edge in taken} | node.needs


def prepare(
    plan: Plan,
    facts: ExecutionFacts,
    node: PlannedNode,
    *,
    taken: tuple[int, ...],
    epoch: int,
    attempt: int,
    ready_revision: int,
    result_of: ResultOf,
) -> Prepared:
    """A run ready to be handed out under `epoch`. A config or inputs that cannot be made set `problem`."""
    sources = dict.fromkeys(plan.edges[edge].source for edge in taken)
    inputs, sizes = _inputs(plan, facts, sources, result_of)
    config, problem = _config(plan, facts, node, ready_revision, result_of)
    if len(inputs) > INPUTS_LIMIT:
        size, largest = max(sizes)
        problem = (
            f"INPUTS_TOO_LARGE: the inputs are {len(inputs)} bytes, over {INPUTS_LIMIT}; "
            f"the largest part is {largest} with {size} bytes"
        )
    inputs_hash = digest_of(inputs)
    config_hash = _digest(node, config)
    return Prepared(
        execution_id=facts.id,
        id=run_id(facts.id, node.index),
        node_index=node.index,
        epoch=epoch,
        attempt=attempt,
        config=config,
        inputs=inputs,
        inputs_hash=inputs_hash,
        config_hash=config_hash,
        idempotency_key=idempotency_key(
            scope=f"{facts.id}/{node.node_id}/-1",
            class_name=node.class_name,
            inputs_hash=inputs_hash,
            config_hash=config_hash,
        ),
        problem=problem,
    )


def _inputs(
    plan: Plan, facts: ExecutionFacts, sources: Iterable[int], result_of: ResultOf
) -> tuple[bytes, list[tuple[int, str]]]:
    """The inputs document, put together from stored JSON without reading it; and each part's size and name."""
    trigger = facts.trigger_json
    parts = []
    sizes = [(len(trigger), "the trigger's payload")]
    for source in sources:
        name = plan.nodes[source].node_id
        part = _part(result_of(source))
        sizes.append((len(part), f"that of node {name!r}"))
        parts.append(orjson.dumps(name) + b":" + part)
    return b'{"trigger":' + trigger + b',"nodes":{' + b",".join(parts) + b"}}", sizes


def _part(result: StoredResult | None) -> bytes:
    if result is None:
        return b'{"outputs":null}'
    if result.state is RunState.SUCCESS:
        return b'{"outputs":' + (result.outputs or "null").encode() + b"}"
    return orjson.dumps({"outputs": None, "error": error_of(result)})


def _config(
    plan: Plan, facts: ExecutionFacts, node: PlannedNode, ready_revision: int, result_of: ResultOf
) -> tuple[bytes, str]:
    config = node.config
    if isinstance(config, CompiledConfig) and config.constant:
        return config.raw, ""
    nodes = {plan.nodes[i].node_id: visible_result(result_of(i), ready_revision) for i in sorted(node.needs)}
    try:
        raw = canonical(config.resolve(Sight(trigger=facts.trigger, execution=facts.visible, nodes=nodes)))
    except (CannotEvaluate, TypeError, ValueError) as error:
        return b"{}", f"the config of node {node.node_id!r} could not be resolved: {error}"
    if len(raw) > CONFIG_LIMIT:
        return b"{}", f"the resolved config of node {node.node_id!r} is {len(raw)} bytes, over {CONFIG_LIMIT}"
    return raw, ""


def _digest(node: PlannedNode, config: bytes) -> str:
    if isinstance(node.config, CompiledConfig) and node.config.constant:
        return node.config.digest
    return digest_of(config)


def visible_result(result: StoredResult | None, revision: int) -> Mapping[str, Any]:
    """What expressions see of a node: null unless it was settled by `revision`."""
    if result is None or result.settled_revision is None or result.settled_revision > revision:
        return {"outputs": None, "error": None}
    outputs = orjson.loads(result.outputs) if result.state is RunState.SUCCESS and result.outputs else None
    return {"outputs": outputs, "error": error_of(result)}


def error_of(result: StoredResult) -> dict[str, Any] | None:
    """What expressions see as an error; null after a success."""
    if result.error is None:
        return None
    return {"type": str(result.error_type), "message": result.error}


def results_by_node(execution_id: UUID, results: Mapping[tuple[UUID, UUID], StoredResult]) -> ResultOf:
    """Looks results up by node of one execution."""
    return lambda node: results.get((execution_id, run_id(execution_id, node)))
