"""What a run is handed: inputs from its frozen edges, its config resolved, hashes and idempotency key. Pure.

A run sees only ancestors whose outcome has a revision up to the one that readied it, in every attempt, so that hashes
and key never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from services.executor.compiled import CompiledConfig, canonical, digest_of
from services.executor.model import StoredResult, idempotency_key
from services.executor.modules import Modules
from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import NO_REPLAY, ExecutionFacts, Replay
from valkyr.flow.ids import run_id
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
    modules: Modules,
    replay: Replay = NO_REPLAY,
    deadline: datetime | None = None,
) -> Prepared:
    """A run ready to be handed out under `epoch`. A config or inputs that cannot be made set `problem`."""
    inputs, config, problem = make_inputs(
        plan, facts, node, taken=taken, ready_revision=ready_revision, result_of=result_of, replaced=replay.inputs
    )
    inputs_hash = digest_of(inputs)
    config_hash = _digest(node, config)
    scope = f"{facts.id}/{node.node_id}/-1"
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
            scope=f"{scope}/{replay.key_number}" if replay.key_number else scope,
            class_name=node.class_name,
            inputs_hash=inputs_hash,
            config_hash=config_hash,
        ),
        problem=problem,
        target="" if problem else modules.target_of(node, config),
        replay=replay,
        deadline=deadline,
    )


def make_inputs(
    plan: Plan,
    facts: ExecutionFacts,
    node: PlannedNode,
    *,
    taken: tuple[int, ...],
    ready_revision: int,
    result_of: ResultOf,
    replaced: str | None,
) -> tuple[bytes, bytes, str]:
    """Inputs, resolved config, and what is wrong with them. `replaced` is JSON that stands in the place of the inputs
    that would be assembled; expressions read it too."""
    sources = dict.fromkeys(plan.edges[edge].source for edge in taken)

    def settled(source: int) -> StoredResult | None:
        return as_of(result_of(source), ready_revision)

    if replaced is None:
        inputs, sizes = _inputs(plan, facts, sources, settled)
    else:
        inputs, sizes = replaced.encode(), [(len(replaced), "that of the requeue")]
    sight = partial(
        sight_of,
        plan,
        facts,
        node,
        taken=taken,
        ready_revision=ready_revision,
        result_of=result_of,
        replaced=replaced,
    )
    config, problem = _config(node, sight)
    if len(inputs) > INPUTS_LIMIT:
        size, largest = max(sizes)
        problem = (
            f"INPUTS_TOO_LARGE: the inputs are {len(inputs)} bytes, over {INPUTS_LIMIT}; "
            f"the largest part is {largest} with {size} bytes"
        )
    return inputs, config, problem


def sight_of(
    plan: Plan,
    facts: ExecutionFacts,
    node: PlannedNode,
    *,
    taken: Iterable[int],
    ready_revision: int,
    result_of: ResultOf,
    replaced: str | None,
) -> Sight:
    """What the expressions of a run's config see; `replaced` as in `make_inputs`."""
    nodes = {plan.nodes[i].node_id: _visible(as_of(result_of(i), ready_revision)) for i in sorted(node.needs)}
    if replaced is None:
        return Sight(trigger=facts.trigger, execution=facts.visible, nodes=nodes)
    document = orjson.loads(replaced)
    given = document.get("nodes") or {}
    predecessors = {plan.nodes[plan.edges[edge].source].node_id for edge in taken}
    for name in nodes.keys() & (predecessors | given.keys()):
        nodes[name] = {"outputs": None, "error": None, **(given.get(name) or {})}
    return Sight(trigger=document.get("trigger"), execution=facts.visible, nodes=nodes)


def as_of(result: StoredResult | None, revision: int) -> StoredResult | None:
    """The outcome as it was at that revision: null if there was none, and that of a quarantine which was resolved
    later, so that what became ready behind it sees the same in every attempt."""
    if result is None:
        return None
    if result.settled_revision is not None and result.settled_revision <= revision:
        return result
    before = [past for past in result.earlier if past.revision <= revision]
    if not before:
        return None
    last = before[-1]
    return StoredResult(RunState.QUARANTINED, None, last.error, last.error_type, last.revision)


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


def _config(node: PlannedNode, sight: Callable[[], Sight]) -> tuple[bytes, str]:
    config = node.config
    if isinstance(config, CompiledConfig) and config.constant:
        return config.raw, ""
    try:
        raw = canonical(config.resolve(sight()))
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
    return _visible(as_of(result, revision))


def _visible(result: StoredResult | None) -> Mapping[str, Any]:
    if result is None:
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
