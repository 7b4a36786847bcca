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
_ARITHMETIC = frozenset({"_-_", "_*_", "_/_", "_%_", "-_"})
_COMPARISONS = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in"})
_LOGIC = frozenset({"_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"})
_QUIET = _COMPARISONS | _LOGIC | {_INDEX, "size", "contains", "startsWith", "endsWith", "matches"}
"""Functions that make no new strings, lists or objects: CEL frees those only with the values that it was given."""


class Misuse(Exception):
    """The expression uses `nodes` in a way that cannot be read beforehand. The text says how to write it."""


Path = tuple[str, ...]
"""A name and the literal keys after it: ("outputs", "total"), ("nodes", "charge", "outputs", "total")."""


@dataclass(slots=True)
class Uses:
    """Every place that is read; which functions are called; whether there are macros over lists and literals."""

    paths: set[Path] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    loops: bool = False
    builds: bool = False

    @property
    def lean(self) -> bool:
        """Whether an evaluation leaves next to nothing behind in memory that it shares with others."""
        noisy = self.builds or not self.calls.isdisjoint(_ARITHMETIC)
        return self.calls <= _QUIET | _ARITHMETIC and not (self.loops and noisy)


def uses_of(serialised: bytes) -> Uses:
    """What the expression refers to. Misuse if `nodes` is indexed by anything but a literal string."""
    uses = Uses()
    pending = [_only(_only(serialised, _ANY_VALUE), _CHECKED_EXPR)]
    while pending:
        pending.extend(_visit(pending.pop(), uses))
    return uses


def _visit(expression: bytes, uses: Uses) -> list[bytes]:
    """Notes what this node itself refers to; answers with the sub-expressions still to look at."""
    expression, steps = _descend(expression)
    node_id = _indexed_node(expression)
    if node_id is not None:
        if steps and steps[0] not in _OUTCOME:
            raise Misuse(f'nodes["{node_id}"] has outputs and error, not {steps[0]!r}')
        uses.paths.add(("nodes", node_id, *steps))
        return []
    for kind, body in _fields(expression):
        if kind == _IDENT:
            name = _text(body, 1).lstrip(".")
            if name == "nodes":
                raise Misuse('nodes takes one literal id: nodes["<node id>"].outputs')
            uses.paths.add((name, *steps))
        elif kind == _CALL:
            uses.calls.add(_text(body, 2))
            return [part for number, part in _fields(body) if number in (1, 3)]
        elif kind in (_LIST, _COMPREHENSION):
            uses.loops |= kind == _COMPREHENSION
            uses.builds |= kind == _LIST
            return [part for number, part in _fields(body) if _is_expression(kind, number)]
        elif kind == _STRUCT:
            uses.builds = True
            return [part for number, entry in _fields(body) if number == 2 for part in _entry(entry)]
    return []


def _descend(expression: bytes) -> tuple[bytes, list[str]]:
    """Down `.a` and `["b"]` to what they are asked of, and the keys from there on."""
    steps: list[str] = []
    while True:
        selected = _find(expression, _SELECT)
        if selected is not None:
            steps.append(_text(selected, 2))
            expression = _only(selected, 1)
            continue
        indexed = _indexed(expression)
        key = None if indexed is None or _is_nodes(indexed[0]) else _literal(indexed[1])
        if indexed is None or key is None:
            return expression, steps[::-1]
        steps.append(key)
        expression = indexed[0]


def _indexed_node(expression: bytes) -> str | None:
    """The id in `nodes["id"]`; None for any other expression. Misuse for `nodes[<anything else>]`."""
    indexed = _indexed(expression)
    if indexed is None or not _is_nodes(indexed[0]):
        return None
    literal = _literal(indexed[1])
    if literal is None:
        raise Misuse('nodes is indexed by a literal string only: nodes["<node id>"]')
    return literal


def _indexed(expression: bytes) -> tuple[bytes, bytes] | None:
    """`a` and `b` of `a[b]`."""
    call = _find(expression, _CALL)
    if call is None or _text(call, 2) != _INDEX:
        return None
    whole, key = (part for number, part in _fields(call) if number == 3)
    return whole, key


def _is_nodes(expression: bytes) -> bool:
    ident = _find(expression, _IDENT)
    return ident is not None and _text(ident, 1).lstrip(".") == "nodes"


def _literal(expression: bytes) -> str | None:
    constant = _find(expression, _CONST)
    literal = None if constant is None else _find(constant, _CONST_STRING)
    return None if literal is None else literal.decode()


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
