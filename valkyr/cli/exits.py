"""Exit codes: what a script can rely on, and which error gives which."""

from __future__ import annotations

from enum import IntEnum

from valkyr.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
    ValkyrError,
    WrongState,
)


class ExitCode(IntEnum):
    OK = 0
    WORK_FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    FORBIDDEN = 7
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.WORK_FAILED: "the work failed: the execution ended FAILED or CANCELLED",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.BAD_INPUT: "bad input: a file that cannot be read, an invalid graph or payload",
    ExitCode.NOT_FOUND: "no such workflow, version, draft, execution, run or letter",
    ExitCode.CONFLICT: "conflict or wrong state: somebody was faster, a name is taken, it has ended",
    ExitCode.UNAVAILABLE: "a service is away or overloaded, or the time ran out",
    ExitCode.FORBIDDEN: "not allowed",
    ExitCode.INTERNAL: "a bug of Valkyr's",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C; a runner, by a second signal while it drained",
    ExitCode.BROKEN_PIPE: "whoever read the output went away",
}

_OF_KIND: tuple[tuple[type[ValkyrError], ExitCode], ...] = (
    (InvalidRequest, ExitCode.BAD_INPUT),
    (NotFound, ExitCode.NOT_FOUND),
    (AlreadyExists, ExitCode.CONFLICT),
    (WrongState, ExitCode.CONFLICT),
    (Conflict, ExitCode.CONFLICT),
    (Unavailable, ExitCode.UNAVAILABLE),
    (Overloaded, ExitCode.UNAVAILABLE),
    (DeadlineExceeded, ExitCode.UNAVAILABLE),
    (Unauthenticated, ExitCode.FORBIDDEN),
    (Forbidden, ExitCode.FORBIDDEN),
)


def exit_code_of(error: ValkyrError) -> ExitCode:
    """INTERNAL for whatever the caller can do nothing about."""
    return next((code for kind, code in _OF_KIND if isinstance(error, kind)), ExitCode.INTERNAL)


def exit_code_table() -> str:
    """For `--help`: a line per code, kept as it is by click's \\b mark."""
    lines = [f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()]
    return "\b\nExit codes:\n" + "\n".join(lines)
