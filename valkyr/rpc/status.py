"""Errors <-> gRPC statuses: the one place that knows grpc.StatusCode. Servers turn a ValkyrError into a status with
ErrorInfo, BadRequest and RetryInfo; clients turn it back into the same class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from valkyr.api.common.v1 import common_pb2
from valkyr.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Difference,
    Disagreement,
    Forbidden,
    Internal,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
    UnknownMethod,
    ValkyrError,
    Violation,
    WrongState,
    all_kinds,
)

GRPC_CODE = "grpcCode"
"""Metadata of an error that gRPC itself made, without a word from the server."""
DOMAIN = "valkyr"
DETAILS_KEY = "grpc-status-details-bin"
MAX_VALUE_LENGTH = 200
MAX_DESCRIPTION_LENGTH = 2 * MAX_VALUE_LENGTH
"""Of a violation: it shows a value, and what is wrong with that comes after it."""
MAX_MESSAGE_BYTES = 1200
MAX_DETAILS_BYTES = 2900
"""Together under 6 KiB of trailers: the message travels twice, once percent-encoded, and the details in base64."""
_FRAMING = 16
_ENTRY_FRAMING = 3

_CODES: Mapping[type[ValkyrError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    Conflict: grpc.StatusCode.ABORTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    UnknownMethod: grpc.StatusCode.UNIMPLEMENTED,
    Internal: grpc.StatusCode.INTERNAL,
}
_KINDS: Mapping[grpc.StatusCode, type[ValkyrError]] = {code: kind for kind, code in _CODES.items()} | {
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
}
_HINTS: Mapping[type[ValkyrError], str] = {
    Unavailable: "check that the service is running and that the address is right, then try again",
    DeadlineExceeded: "try again with the same request_id, or allow more time",
    UnknownMethod: "client and server are of different versions: update the older one",
}


def code_of(error: ValkyrError) -> grpc.StatusCode:
    """The status code of the error's kind; INTERNAL for one that has none."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def to_grpc_status(error: ValkyrError) -> grpc.Status:
    """Code, message and trailers, for `context.abort(status.code, status.details, status.trailing_metadata)`.

    Values are cut to 200 characters, violations, differences and conflicts to what fits; `total` and `truncated` in
    ErrorInfo then say so.
    """
    message, violations, differences = _cut_message(error.message), error.details.violations, error.details.differences
    disagreements = error.details.disagreements
    status = status_pb2.Status(code=code_of(error).value[0], message=message)
    info = error_details_pb2.ErrorInfo(domain=DOMAIN, reason=error.reason)
    room = MAX_DETAILS_BYTES - len(message.encode())
    _fill_metadata(info, error, room=room // 2 if violations or differences or disagreements else room)
    extras: list[Message] = []
    if error.details.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(max(error.details.retry_after, timedelta()))
        extras.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if violations:
        bad_request = _bad_request(violations, room=room - info.ByteSize())
        extras.append(bad_request)
        _note_total(info, len(violations), fitted=len(bad_request.field_violations))
    if differences:
        fitting = _fitting_differences(differences, room=room - info.ByteSize() - sum(map(_size, extras)))
        extras.append(fitting)
        _note_total(info, len(differences), fitted=len(fitting.differences))
    if disagreements:
        conflicts = _fitting_conflicts(disagreements, room=room - info.ByteSize() - sum(map(_size, extras)))
        extras.append(conflicts)
        _note_total(info, len(disagreements), fitted=len(conflicts.conflicts))
    for detail in (info, *extras):
        status.details.add().Pack(detail)
    return rpc_status.to_status(status)


def from_rpc_error(error: grpc.RpcError) -> ValkyrError:
    """The error that the server raised: the same class by its reason, else the kind by its code, with all details.

    `metadata["reason"]` keeps a reason that this version does not know.
    """
    code, text = error.code(), error.details() or ""
    status = _status_of(error.trailing_metadata())
    if status is None:
        return _without_details(code, text)
    info, details = _unpack(status)
    kind = _KINDS.get(code, Internal)
    metadata = dict(info.metadata)
    found = _class_of_reason(info.reason, kind) if info.domain == DOMAIN else None
    if found is None and info.reason:
        metadata["reason"] = info.reason
    hint = metadata.pop("hint", "")
    return (found or kind)(status.message or text, hint=hint, metadata=metadata, **details)


@contextmanager
def rpc_errors() -> Iterator[None]:
    """Within it, a failed RPC raises the ValkyrError that it stands for."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def _fill_metadata(info: error_details_pb2.ErrorInfo, error: ValkyrError, *, room: int) -> None:
    entries = dict(error.details.metadata)
    if error.hint:
        entries = {"hint": error.hint} | entries
    for key, value in entries.items():
        value = value if key == "hint" and len(value) <= 2 * MAX_VALUE_LENGTH else _cut(value)
        if info.ByteSize() + len(key.encode()) + len(value.encode()) + _FRAMING > room:
            info.metadata["truncated"] = "true"
            return
        info.metadata[key] = value


def _bad_request(violations: Sequence[Violation], *, room: int) -> error_details_pb2.BadRequest:
    answer = error_details_pb2.BadRequest()
    for violation in violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field), description=_cut(violation.description, MAX_DESCRIPTION_LENGTH)
        )
        if answer.ByteSize() + entry.ByteSize() + _FRAMING > room:
            break
        answer.field_violations.append(entry)
    return answer


def _fitting_differences(differences: Sequence[Difference], *, room: int) -> common_pb2.Differences:
    answer = common_pb2.Differences()
    size = 0
    for difference in differences:
        entry = _difference_to_proto(difference)
        size += entry.ByteSize() + _ENTRY_FRAMING
        if size + _FRAMING > room:
            break
        answer.differences.append(entry)
    return answer


def _fitting_conflicts(disagreements: Sequence[Disagreement], *, room: int) -> common_pb2.Conflicts:
    answer = common_pb2.Conflicts()
    size = 0
    for disagreement in disagreements:
        entry = _conflict_to_proto(disagreement)
        size += entry.ByteSize() + _ENTRY_FRAMING
        if size + _FRAMING > room:
            break
        answer.conflicts.append(entry)
    return answer


def _conflict_to_proto(disagreement: Disagreement) -> common_pb2.Conflict:
    return common_pb2.Conflict(
        kind=common_pb2.Conflict.Kind.Value(disagreement.kind),
        part=common_pb2.Difference.Part.Value(disagreement.part),
        id=_cut(disagreement.id),
        path=_cut(disagreement.path),
        base=None if disagreement.base is None else _cut(disagreement.base),
        current=None if disagreement.current is None else _cut(disagreement.current),
        mine=None if disagreement.mine is None else _cut(disagreement.mine),
    )


def _conflict_from_proto(message: common_pb2.Conflict) -> Disagreement:
    return Disagreement(
        kind=_name_of(common_pb2.Conflict.Kind.DESCRIPTOR, message.kind),
        part=_name_of(common_pb2.Difference.Part.DESCRIPTOR, message.part),
        id=message.id,
        path=message.path,
        base=message.base if message.HasField("base") else None,
        current=message.current if message.HasField("current") else None,
        mine=message.mine if message.HasField("mine") else None,
    )


def _difference_to_proto(difference: Difference) -> common_pb2.Difference:
    return common_pb2.Difference(
        kind=common_pb2.Difference.Kind.Value(difference.kind),
        part=common_pb2.Difference.Part.Value(difference.part),
        id=_cut(difference.id),
        path=_cut(difference.path),
        old=None if difference.old is None else _cut(difference.old),
        new=None if difference.new is None else _cut(difference.new),
    )


def difference_from_proto(message: common_pb2.Difference) -> Difference:
    """An entry of a diff; a kind or part that only a newer server has is its number."""
    kinds, parts = common_pb2.Difference.Kind.DESCRIPTOR, common_pb2.Difference.Part.DESCRIPTOR
    return Difference(
        kind=_name_of(kinds, message.kind),
        part=_name_of(parts, message.part),
        id=message.id,
        path=message.path,
        old=message.old if message.HasField("old") else None,
        new=message.new if message.HasField("new") else None,
    )


def _name_of(enum: Any, number: int) -> str:
    """Its name, the number where a newer server has more of them."""
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name


def _note_total(info: error_details_pb2.ErrorInfo, total: int, *, fitted: int) -> None:
    if fitted < total:
        info.metadata["total"] = str(total)
        info.metadata["truncated"] = "true"


def _size(message: Message) -> int:
    return message.ByteSize()


def _cut(text: str, length: int = MAX_VALUE_LENGTH) -> str:
    text = _without_surrogates(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _cut_message(text: str) -> str:
    """Cut so that it stays short when percent-encoded too, where one character may take twelve bytes."""
    text = _without_surrogates(text)
    if len(text) * 12 <= MAX_MESSAGE_BYTES or len(quote(text, safe=_UNQUOTED)) <= MAX_MESSAGE_BYTES:
        return text
    shortest, longest = 0, len(text)
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if len(quote(text[:middle], safe=_UNQUOTED)) <= MAX_MESSAGE_BYTES - 9:
            shortest = middle
        else:
            longest = middle - 1
    return text[:shortest] + "…"


_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def _without_surrogates(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _class_of_reason(reason: str, kind: type[ValkyrError]) -> type[ValkyrError] | None:
    if kind.reason == reason:
        return kind
    return next((known for known in all_kinds(kind) if known.reason == reason), None)


def _status_of(trailers: Any) -> status_pb2.Status | None:
    for key, value in trailers or ():
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _unpack(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, dict[str, Any]]:
    """ErrorInfo, and the arguments of the error that stand in the other details."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    bad_request, differences = error_details_pb2.BadRequest(), common_pb2.Differences()
    conflicts = common_pb2.Conflicts()
    retry_after = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
        detail.Unpack(differences)
        detail.Unpack(conflicts)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    return info, {
        "violations": [Violation(entry.field, entry.description) for entry in bad_request.field_violations],
        "retry_after": retry_after,
        "differences": [difference_from_proto(entry) for entry in differences.differences],
        "disagreements": [_conflict_from_proto(entry) for entry in conflicts.conflicts],
    }


def _without_details(code: grpc.StatusCode, text: str) -> ValkyrError:
    """A status that gRPC itself made: no connection, a deadline, an unknown method, a message over the limit."""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return LimitExceeded(f"the message is over the limit of 16 MiB: {text}", hint="send or ask for less at a time")
    kind = _KINDS.get(code, Internal)
    name = code_pb2.Code.Name(code.value[0]) if code is not None else "UNKNOWN"
    return kind(text or f"the call failed with {name}", hint=_HINTS.get(kind, ""), metadata={GRPC_CODE: name})
