"""valkyr trace: what one execution did, as a tree, from what the services have stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer
from rich.text import Text

from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.printing import moment
from valkyr.cli.session import Session
from valkyr.cli.trace_tree import Known, trace_tree
from valkyr.client import Breaker, Client, DeadLetter, Execution, Run, StoredGraph
from valkyr.errors import DeadlineExceeded, Overloaded, Unavailable, UnknownMethod
from valkyr.graph.model import Graph

_Answer = TypeVar("_Answer")
_AWAY = (Unavailable, DeadlineExceeded, Overloaded, UnknownMethod)


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known about one execution. `stored` is None with the graph store away: the tree is flat then."""

    execution: Execution
    runs: Sequence[Run]
    stored: StoredGraph | None
    known: Known


async def trace(
    session: Session,
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")],
) -> ExitCode:
    """Prints what an execution did, as a tree.

    Each run stands below the one that made it ready, with when and how long. Below a run that did not just succeed
    stands what happened: attempts and the waits between them, parking while its target was down, failures for good with
    their letters, and who settled them.

    All from stored times: it needs no collector of traces and survives restarts. The trace id is that of the spans in
    such a collector, if there is one.

    \b
    Examples:
      valkyr trace 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80
    """
    async with session.client() as client:
        found = await gather_trace(client, execution_id)
    if session.printer.as_json:
        session.printer.document(
            {
                "execution": document_of(found.execution),
                "runs": document_of(found.runs),
                "deadLetters": document_of(list(found.known.letters.values())),
                "breakers": document_of(list(found.known.breakers.values())),
                "unavailable": list(found.known.away),
            }
        )
        return ExitCode.OK
    for line in tree_of(found):
        session.printer.line(line)
    return ExitCode.OK


def tree_of(found: Trace) -> list[Text]:
    """The lines of the tree."""
    graph = found.stored.graph if found.stored else Graph()
    title = found.stored.workflow.name if found.stored else ""
    return trace_tree(found.execution, found.runs, graph, title=title, known=found.known)


async def gather_trace(client: Client, execution_id: str) -> Trace:
    """Asks the executor, and then whoever else knows something; who of those is away is said and left out.

    ExecutionNotFound; Unavailable where the executor is away.
    """
    execution = await client.executions.get(execution_id)
    runs = await client.executions.list_runs(execution_id, page_size=1000).all()
    away: list[str] = []

    async def ask(call: Callable[[], Awaitable[_Answer]], missing: str) -> _Answer | None:
        try:
            return await call()
        except _AWAY as error:
            away.append(f"{error.message}: {missing}")
            return None

    async def letters() -> Sequence[DeadLetter]:
        if not any(run.quarantines for run in runs):
            return ()
        return await client.dead_letters.list(execution_id=execution_id, page_size=1000).all()

    async def breakers() -> Sequence[Breaker]:
        targets = {run.target for run in runs if run.target and (run.episode_id or run.parked_at)}
        return [await client.breakers.get(target) for target in sorted(targets)]

    stored, found, guards = await asyncio.gather(
        ask(
            lambda: client.graphs.get(execution.workflow_id, version=execution.version),
            "runs stand in the order of their start",
        ),
        ask(letters, "letters are left out"),
        ask(breakers, "what breakers did is left out"),
    )
    known = Known(
        letters={(letter.run_id, letter.quarantine_number): letter for letter in found or ()},
        letters_known=found is not None,
        breakers={breaker.target: breaker for breaker in guards or ()},
        graph="" if stored is None else _about(stored),
        away=away,
    )
    return Trace(execution, runs, stored, known)


def _about(stored: StoredGraph) -> str:
    nodes, edges = len(stored.graph.nodes), len(stored.graph.edges)
    return (
        f"version {stored.workflow.version}, {nodes} nodes, {edges} edges, saved {moment(stored.workflow.updated_at)}"
    )
