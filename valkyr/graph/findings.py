"""What the validator says: the Finding value, its severities and its codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "ERROR"
    WARNING = "WARNING"


class Code(StrEnum):
    """Stable names of findings; those from ORPHAN_NODE on are warnings."""

    CYCLE = "CYCLE"
    SELF_LOOP = "SELF_LOOP"
    UNKNOWN_NODE = "UNKNOWN_NODE"
    DUPLICATE_NODE_ID = "DUPLICATE_NODE_ID"
    DUPLICATE_EDGE_ID = "DUPLICATE_EDGE_ID"
    DUPLICATE_MODULE = "DUPLICATE_MODULE"
    EMPTY_ID = "EMPTY_ID"
    BAD_MODULE_DATA = "BAD_MODULE_DATA"
    BAD_EXPRESSION = "BAD_EXPRESSION"
    UNKNOWN_REFERENCE = "UNKNOWN_REFERENCE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    ORPHAN_NODE = "ORPHAN_NODE"
    MISSING_MODULE = "MISSING_MODULE"
    UNKNOWN_MODULE = "UNKNOWN_MODULE"
    PARALLEL_EDGE = "PARALLEL_EDGE"
    EMPTY_GRAPH = "EMPTY_GRAPH"


WARNINGS = frozenset({Code.ORPHAN_NODE, Code.MISSING_MODULE, Code.UNKNOWN_MODULE, Code.PARALLEL_EDGE, Code.EMPTY_GRAPH})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `path` is the field in the request's JSON (`nodes[3].nodeId`), empty for the graph as a whole.

    `code` is one of Code, or a newer server's, hence text.
    """

    severity: Severity
    code: str
    path: str
    message: str
    hint: str = ""
    node_ids: tuple[str, ...] = ()
    edge_ids: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR


def finding(
    code: Code, path: str, message: str, hint: str, *, node_ids: tuple[str, ...] = (), edge_ids: tuple[str, ...] = ()
) -> Finding:
    """A finding with the severity that belongs to its code."""
    severity = Severity.WARNING if code in WARNINGS else Severity.ERROR
    return Finding(severity, code.value, path, message, hint, node_ids, edge_ids)


def has_errors(findings: list[Finding]) -> bool:
    return any(found.is_error for found in findings)
