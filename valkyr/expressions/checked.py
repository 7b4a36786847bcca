"""Reads what an expression refers to from CEL's checked AST, a serialised cel.expr.CheckedExpr inside an Any.

Only the handful of fields that matter are decoded, by number, so that no generated code for cel.expr is needed:
https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_ANY_VALUE = 2
_CHECKED_EXPR = 4
_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9
_CONST_STRING = 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INDEX = "_[_]"
_OUTCOME = frozenset({"outputs", "error"})


class Misuse(Exception):
    """The expression uses `nodes` in a way that cannot be read beforehand. The text says how to write it."""


@dataclass(slots=True)
class Uses:
    """Names used at the top level, and the literal ids that index `nodes`."""

    names: set[str] = field(default_factory=set)
    node_ids: set[str] = field(default_factory=set)


def uses_of(serialised: bytes) -> Uses:
    """What the expression refers to. Misuse if `nodes` is indexed by anything but a literal string."""
    uses = Uses()
    pending = [_only(_only(serialised, _ANY_VALUE), _CHECKED_EXPR)]
    while pending:
        pending.extend(_visit(pending.pop(), uses))
    return uses


def _visit(expression: bytes, uses: Uses) -> list[bytes]:
    """Notes what this node itself refers to; answers with the sub-expressions still to look at."""
    for kind, body in _fields(expression):
        if kind == _IDENT:
            name = _text(body, 1).lstrip(".")
            if name == "nodes":
                raise Misuse('nodes takes one literal id: nodes["<node id>"].outputs')
            uses.names.add(name)
        elif kind == _SELECT:
            operand = _only(body, 1)
            node_id = _indexed_node(operand)
            name = _text(body, 2)
            if node_id is not None and name not in _OUTCOME:
                raise Misuse(f'nodes["{node_id}"] has outputs and error, not {name!r}')
            return _visit(operand, uses)
        elif kind == _CALL:
            return _visit_call(expression, body, uses)
        elif kind in (_LIST, _COMPREHENSION):
            return [part for number, part in _fields(body) if _is_expression(kind, number)]
        elif kind == _STRUCT:
            return [part for number, entry in _fields(body) if number == 2 for part in _entry(entry)]
    return []


def _visit_call(expression: bytes, call: bytes, uses: Uses) -> list[bytes]:
    node_id = _indexed_node(expression)
    if node_id is not None:
        uses.names.add("nodes")
        uses.node_ids.add(node_id)
        return []
    return [part for number, part in _fields(call) if number in (1, 3)]


def _indexed_node(expression: bytes) -> str | None:
    """The id in `nodes["id"]`; None for any other expression. Misuse for `nodes[<anything else>]`."""
    call = _find(expression, _CALL)
    if call is None or _text(call, 2) != _INDEX:
        return None
    arguments = [part for number, part in _fields(call) if number == 3]
    ident = _find(arguments[0], _IDENT)
    if ident is None or _text(ident, 1).lstrip(".") != "nodes":
        return None
    constant = _find(arguments[1], _CONST)
    literal = None if constant is None else _find(constant, _CONST_STRING)
    if literal is None:
        raise Misuse('nodes is indexed by a literal string only: nodes["<node id>"]')
    return literal.decode()


def _is_expression(kind: int, number: int) -> bool:
    """A list has elements (1); a comprehension has a range, an initial value, a condition, a step and a result."""
    return number == 1 if kind == _LIST else number in (2, 4, 5, 6, 7)


def _entry(entry: bytes) -> list[bytes]:
    return [part for number, part in _fields(entry) if number in (3, 4)]


def _find(message: bytes, wanted: int) -> bytes | None:
    return next((body for number, body in _fields(message) if number == wanted), None)


def _only(message: bytes, wanted: int) -> bytes:
    body = _find(message, wanted)
    if body is None:
        raise ValueError(f"the checked expression has no field {wanted}: an unknown version of cel-expr-python?")
    return body


def _text(message: bytes, wanted: int) -> str:
    return (_find(message, wanted) or b"").decode()


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message, in order; numbers are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire_type = key & 7
        if wire_type == _BYTES:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + size]
            at += size
        elif wire_type == _VARINT:
            _, at = _varint(message, at)
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} in a checked expression: an unknown version of cel-expr-python?")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
