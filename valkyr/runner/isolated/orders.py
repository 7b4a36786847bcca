"""What a child is told: whose function it runs, within which limits, and each run; and what it answers of a run."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from valkyr.module import ModuleSpec, ProcessLimits
from valkyr.runner.attempt import Attempt
from valkyr.runner.isolated.frames import BrokenFrame, Frame, Kind
from valkyr.runner.leases import Failure, FailureType, LeasedRun, LeaseRef, Success
from valkyr.stored_json import MAX_PROGRESS_BYTES, encode

MAX_LOG_LINE = 64 * 1024
MAX_LOG_FIELD = 4000
"""Bytes of a line of the log that pass whole, and characters of each field of one that is longer."""

Outcome = Success | Failure


def set_up(spec: ModuleSpec, settings: Mapping[str, Any]) -> Frame:
    """TypeError, AttributeError or pickle.PicklingError if a setting cannot be handed to another process."""
    limits = spec.limits or ProcessLimits()
    module, file = _home(spec)
    fields = {
        "class_name": spec.class_name,
        "module": module,
        "file": file,
        "qualname": spec.function.__qualname__,
        "memory": limits.memory,
        "cpu": None if limits.cpu is None else limits.cpu.total_seconds(),
        "open_files": limits.open_files,
    }
    return Frame(Kind.SET_UP, fields, pickle.dumps(dict(settings)))


def _home(spec: ModuleSpec) -> tuple[str, str]:
    """The name to import its function's module by; for a program that was started as a file, that file."""
    name = spec.function.__module__
    if name != "__main__":
        return name, ""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name, ""
    return "", str(getattr(main, "__file__", ""))


def run_order(attempt: Attempt) -> Frame:
    """Of an attempt that has been started: its deadline counts from then."""
    leased, deadline = attempt.leased, attempt.deadline()
    fields = {
        "execution_id": leased.ref.execution_id,
        "run_id": leased.ref.run_id,
        "epoch": leased.ref.epoch,
        "attempt": leased.attempt,
        "node_id": leased.node_id,
        "idempotency_key": leased.idempotency_key,
        "deadline": None if deadline is None else deadline.isoformat(),
        "traceparent": leased.traceparent,
        "target": leased.target,
        "config_bytes": len(leased.config),
        "inputs_bytes": len(leased.inputs),
    }
    return Frame(Kind.RUN, fields, leased.config + leased.inputs + leased.progress)


def ordered(frame: Frame, class_name: str) -> LeasedRun:
    """In the child, the run that `run_order` was made from. Its time is watched by the runner, so that it has none."""
    fields, config = frame.fields, frame.fields["config_bytes"]
    inputs = config + fields["inputs_bytes"]
    return LeasedRun(
        ref=LeaseRef(fields["execution_id"], fields["run_id"], fields["epoch"]),
        attempt=fields["attempt"],
        node_id=fields["node_id"],
        class_name=class_name,
        config=frame.body[:config],
        inputs=frame.body[config:inputs],
        progress=frame.body[inputs:],
        idempotency_key=fields["idempotency_key"],
        lease_duration=timedelta(0),
        deadline=None if fields["deadline"] is None else datetime.fromisoformat(fields["deadline"]),
        traceparent=fields["traceparent"],
        target=fields["target"],
    )


def logged(line: str) -> Frame:
    """A line of the child's log, as JSON; of one that is too long each field is cut."""
    body = line.encode("utf-8", "backslashreplace")
    return Frame(Kind.LOG, {}, body if len(body) <= MAX_LOG_LINE else _shortened(body))


def _shortened(line: bytes) -> bytes:
    fields = {key: _cut(value) for key, value in orjson.loads(line).items()}
    data = orjson.dumps(fields)
    if len(data) > MAX_LOG_LINE:  # so many fields
        data = orjson.dumps({key: fields[key] for key in ("event", "level", "logger") if key in fields})
    return data


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return value if len(text) <= MAX_LOG_FIELD else f"{text[:MAX_LOG_FIELD]}..."


def progress_of(leased: LeasedRun, said: bytes) -> Frame:
    """What a run has told of its progress."""
    return Frame(Kind.PROGRESS, {"run_id": leased.ref.run_id, "epoch": leased.ref.epoch}, said)


def is_of(frame: Frame, attempt: Attempt) -> bool:
    """Else it is of a run that this process has run before."""
    return (frame.fields.get("run_id"), frame.fields.get("epoch")) == attempt.key


def told_progress(frame: Frame) -> bytes:
    """JSON. BrokenFrame if it cannot be stored."""
    try:
        encode(orjson.loads(frame.body), limit=MAX_PROGRESS_BYTES)
    except ValueError:
        raise BrokenFrame("a progress that cannot be stored") from None
    return frame.body


def answer(outcome: Outcome, *, without_values: str, worn_out: bool, kind: Kind = Kind.ENDED) -> Frame:
    """`without_values`: a failure's message for places that keep no payloads. `worn_out`: run nothing more in here."""
    if isinstance(outcome, Success):
        return Frame(kind, {"cost_tokens": outcome.cost_tokens, "worn_out": worn_out}, outcome.outputs)
    wish = outcome.retry_after
    fields = {
        "type": outcome.type,
        "message": outcome.message,
        "stack_trace": outcome.stack_trace,
        "retry_after": None if wish is None else wish.total_seconds(),
        "without_values": without_values,
        "worn_out": worn_out,
    }
    return Frame(kind, fields)


def answered(frame: Frame) -> Outcome:
    """BrokenFrame if it is no answer."""
    fields = frame.fields
    try:
        if "type" not in fields:
            return Success(frame.body, fields["cost_tokens"])
        wish = fields["retry_after"]
        retry_after = None if wish is None else timedelta(seconds=wish)
        return Failure(FailureType(fields["type"]), fields["message"], fields["stack_trace"], retry_after)
    except (KeyError, ValueError, TypeError, OverflowError):
        raise BrokenFrame("an answer that cannot be read") from None
