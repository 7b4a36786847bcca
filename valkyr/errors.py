"""The error taxonomy: what can go wrong with a *call*. What goes wrong with the *work* is a Failure value instead.

A kind (`NotFound`) fixes the gRPC status code, in `valkyr.rpc.status`; a reason (`WorkflowNotFound`) fixes the
machine-readable identity that travels in ErrorInfo. The same classes are raised by servers and, on the other side of
the wire, by the client. Imports nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field of a request: where (`nodes[3].nodeId`), and what is wrong with which value and how to mend it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry of a semantic diff: a part (NODE, EDGE, MODULE, SETTINGS, WORKFLOW) by its id, and what became of it.

    `kind` is ADDED, REMOVED, CHANGED, MOVED or RENAMED. `path` is the field, empty where the whole part is meant; `old`
    and `new` are its values as JSON text, cut to 200 characters on the wire, None where there was none.
    """

    kind: str
    part: str
    id: str
    path: str = ""
    old: str | None = None
    new: str | None = None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One place where a three-way merge does not go together: what two people cannot both have.

    `kind` is BOTH_CHANGED, BOTH_ADDED, CHANGED_AND_REMOVED, EDGE_TO_REMOVED_NODE or MODULE_OF_REMOVED_NODE; `part`,
    `id` and `path` are as in a Difference. `base`, `current` and `mine` are the values as JSON text, cut to 200
    characters on the wire, None where there was none.
    """

    kind: str
    part: str
    id: str
    path: str = ""
    base: str | None = None
    current: str | None = None
    mine: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What travels beside the message: ErrorInfo's metadata, BadRequest's violations, RetryInfo, and what disagrees."""

    hint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    retry_after: timedelta | None = None
    differences: Sequence[Difference] = ()
    disagreements: Sequence[Disagreement] = ()


class ValkyrError(Exception):
    """A call went wrong. `str(error)` is one plain sentence; `reason` is stable and upper case."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: timedelta | None = None,
        differences: Sequence[Difference] = (),
        disagreements: Sequence[Disagreement] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = ErrorDetails(
            hint, dict(metadata or {}), tuple(violations), retry_after, tuple(differences), tuple(disagreements)
        )

    @property
    def hint(self) -> str:
        return self.details.hint

    @property
    def is_truncated(self) -> bool:
        """Whether there is more of what its details list, `metadata["total"]` in all, than fitted into the answer."""
        return self.details.metadata.get("truncated") == "true"


class InvalidRequest(ValkyrError):
    """The request is wrong: fix it."""

    reason = "INVALID_REQUEST"

    @classmethod
    def of_field(cls, path: str, description: str, *, hint: str = "") -> InvalidRequest:
        """The common case: one bad field. `description` says the value and the fix."""
        return cls(f"{path}: {description}", hint=hint, violations=[Violation(path, description)])


class NotFound(ValkyrError):
    """Look elsewhere."""

    reason = "NOT_FOUND"


class AlreadyExists(ValkyrError):
    """Reuse what exists."""

    reason = "ALREADY_EXISTS"


class WrongState(ValkyrError):
    """Read the state, then decide."""

    reason = "WRONG_STATE"


class Conflict(ValkyrError):
    """Re-read, merge, try the whole operation again."""

    reason = "CONFLICT"


class Unauthenticated(ValkyrError):
    """Get credentials."""

    reason = "UNAUTHENTICATED"


class Forbidden(ValkyrError):
    """Get rights."""

    reason = "FORBIDDEN"


class Overloaded(ValkyrError):
    """Back off by `retry_after`."""

    reason = "OVERLOADED"


class Unavailable(ValkyrError):
    """Repeat the call after `retry_after`; only raised where that is safe."""

    reason = "UNAVAILABLE"


class DeadlineExceeded(ValkyrError):
    """The deadline passed before the answer; whether it took effect is unknown: repeat with the same request_id."""

    reason = "DEADLINE_EXCEEDED"


class Internal(ValkyrError):
    """A bug of ours; the text is withheld, `metadata["correlationId"]` finds the log line."""

    reason = "INTERNAL"


class UnknownMethod(ValkyrError):
    """The server has no such RPC: client and server are of different versions."""

    reason = "UNKNOWN_METHOD"


class InvalidGraph(InvalidRequest):
    """The graph has ERROR findings; nothing was saved. `findings` holds all of them where the client SDK raises it."""

    reason = "INVALID_GRAPH"
    findings: Sequence[Any] = ()


class LimitExceeded(InvalidRequest):
    """A value is over a stated limit."""

    reason = "LIMIT_EXCEEDED"


class WorkflowNotFound(NotFound):
    reason = "WORKFLOW_NOT_FOUND"


class VersionNotFound(NotFound):
    reason = "VERSION_NOT_FOUND"


class DraftNotFound(NotFound):
    """The caller has no draft of this workflow."""

    reason = "DRAFT_NOT_FOUND"


class ExecutionNotFound(NotFound):
    reason = "EXECUTION_NOT_FOUND"


class RunNotFound(NotFound):
    reason = "RUN_NOT_FOUND"


class DeadLetterNotFound(NotFound):
    reason = "DEAD_LETTER_NOT_FOUND"


class NameTaken(AlreadyExists):
    """Another workflow of the namespace has this name."""

    reason = "NAME_TAKEN"


class RequestIdReused(AlreadyExists):
    """The `request_id` was used before, with another request."""

    reason = "REQUEST_ID_REUSED"


class VersionRequired(WrongState):
    """A stored workflow is saved only with the version that the author edited."""

    reason = "VERSION_REQUIRED"


class WorkflowArchived(WrongState):
    """It is out of use: neither started, saved nor published until it is unarchived."""

    reason = "WORKFLOW_ARCHIVED"


class ExecutionsDisabled(WrongState):
    """`executor.execution.enabled` is false."""

    reason = "EXECUTIONS_DISABLED"


class ExecutionSettled(WrongState):
    """It has ended in SUCCESS or FAILED; `metadata["state"]` says which."""

    reason = "EXECUTION_SETTLED"


class ExecutionEnded(WrongState):
    """It was cancelled, failed fast or was ended by its deadline: nothing of it runs again."""

    reason = "EXECUTION_ENDED"


class NotQuarantined(WrongState):
    """The run is not, and has not been, quarantined under this number."""

    reason = "NOT_QUARANTINED"


class QuarantineResolved(WrongState):
    """Somebody came first: `metadata` has `resolution`, `resolvedBy` and `resolvedTime`."""

    reason = "QUARANTINE_RESOLVED"


class DeadLetterResolved(WrongState):
    """Somebody came first: `metadata` has `resolution`, `resolvedBy` and `resolvedTime`."""

    reason = "DEAD_LETTER_RESOLVED"


class TooManyRequeues(WrongState):
    """It was requeued often enough without success; `force` requeues it once more."""

    reason = "TOO_MANY_REQUEUES"


class DeadlinePassed(WrongState):
    """The execution's deadline has passed: a requeue names a new one."""

    reason = "DEADLINE_PASSED"


class RunnerReplaced(WrongState):
    """Another process has registered under this runner's id: stop what runs, and exit."""

    reason = "RUNNER_REPLACED"


class RunnerNotRegistered(WrongState):
    """Nobody has registered under this id: register, then go on."""

    reason = "RUNNER_NOT_REGISTERED"


class RunnerNotFound(NotFound):
    reason = "RUNNER_NOT_FOUND"


class VersionConflict(Conflict):
    """Somebody saved in between; `metadata["currentVersion"]` says where the workflow is now."""

    reason = "VERSION_CONFLICT"

    @property
    def differences(self) -> Sequence[Difference]:
        """What the versions after the edited one have changed, semantic changes first; `is_truncated` if not all."""
        return self.details.differences

    @property
    def current_version(self) -> int:
        return int(self.details.metadata["currentVersion"])


class MergeConflict(Conflict):
    """Others have saved in between, and their changes do not go together with the draft's; the draft is kept.

    Either there are `disagreements`, `metadata["conflicts"]` in number, or what both make together has errors,
    `metadata["errors"]` in number: `findings` holds those where the client SDK raises it.
    """

    reason = "MERGE_CONFLICT"
    findings: Sequence[Any] = ()

    @property
    def disagreements(self) -> Sequence[Disagreement]:
        """Where it does not; `is_truncated` if not all."""
        return self.details.disagreements

    @property
    def current_version(self) -> int:
        return int(self.details.metadata["currentVersion"])


class DraftConflict(Conflict):
    """The draft was saved in between, by another window of its author's: `revision` is stale."""

    reason = "DRAFT_CONFLICT"

    @property
    def current_revision(self) -> int:
        return int(self.details.metadata["currentRevision"])


def all_kinds(root: type[ValkyrError] = ValkyrError) -> Iterator[type[ValkyrError]]:
    """Every class below `root`, depth first."""
    for kind in root.__subclasses__():
        yield kind
        yield from all_kinds(kind)
