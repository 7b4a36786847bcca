"""How runs end as far as the graph is concerned, and what that changes: the plain values that `advance` works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from valkyr.flow.joins import Gate
from valkyr.flow.plan import Sight
from valkyr.flow.results import LetterType
from valkyr.flow.states import RunState
from valkyr.frozen import cheaply_made

# DESIGN, control nodes: what is beyond this in one transaction is written READY and decided later.
CONTROL_BUDGET = 1_000

NodeResult = Mapping[str, Any]  # {"outputs": ..., "error": ...}
NO_RESULT: NodeResult = {"outputs": None, "error": None}


@cheaply_made
@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as far as the graph is concerned. `always_decided`: an earlier end of it decided its ALWAYS edges."""

    state: RunState
    gate: Gate
    always_decided: bool = False


@cheaply_made
@dataclass(frozen=True, slots=True)
class Need:
    """What must be known to go on: rows of these nodes, results of those (null for a run that is not settled)."""

    rows: frozenset[int]
    results: frozenset[int]


@cheaply_made
@dataclass(frozen=True, slots=True)
class Loaded:
    rows: Mapping[int, RunFacts]
    results: Mapping[int, NodeResult]


@cheaply_made
@dataclass(frozen=True, slots=True)
class Succeeded:
    """A run ended well, or its quarantine was fixed. `outputs` is plain JSON, or None where nobody will look at it."""

    node: int
    outputs: Any = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class FailedForGood:
    """A run failed for good; a FAILURE edge may handle it unless `handled_by_edges` is off (a condition that broke)."""

    node: int
    letter: LetterType
    error_type: str
    message: str
    handled_by_edges: bool = True

    @property
    def error(self) -> dict[str, Any]:
        """What expressions see as `error`."""
        return {"type": str(self.error_type), "message": self.message}


@cheaply_made
@dataclass(frozen=True, slots=True)
class DecideControl:
    """A control node that was written READY, to be decided now; against `sight`, or else what the walk can see."""

    node: int
    sight: Sight | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class Requeued:
    """A quarantined run goes back: READY behind its frozen edges, as if every condition of theirs had held. `sight` is
    for a control node, which is decided at once."""

    node: int
    sight: Sight | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class Discarded:
    """A quarantined run is FAILED for good."""

    node: int


@cheaply_made
@dataclass(frozen=True, slots=True)
class Halted:
    """A run of an execution that ends has ended in `state`: nothing follows it."""

    node: int
    state: RunState


Outcome = Succeeded | FailedForGood | DecideControl | Requeued | Discarded | Halted


@cheaply_made
@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one run. `gate` is as it is written; `wake_after` is how long a WAITING run sleeps;
    `always_decided`: its ALWAYS edges were decided by this end, though it may end again."""

    node: int
    before: RunState
    after: RunState
    gate: Gate
    outputs: Any = None
    wake_after: timedelta | None = None
    failure: FailedForGood | None = None
    always_decided: bool = False

    @property
    def handled(self) -> bool:
        """Whether it failed for good and an edge takes that up; a discard has no failure of its own."""
        return self.after is RunState.FAILED and self.failure is not None


@dataclass(slots=True)
class ControlBudget:
    """How many more control nodes one transaction decides, over all its executions."""

    left: int = CONTROL_BUDGET

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0
