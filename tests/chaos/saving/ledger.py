"""What the writers have sent, what they were answered, and what may be read at the least."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.saving.graphs import Kind
from valkyr.graph.model import Graph


class Answer(StrEnum):
    """OPEN: not known yet."""

    OPEN = "open"
    SAVED = "saved"
    REFUSED = "refused"


@dataclass(slots=True)
class Sent:
    """One save with all its repetitions. `version` and `content_hash` are those of the answer."""

    request_id: str
    kind: Kind
    graph: Graph
    edited: int
    workflow_id: str = ""
    answer: Answer = Answer.OPEN
    version: int = 0
    content_hash: str = ""


@dataclass(slots=True)
class Ledger:
    """`floors`: the highest version of each workflow that anybody was told of. `problems`: what does not hold."""

    sent: list[Sent] = field(default_factory=list)
    floors: dict[str, int] = field(default_factory=dict)
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    reads: int = 0
    unavailable: int = 0

    def told(self, workflow_id: str, version: int, content_hash: str) -> None:
        """Somebody was told that this version has this hash."""
        self.floors[workflow_id] = max(self.floors.get(workflow_id, 0), version)
        known = self.hashes.setdefault((workflow_id, version), content_hash)
        if known != content_hash:
            self.problem(f"version {version} of {workflow_id} was {known} and is {content_hash} (I01)")

    def problem(self, text: str) -> None:
        self.problems.append(text)
