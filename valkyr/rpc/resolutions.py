"""What operators send to resolve a quarantine, read and checked alike by every service that takes it.

The dead letter queue passes on what it took: what it keeps, the executor must be able to do.
"""

from __future__ import annotations

from typing import Any

import orjson
from google.protobuf.struct_pb2 import Value

from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.graph.depths import is_deeper
from valkyr.graph.limits import CARRIED_DEPTH
from valkyr.rpc.values import value_to_plain

MAX_REASON = 2_000
"""Characters: reasons stand in lists of runs and of letters."""
MAX_INPUTS = 4 * 1024 * 1024
MAX_OUTPUTS = 1024 * 1024
"""Both in bytes of JSON."""
_PARTS = ("trigger", "nodes")


def read_reason(reason: str, *, required: bool = False) -> str:
    """InvalidRequest where it is too long, holds a NUL, or is empty although it is `required`."""
    if required and not reason.strip():
        raise InvalidRequest.of_field("reason", f"{reason[:64]!r} is empty; say why the run is given up")
    if len(reason) > MAX_REASON:
        raise InvalidRequest.of_field("reason", f"has {len(reason):,} characters; at most {MAX_REASON:,} are allowed")
    if "\x00" in reason:
        raise InvalidRequest.of_field(
            "reason", f"{reason[:64]!r} holds a NUL character, which cannot be stored; remove it"
        )
    return reason


def read_inputs(value: Value) -> dict[str, Any]:
    """A whole inputs document: `trigger`, and `nodes` with an object for each. InvalidRequest, LimitExceeded."""
    inputs = value_to_plain(value, "inputs")
    if not isinstance(inputs, dict):
        raise InvalidRequest.of_field(
            "inputs",
            f"{_shown(inputs)} is no object; takes one with `trigger` and `nodes`, or leave it out to keep them",
        )
    for name in sorted(inputs.keys() - set(_PARTS)):
        raise InvalidRequest.of_field(f"inputs.{name}", "is unknown; inputs have `trigger` and `nodes` only")
    for name in _PARTS:
        if name not in inputs:
            raise InvalidRequest.of_field(
                f"inputs.{name}", "is missing; the inputs are replaced whole, so take those that it had and change them"
            )
    _check_nodes(inputs["nodes"])
    _check_payload(inputs, "inputs", MAX_INPUTS)
    return inputs


def read_outputs(request: Any) -> Any:
    """What the run would have answered: the field `outputs`, which has to be there. InvalidRequest, LimitExceeded."""
    if not request.HasField("outputs"):
        raise InvalidRequest.of_field("outputs", "is required: what the run would have answered; null is an answer")
    outputs = value_to_plain(request.outputs, "outputs")
    _check_payload(outputs, "outputs", MAX_OUTPUTS)
    return outputs


def _check_nodes(nodes: Any) -> None:
    if not isinstance(nodes, dict):
        raise InvalidRequest.of_field(
            "inputs.nodes", f"{_shown(nodes)} is no object; takes one of node ids, each with its `outputs`"
        )
    for name, result in nodes.items():
        if not isinstance(result, dict):
            raise InvalidRequest.of_field(
                f"inputs.nodes.{name}", f'{_shown(result)} is no object; takes {{"outputs": {_shown(result)}}}'
            )


def _check_payload(plain: Any, path: str, limit: int) -> None:
    if is_deeper(plain, CARRIED_DEPTH):
        raise LimitExceeded.of_field(path, f"is nested deeper than {CARRIED_DEPTH} levels; flatten it")
    size = len(orjson.dumps(plain))
    if size > limit:
        raise LimitExceeded.of_field(
            path, f"{size:,} bytes of JSON, over {limit:,}; store it elsewhere, send where it is"
        )


def _shown(plain: Any) -> str:
    return orjson.dumps(plain).decode()[:64]
