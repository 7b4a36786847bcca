"""`run_graph`: a whole graph in memory, decided by the engine's own core, with time that skips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
from ruamel.yaml import YAML

from valkyr.errors import InvalidGraph
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.states import ExecutionState, RunState
from valkyr.graph.document import graph_from_document
from valkyr.graph.model import Graph, Retry
from valkyr.graph.validate import validate
from valkyr.module import ModuleSpec, registered_modules
from valkyr.modules import builtin_modules
from valkyr.testing.bench import a_bench, run_apart
from valkyr.testing.one_module import find_spec
from valkyr.testing.play import Moment, Play, Rules
from valkyr.testing.scripts import Outcome, Resolution, check_scripts

EXECUTOR_RETRY = RetryPolicy(
    max_attempts=3, max_lost_leases=5, backoff_base=timedelta(seconds=1), backoff_max=timedelta(seconds=30)
)
"""What an executor does unless it is configured otherwise."""


@dataclass(frozen=True, slots=True)
class NodeRun:
    """What became of one node. `failure_type` and `error` are those of its last failure for good, "" without one;
    `reused_from` is the node whose outputs it has, "" where its own module was run."""

    state: RunState
    attempts: int
    outputs: Any
    failure_type: str
    error: str
    progress: Any
    cost_tokens: float | None
    reused_from: str = ""


@dataclass(frozen=True, slots=True)
class GraphRun:
    """What became of the execution. `outputs` are those of nodes that ended well; `timeline` is what happened, in
    order; `took` how long it would have taken, waits included."""

    state: ExecutionState
    nodes: Mapping[str, NodeRun]
    outputs: Mapping[str, Any]
    timeline: Sequence[Moment]
    took: timedelta


def run_graph(
    graph: Graph | Mapping[str, Any] | str | Path,
    *,
    modules: Iterable[Callable[..., Any] | ModuleSpec | str] | None = None,
    payload: Any = None,
    outcomes: Mapping[str, Outcome | Sequence[Outcome]] = MappingProxyType({}),
    resolutions: Mapping[str, Resolution | Sequence[Resolution]] = MappingProxyType({}),
    retry: Retry | None = None,
    deadline: timedelta | None = None,
    cancel_at: timedelta | None = None,
    concurrency: int = 10,
    jitter: float = 1.0,
    settings: Mapping[str, Any] = MappingProxyType({}),
    unknown_as_noop: bool = False,
) -> GraphRun:
    """One execution of `graph`: a Graph, a document, or the path of a YAML or JSON file.

    `modules` are what its runners have: absent, whatever was imported and what comes with Valkyr. They are really run,
    one after the other, and take no time. `outcomes`, by node, say how attempts end instead: one for every attempt, or
    a list, the first for the first attempt; after its end the module itself is run. `resolutions`, by node, are what is
    done about its quarantines, once nothing moves any more. `retry` counts where node, graph and module say nothing.
    Modules with `dedupe` have the success of an equal node of this execution reused; nothing is known of other calls.
    `deadline` and `cancel_at` are of the execution and count from its start; `concurrency` is how many attempts go on
    at a time, `jitter` from 0 to 1 how much of each back-off is waited.

    InvalidGraph, with `findings`, for a graph that could not be saved; LookupError for a script of a node that is not
    there, TypeError for one that is none; ValkyrError for a resolution that is refused.
    """
    graph = _read(graph)
    specs = _specs(modules)
    _check(graph, specs, [*outcomes, *resolutions])
    check_scripts(outcomes, resolutions)
    if concurrency < 1 or not 0 <= jitter <= 1:
        raise ValueError(f"concurrency is 1 or more, jitter from 0 to 1; not {concurrency} and {jitter}")
    rules = Rules(
        outcomes={node: _listed(said) for node, said in outcomes.items()},
        resolutions={node: _listed(said) for node, said in resolutions.items()},
        retry=EXECUTOR_RETRY.narrowed(retry),
        deadline=min((end for end in (deadline, graph.settings.timeout) if end is not None), default=None),
        cancel_at=cancel_at,
        concurrency=concurrency,
        jitter=jitter,
    )
    return run_apart(_play(graph, specs, payload, rules, settings, unknown_as_noop=unknown_as_noop))


async def _play(
    graph: Graph,
    specs: Mapping[str, ModuleSpec],
    payload: Any,
    rules: Rules,
    settings: Mapping[str, Any],
    *,
    unknown_as_noop: bool,
) -> GraphRun:
    async with a_bench(specs, settings, unknown_as_noop=unknown_as_noop) as bench:
        play = Play(graph, specs, orjson.dumps(payload), rules, bench)
        await play.to_the_end()
    nodes = {node.node_id: _node_run(play, node.index) for node in play.rows.plan.nodes}
    return GraphRun(
        state=play.rows.execution.state,
        nodes=nodes,
        outputs={name: run.outputs for name, run in nodes.items() if run.state is RunState.SUCCESS},
        timeline=tuple(play.timeline),
        took=play.timeline[-1].at if play.timeline else timedelta(),
    )


def _node_run(play: Play, node: int) -> NodeRun:
    source = play.equals.reused_from.get(node)
    row, result = play.rows.row(node), play.rows.result_of(node)
    outputs = result.outputs if result is not None else None
    progress = play.rows.progress.get(node)
    return NodeRun(
        state=row.facts.state,
        attempts=row.attempt,
        outputs=None if outputs is None else orjson.loads(outputs),
        failure_type=str(result.error_type or "") if result is not None else "",
        error=(result.error or "") if result is not None else "",
        progress=None if progress is None else orjson.loads(progress),
        cost_tokens=play.costs.get(node),
        reused_from=play.rows.plan.nodes[source].node_id if source is not None else "",
    )


def _read(graph: Graph | Mapping[str, Any] | str | Path) -> Graph:
    if isinstance(graph, Graph):
        return graph
    if isinstance(graph, str | Path):
        document: Any = YAML(typ="safe").load(Path(graph).read_text())
        return graph_from_document(document)
    return graph_from_document(graph)


def _specs(modules: Iterable[Callable[..., Any] | ModuleSpec | str] | None) -> dict[str, ModuleSpec]:
    if modules is None:
        return {**builtin_modules(), **registered_modules()}
    specs = [find_spec(module) for module in modules]
    return {**builtin_modules(), **{spec.class_name: spec for spec in specs}}


def _check(graph: Graph, specs: Mapping[str, ModuleSpec], scripted: Iterable[str]) -> None:
    """As a save would. A class that nobody knows is no error then either: its runs fail."""
    catalogue = {name: spec.config_schema() for name, spec in specs.items()}
    findings = [found for found in validate(graph, catalogue=catalogue) if found.is_error]
    if findings:
        refusal = InvalidGraph("; ".join(f"{found.path}: {found.message}" for found in findings[:10]))
        refusal.findings = findings
        raise refusal
    unknown = set(scripted) - {node.node_id for node in graph.nodes}
    if unknown:
        raise LookupError(f"something is said of nodes that the graph has not: {', '.join(sorted(unknown))}")


def _listed(said: Any) -> tuple[Any, ...] | Any:
    return tuple(said) if isinstance(said, list | tuple) else said
