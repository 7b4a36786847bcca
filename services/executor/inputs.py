"""What a run is handed: inputs from its frozen edges, its config resolved, hashes and idempotency key. Pure.

A run sees only ancestors whose outcome has a revision up to the one that readied it, in every attempt, so that hashes
and key never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

import orjson

from services.executor.compiled import CompiledConfig, canonical, digest_of
from services.executor.model import idempotency_key
from services.executor.modules import Modules
from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import NO_REPLAY, ExecutionFacts, Replay
from valkyr.flow.ids import run_id
from valkyr.flow.plan import Plan, PlannedNode, Sight
from valkyr.flow.sights import ResultOf, StoredResult, as_of, error_of, sight_of
from valkyr.flow.states import RunState

INPUTS_LIMIT = 4 * 1024 * 1024
CONFIG_LIMIT = 4 * 1024 * 1024


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
