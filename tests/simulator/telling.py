"""Events, answers and graphs as the trace of a schedule tells them: a line each."""

from __future__ import annotations

from tests.simulator.world import World
from valkyr.flow.events import Event, LeaseEnded, OfExecution, Resolve
from valkyr.flow.intake import Answer
from valkyr.flow.results import Failure
from valkyr.graph.model import Graph, Join


def told(event: Event, world: World) -> str:
    if isinstance(event, OfExecution):
        what = getattr(event, "ending", type(event).__name__)
        return f"{what} of {world.store.executions[event.execution_id].name}"
    run = world.name_of(event.run_id)
    match event:
        case LeaseEnded():
            result = event.result
            how = result.type if isinstance(result, Failure) else type(result).__name__
            return f"{run}, epoch {event.epoch}: {how}{' if it has expired' if event.only_if_expired else ''}"
        case Resolve():
            return f"{run}, quarantine {event.quarantine_number}: {event.resolution}"
        case _:
            return f"{type(event).__name__} of {run}"


def told_answer(answer: Answer) -> str:
    return str(answer) if isinstance(answer, str) else type(answer).__name__


def told_graph(graph: Graph) -> str:
    nodes = [
        f"{node.node_id} ({module.class_name or 'pass'}{', ANY' if node.join is Join.ANY else ''})"
        for node, module in zip(graph.nodes, graph.modules, strict=True)
    ]
    edges = [
        f"{edge.source} -> {edge.target}" + "".join(f" {word}" for word in (edge.kind.lower(), edge.condition) if word)
        for edge in graph.edges
    ]
    return f"{graph.settings.failure_policy}; {', '.join(nodes)}; {', '.join(edges)}"
