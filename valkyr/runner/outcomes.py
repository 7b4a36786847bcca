"""What became of an attempt, as a value: outputs as bounded JSON, exceptions as failures. Pure."""

from __future__ import annotations

import math
import traceback
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from valkyr.duration import MAX_DURATION
from valkyr.module import PermanentError, RetryLater
from valkyr.runner.leases import Failure, FailureType, Success
from valkyr.stored_json import MAX_OUTPUT_BYTES, Unstorable, encode

MAX_MESSAGE = 2000
MAX_STACK_TRACE = 16_000


class UnusableOutputs(PermanentError):
    """What the module returned cannot become outputs; the message says why."""


class BadConfig(PermanentError):
    """The config does not fit the module's model. `without_values` says where, for places that keep no payloads."""

    def __init__(self, class_name: str, error: ValidationError) -> None:
        super().__init__(describe_bad_config(class_name, error))
        self.without_values = describe_bad_config(class_name, error, values=False)


def success_of(value: Any, cost_tokens: float | None = None) -> Success:
    """`value` as outputs. UnusableOutputs if it is no JSON, is over 1 MiB, deeper than 64, or holds NaN or NUL."""
    if cost_tokens is not None and not _is_cost(cost_tokens):
        raise UnusableOutputs(f"context.cost_tokens has to be a number of 0 or more, not {str(cost_tokens)[:64]!r}")
    return Success(encode_outputs(value), cost_tokens)


def encode_outputs(value: Any) -> bytes:
    """JSON bytes. Dataclasses and pydantic models are taken apart, times become RFC 3339. Raises UnusableOutputs."""
    try:
        return encode(value, limit=MAX_OUTPUT_BYTES)
    except Unstorable as problem:
        raise UnusableOutputs(f"the outputs {problem}") from None


def failure_of(error: BaseException) -> Failure:
    """PermanentError, RetryLater and TimeoutError mean what they say; anything else may work the next time."""
    match error:
        case PermanentError():
            kind, retry_after = FailureType.PERMANENT, None
        case RetryLater():
            kind, retry_after = FailureType.RATE_LIMITED, _bounded(error.after)
        case TimeoutError():
            kind, retry_after = FailureType.TIMEOUT, None
        case _:
            kind, retry_after = FailureType.TRANSIENT, None
    return Failure(kind, message_of(error), stack_trace_of(error), retry_after)


def message_of(error: BaseException) -> str:
    """For people: the text alone where the author wrote it for them, else with the class in front."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an author's __str__ may do anything, and its failure must still be reported
        text = "(its message cannot be shown)"
    if isinstance(error, PermanentError | RetryLater) and text:
        return storable(text, MAX_MESSAGE)
    name = type(error).__name__
    return storable(f"{name}: {text}" if text else name, MAX_MESSAGE)


def message_without_values(error: BaseException) -> str:
    """As `message_of`; where the text quotes data (a config, what a pydantic model was made from), only its place."""
    match error:
        case BadConfig():
            return error.without_values
        case ValidationError():
            return describe_bad_config(error.title, error, values=False)
        case _:
            return message_of(error)


def stack_trace_of(error: BaseException) -> str:
    """Without the runner's own frame; of a long one the end, where the error is."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        lines = traceback.format_exception(type(error), error, frames, limit=-50)
    except Exception:  # noqa: BLE001 - as above: formatting calls the author's __str__
        lines = traceback.format_tb(frames, limit=-50)
    text = storable("".join(lines))
    return text if len(text) <= MAX_STACK_TRACE else "...\n" + text[-MAX_STACK_TRACE:]


def describe_bad_config(class_name: str, error: ValidationError, *, values: bool = True) -> str:
    """One sentence with every bad field, what it takes and, where `values` may be shown, its value."""
    parts = []
    for item in error.errors(include_url=False, include_context=False)[:10]:
        field = ".".join(str(step) for step in item["loc"]) or "(the config)"
        given = f", not {_cut(repr(item['input']), 200)}" if values and item["type"] != "missing" else ""
        parts.append(f"{field}: {item['msg']}{given}")
    return storable(f"the config of {class_name} is wrong: " + "; ".join(parts), MAX_MESSAGE)


def storable(text: str, limit: int | None = None) -> str:
    """Without what a database or the wire refuses (NUL, half surrogate pairs), at most `limit` characters."""
    if "\0" in text:
        text = text.replace("\0", "\\0")
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if limit is None else _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _bounded(wish: Any) -> timedelta | None:
    """A wish that a database can add to a time; None for what is no duration at all."""
    return min(max(wish, timedelta(0)), MAX_DURATION) if isinstance(wish, timedelta) else None


def _is_cost(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
