"""Errors in the words of the command line: its arguments in place of fields, and the command that helps."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from valkyr.errors import (
    DeadLetterNotFound,
    DeadLetterResolved,
    DeadlinePassed,
    DraftConflict,
    DraftNotFound,
    ExecutionNotFound,
    ExecutionSettled,
    InvalidRequest,
    MergeConflict,
    NotQuarantined,
    QuarantineResolved,
    RunNotFound,
    TooManyRequeues,
    Unavailable,
    ValkyrError,
    VersionConflict,
    VersionNotFound,
    WorkflowArchived,
)

_ARGUMENTS = {
    "deadLetterId": "LETTER",
    "executionId": "EXECUTION",
    "nodeId": "NODE_OR_RUN",
    "runId": "NODE_OR_RUN",
    "run": "NODE_OR_RUN",
    "workflowId": "WORKFLOW",
    "target": "TARGET",
    "quarantineNumber": "--quarantine",
    "inputs": "--inputs",
    "outputs": "--outputs",
    "reason": "--reason",
    "deadline": "--deadline",
    "example": "--example",
    "matcher": "--ignore",
    "orderBy": "--order-by",
    "timeRanges[0]": "--time",
    "baseVersion": "--base",
    "currentVersion": "--current",
    "resumeToken": "--resume",
    "revision": "--revision",
}
_LETTERS = "`valkyr dlq list --all` lists the letters there are"
_EXECUTIONS = "`valkyr execution list` lists the executions there are"
_RUNS = "`valkyr execution get {execution_id}` lists its runs, each with its state"
_OF_ARGUMENT = {"LETTER": _LETTERS, "EXECUTION": _EXECUTIONS, "WORKFLOW": "`valkyr graph list` lists the workflows"}
_HINTS: Mapping[type[ValkyrError], str] = {
    DeadLetterNotFound: _LETTERS,
    DeadLetterResolved: "`valkyr dlq get {letter_id}` says what became of it",
    DeadlinePassed: "name a new one, such as --deadline 2h",
    DraftConflict: "you saved it elsewhere: `valkyr graph draft get {workflow}` prints what is there by now",
    DraftNotFound: "`valkyr graph draft save FILE` keeps one",
    ExecutionNotFound: _EXECUTIONS,
    ExecutionSettled: "`valkyr execution get {execution_id}` says how it ended; what failed in it for good is settled"
    " with `valkyr dlq list --execution {execution_id}`",
    MergeConflict: "the draft is kept: mend what `valkyr graph draft get {workflow}` prints, put the current version"
    " into it as its `version`, keep it with `valkyr graph draft save`, and publish it",
    QuarantineResolved: "`valkyr trace {execution_id}` shows who settled what, and what became of it",
    TooManyRequeues: "mend what is wrong, then requeue with --force, or supply its outputs",
    VersionNotFound: "`valkyr graph versions {workflow}` lists those there are",
    WorkflowArchived: "`valkyr graph unarchive {workflow}` puts it back in use",
}
"""In place of what servers say to programs."""
_WITHOUT_ONE: Mapping[type[ValkyrError], str] = {NotQuarantined: _RUNS, RunNotFound: _RUNS}
"""Where nobody has said more."""
_MERGE = "`valkyr graph merge {file}` puts both together; save what it prints"
_LOOK = "`valkyr graph diff {workflow}` shows the last save; then say --current N"
_KEPT = "nothing is lost: it is kept, and carried out once the executor answers; `valkyr dlq get {letter_id}` says when"


def in_own_words(error: ValkyrError, arguments: Mapping[str, Any]) -> ValkyrError:
    """The same error as the user of a command reads it; `arguments` are those of the command, by name."""
    argument, message = _argument_of(error)
    own = copy.copy(error)
    own.message = message
    own.details = replace(error.details, hint=_hint_for(error, argument, arguments))
    return own


def _hint_for(error: ValkyrError, argument: str, arguments: Mapping[str, Any]) -> str:
    if isinstance(error, Unavailable) and "requestedResolution" in error.details.metadata:
        hint = _KEPT
    elif isinstance(error, VersionConflict):
        hint = _MERGE if "file" in arguments else _LOOK
    elif type(error) in _HINTS:
        hint = _HINTS[type(error)]
    elif error.hint:
        return error.hint
    else:
        hint = _OF_ARGUMENT.get(argument, "") or _WITHOUT_ONE.get(type(error), "")
    return hint.format(
        execution_id=arguments.get("execution_id") or "EXECUTION",
        letter_id=arguments.get("letter_id") or "LETTER",
        workflow=shlex.quote(arguments.get("workflow") or "WORKFLOW"),
        file=shlex.quote(arguments.get("file") or "FILE"),
    )


def _argument_of(error: ValkyrError) -> tuple[str, str]:
    """The argument that is wrong, and the message that names it so; empty where it is no argument."""
    if not isinstance(error, InvalidRequest) or len(error.details.violations) != 1:
        return "", error.message
    (violation,) = error.details.violations
    field, _, rest = violation.field.partition(".")
    argument = _ARGUMENTS.get(field, "")
    if not argument or not error.message.startswith(violation.field):
        return "", error.message
    where = f"{argument}, {rest}" if rest else argument
    return argument, where + error.message.removeprefix(violation.field)
