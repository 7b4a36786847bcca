"""What callers hand over as a graph: a Graph, or a document with its workflow, namespace and message beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from valkyr.errors import InvalidRequest
from valkyr.graph.document import Envelope, envelope_from_document, graph_from_document, workflow_from_document
from valkyr.graph.model import Graph, WorkflowInfo

GraphOrDocument = Graph | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GivenGraph:
    """What was handed over, read. `workflow` says nothing where it was a Graph."""

    workflow: WorkflowInfo
    graph: Graph
    envelope: Envelope

    def described(self, workflow: WorkflowInfo | None) -> WorkflowInfo | None:
        """What is said beside the graph: by `workflow`, or else by the document where it says anything.

        Without a version: which one was edited travels apart.
        """
        own = self.workflow
        if workflow is None and (own.name or own.description or own.labels):
            workflow = own
        return None if workflow is None else replace(workflow, version=None)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose workflows are meant. `named`: somebody chose it, so that a document of another namespace is refused."""

    namespace: str
    named: bool = True

    def of(self, envelope: Envelope) -> str:
        """The namespace for a document. InvalidRequest where both name another one."""
        if self.named and envelope.namespace not in ("", self.namespace):
            raise InvalidRequest.of_field(
                "namespace",
                f"the document is of {envelope.namespace!r}, and {self.namespace!r} is what was asked for; name one",
            )
        return envelope.namespace or self.namespace


def read_given(graph: GraphOrDocument) -> GivenGraph:
    """InvalidRequest naming every bad path of what cannot be read as a graph."""
    if isinstance(graph, Graph):
        return GivenGraph(WorkflowInfo(), graph, Envelope())
    if not isinstance(graph, Mapping):
        raise InvalidRequest(f"expected a Graph or a document (a mapping), got a {type(graph).__name__}")
    return GivenGraph(workflow_from_document(graph), graph_from_document(graph), envelope_from_document(graph))


def one_message(given: str, envelope: Envelope) -> str:
    """The message given, or else the document's. InvalidRequest where both say something else."""
    if given and envelope.message and given != envelope.message:
        raise InvalidRequest.of_field(
            "message", f"the document says {envelope.message[:40]!r}, and {given[:40]!r} was given; give one of them"
        )
    return given or envelope.message


def edited_version(given: int | None, workflow: WorkflowInfo, name: str) -> int | None:
    """The version that was edited, by the argument called `name` or else the document. InvalidRequest for two."""
    if given is not None and workflow.version not in (None, given):
        raise InvalidRequest.of_field(
            name, f"the document says version {workflow.version}, and {given} was given; give one of them"
        )
    return workflow.version if given is None else given
