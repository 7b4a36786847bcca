"""What a run is handed: inputs from its frozen edges, its config resolved, hashes and idempotency key. Pure.

A run sees only ancestors whose outcome has a revision up to the one that readied it, in every attempt, so that hashes
and key never change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import partial
from typing import Protocol, TypeGuard

import orjson

from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import NO_REPLAY, ExecutionFacts, Replay
from valkyr.flow.ids import RunKey, run_id
from valkyr.flow.plan import Plan, PlannedNode, Sight, Template
from valkyr.flow.sights import ResultOf, StoredResult, as_of, error_of, sight_of
from valkyr.flow.states import RunState
from valkyr.graph.model import DedupeScope
from valkyr.planning.compiled import CompiledConfig, canonical, digest_of

INPUTS_LIMIT = 4 * 1024 * 1024
CONFIG_LIMIT = 4 * 1024 * 1024

Part = tuple[str, bytes]
"""A node's id, and what the inputs hold of it."""


class Targets(Protocol):
    """What modules say that they call."""

    def target_of(self, node: PlannedNode, config: bytes) -> str:
        """The target of a run whose config is resolved; empty if there is none."""
        ...


def needed_results(plan: Plan, node: PlannedNode, taken: Collection[int]) -> frozenset[int]:
    """Nodes whose results are needed to prepare a run: sources of its taken edges, and what its config refers to."""
    return node.needs.union([plan.edges[edge].source for edge in taken]) if taken else node.needs


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
    modules: Targets,
    replay: Replay = NO_REPLAY,
    deadline: datetime | None = None,
    progress: str | None = None,
    key: RunKey | None = None,
) -> Prepared:
    """A run ready to be handed out under `epoch`. A config or inputs that cannot be made set `problem`. `key` is the
    run's, where it is at hand and need not be made."""
    execution_id, run = key or (facts.id, run_id(facts.id, node.index))
    inputs, config, problem = make_inputs(
        plan, facts, node, taken=taken, ready_revision=ready_revision, result_of=result_of, replaced=replay.inputs
    )
    inputs_hash = digest_of(inputs)
    config_hash = _digest(node, config)
    return Prepared(
        execution_id=execution_id,
        id=run,
        node_index=node.index,
        epoch=epoch,
        attempt=attempt,
        config=config,
        inputs=inputs,
        inputs_hash=inputs_hash,
        config_hash=config_hash,
        idempotency_key=idempotency_key(
            scope=_scope(facts, node, replay),
            class_name=node.class_name,
            inputs_hash=inputs_hash,
            config_hash=config_hash,
        ),
        problem=problem,
        target="" if problem else modules.target_of(node, config),
        replay=replay,
        deadline=deadline,
        progress=progress,
    )


def idempotency_key(*, scope: str, class_name: str, inputs_hash: str, config_hash: str) -> str:
    """SHA-256 over (scope, module class, inputs, config): the same in every attempt, DESIGN section 6."""
    return hashlib.sha256(orjson.dumps((scope, class_name, inputs_hash, config_hash))).hexdigest()


def _scope(facts: ExecutionFacts, node: PlannedNode, replay: Replay) -> str:
    """Among which runs a key tells one from the others. The new key of a requeue is nobody else's: the run is to be
    run, whatever was done elsewhere."""
    if node.dedupe is not None and not replay.key_number:
        of_all = f"global/{facts.namespace}"
        return of_all if node.dedupe.scope is DedupeScope.GLOBAL else f"workflow/{facts.namespace}/{facts.workflow_id}"
    scope = f"{facts.id}/{node.node_id}/-1"
    return f"{scope}/{replay.key_number}" if replay.key_number else scope


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
    parts: list[Part] = []
    if replaced is not None:
        inputs = replaced.encode()
    else:
        parts = _parts(plan, taken, ready_revision, result_of) if taken else []
        inputs = _document(facts.trigger_json, parts)
    if _is_constant(node.config):
        config, problem = node.config.raw, ""
    else:
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
        config, problem = _resolved(node, sight)
    if len(inputs) > INPUTS_LIMIT:
        problem = _too_large(inputs, facts, parts, replaced)
    return inputs, config, problem


def _parts(plan: Plan, taken: Iterable[int], ready_revision: int, result_of: ResultOf) -> list[Part]:
    """One for each source of a taken edge."""
    sources = dict.fromkeys([plan.edges[edge].source for edge in taken])
    return [(plan.nodes[source].node_id, _part(as_of(result_of(source), ready_revision))) for source in sources]


def _document(trigger: bytes, parts: Iterable[Part]) -> bytes:
    """The inputs, put together from stored JSON without reading it."""
    nodes = b",".join([orjson.dumps(name) + b":" + part for name, part in parts])
    return b'{"trigger":' + trigger + b',"nodes":{' + nodes + b"}}"


def _part(result: StoredResult | None) -> bytes:
    if result is None:
        return b'{"outputs":null}'
    if result.state is RunState.SUCCESS:
        return b'{"outputs":' + (result.outputs or "null").encode() + b"}"
    return orjson.dumps({"outputs": None, "error": error_of(result)})


def _too_large(inputs: bytes, facts: ExecutionFacts, parts: Iterable[Part], replaced: str | None) -> str:
    if replaced is not None:
        sizes = [(len(inputs), "that of the requeue")]
    else:
        sizes = [(len(part), f"that of node {name!r}") for name, part in parts]
        sizes.append((len(facts.trigger_json), "the trigger's payload"))
    size, largest = max(sizes)
    return (
        f"INPUTS_TOO_LARGE: the inputs are {len(inputs)} bytes, over {INPUTS_LIMIT}; "
        f"the largest part is {largest} with {size} bytes"
    )


def _is_constant(config: Template) -> TypeGuard[CompiledConfig]:
    """Whether its JSON and its hash were made with the plan."""
    return isinstance(config, CompiledConfig) and config.constant


def _resolved(node: PlannedNode, sight: Callable[[], Sight]) -> tuple[bytes, str]:
    """The config with its expressions evaluated, and what is wrong with it."""
    try:
        raw = canonical(node.config.resolve(sight()))
    except (CannotEvaluate, TypeError, ValueError) as error:
        return b"{}", f"the config of node {node.node_id!r} could not be resolved: {error}"
    if len(raw) > CONFIG_LIMIT:
        return b"{}", f"the resolved config of node {node.node_id!r} is {len(raw)} bytes, over {CONFIG_LIMIT}"
    return raw, ""


def _digest(node: PlannedNode, config: bytes) -> str:
    return node.config.digest if _is_constant(node.config) else digest_of(config)
