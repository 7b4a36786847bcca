"""Graph files: YAML or JSON, read with the lines of everything, and findings put at their lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from valkyr.cli.json_text import read_json
from valkyr.cli.located import LocatedDocument, Position, Unreadable
from valkyr.cli.yaml_text import read_yaml
from valkyr.errors import InvalidRequest
from valkyr.graph.document import Envelope, envelope_from_document, graph_from_document, workflow_from_document
from valkyr.graph.findings import Finding, Severity
from valkyr.graph.model import Graph, WorkflowInfo

MAX_BYTES = 16 * 1024 * 1024
STDIN = "-"

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class PlacedFinding:
    """A finding and the place in the file that it is about; no position where it is about no file."""

    source: str
    position: Position | None
    finding: Finding


@dataclass(frozen=True, slots=True)
class GraphFile:
    """What a file holds, and where."""

    document: LocatedDocument
    workflow: WorkflowInfo
    graph: Graph
    envelope: Envelope

    def says(self, key: str) -> bool:
        """Whether the file has this key of the workflow, be it empty."""
        workflow = self.document.value.get("workflow")
        return isinstance(workflow, dict) and workflow.get(key) is not None

    @property
    def source(self) -> str:
        return self.document.source


class BadGraphFile(Exception):
    """A file that holds no graph: every problem with its place."""

    def __init__(self, problems: list[PlacedFinding]) -> None:
        super().__init__(f"{problems[0].source} cannot be read as a graph")
        self.problems = problems


def read_graph_file(name: str) -> GraphFile:
    """The graph in the file called `name`, "-" for standard input. BadGraphFile for anything else."""
    try:
        document = read_document(name)
    except Unreadable as error:
        finding = Finding(Severity.ERROR, error.code, error.path, str(error), error.hint)
        raise BadGraphFile([PlacedFinding(_shown(name), error.position, finding)]) from None
    if not isinstance(document.value, dict):
        raise BadGraphFile([_not_an_object(document)])
    # The readers see different parts of the file: what any of them finds is told at once.
    workflow, bad_workflow = _attempt(workflow_from_document, document)
    graph, bad_graph = _attempt(graph_from_document, document)
    envelope, bad_envelope = _attempt(envelope_from_document, document)
    if workflow is None or graph is None or envelope is None:
        raise BadGraphFile(list(dict.fromkeys([*bad_workflow, *bad_graph, *bad_envelope])))
    return GraphFile(document, workflow, graph, envelope)


def read_document(name: str) -> LocatedDocument:
    """The document in a file, by its suffix or else by its look. Unreadable if there is none."""
    text = _read_text(name)
    suffix = Path(name).suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml(text, _shown(name))
    if suffix == ".json" or text.lstrip().startswith(("{", "[")):
        return read_json(text, _shown(name))
    return read_yaml(text, _shown(name))


def place(document: LocatedDocument, finding: Finding) -> PlacedFinding:
    """The finding at its line."""
    return PlacedFinding(document.source, document.position_of(finding.path), finding)


def _attempt(
    read: Callable[[Mapping[str, Any]], _Read], document: LocatedDocument
) -> tuple[_Read | None, list[PlacedFinding]]:
    """What `read` makes of the document, or what is wrong with it."""
    try:
        return read(document.value), []
    except InvalidRequest as error:
        return None, _problems(document, error)


def _read_text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if name == STDIN else _read_file(Path(name))
    except OSError as error:
        raise Unreadable("UNREADABLE", f"cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise Unreadable("LIMIT_EXCEEDED", f"is over {MAX_BYTES // 2**20} MiB, which no service takes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Unreadable("SYNTAX", "this is not UTF-8", Position(line, 1), hint="save it as UTF-8") from None


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _problems(document: LocatedDocument, error: InvalidRequest) -> list[PlacedFinding]:
    if not error.details.violations:
        return [place(document, Finding(Severity.ERROR, error.reason, "", error.message, error.hint))]
    return [
        place(document, Finding(Severity.ERROR, "INVALID_FIELD", found.field, f"{found.field}: {found.description}"))
        for found in error.details.violations
    ]


def _not_an_object(document: LocatedDocument) -> PlacedFinding:
    message = "expected an object with nodes and edges" if document.value is not None else "the file is empty"
    hint = "a graph file looks like {workflow: {...}, nodes: [...], edges: [...], modules: [...]}"
    return place(document, Finding(Severity.ERROR, "SYNTAX", "", message, hint))


def _shown(name: str) -> str:
    return "<stdin>" if name == STDIN else name
