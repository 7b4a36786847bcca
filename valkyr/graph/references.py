"""Checks of expressions: conditions and the strings of configs compile, and name only ancestors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from valkyr.expressions import ExpressionError, compile_condition, compile_template, has_expressions
from valkyr.graph.fields import shown
from valkyr.graph.findings import Code, Finding, finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Edge
from valkyr.graph.shape import Shape

_Compile = Callable[[str], frozenset[str]]


class ReferenceCheck:
    """Checks the expressions of one graph. Who is whose ancestor is computed once, at the first reference."""

    def __init__(self, shape: Shape, limits: Limits) -> None:
        self._shape = shape
        self._limits = limits
        self._known: dict[tuple[_Compile, str], frozenset[str] | ExpressionError] = {}
        self._count = 0
        self._told = False

    def of_condition(self, edge: Edge, index: int) -> Iterator[Finding]:
        """BAD_EXPRESSION and UNKNOWN_REFERENCE of an edge's condition, which may name its source and what is before."""
        path = f"edges[{index}].condition"
        size = len(edge.condition.encode())
        if size > self._limits.expression_bytes:
            yield self._too_long(path, size, edge_ids=(edge.edge_id,))
            return
        references = self._references_of(edge.condition, _of_condition, count=1)
        if references is None:
            yield from self._too_many(path)
            return
        if isinstance(references, ExpressionError):
            yield _bad_expression(path, references, edge_ids=(edge.edge_id,))
            return
        unknown = self._unknown(references, edge.source, itself=True)
        yield from self._report(unknown, path, f"before the end of {shown(edge.source)}", edge_ids=(edge.edge_id,))

    def of_config(self, config: object, node_id: str, path: str) -> Iterator[Finding]:
        """BAD_EXPRESSION and UNKNOWN_REFERENCE of the strings in a config, which may name ancestors of its node."""
        for text, where in _strings(config, path):
            if "${" not in text or not has_expressions(text):
                continue
            references = self._references_of(text, _of_template, count=text.count("${"))
            if references is None:
                yield from self._too_many(where)
                return
            if isinstance(references, ExpressionError):
                yield self._bad_template(where, references, node_id)
                continue
            unknown = self._unknown(references, node_id, itself=False)
            yield from self._report(unknown, where, f"before {shown(node_id)}", node_ids=(node_id,))

    def _references_of(self, text: str, compiled: _Compile, *, count: int) -> frozenset[str] | ExpressionError | None:
        """Graphs repeat themselves: a text that many configs hold is compiled once. None if there are too many."""
        known = self._known.get((compiled, text))
        if known is None:
            self._count += count
            if self._count > self._limits.expressions:
                return None
            try:
                known = compiled(text)
            except ExpressionError as error:
                known = error
            self._known[compiled, text] = known
        return known

    def _too_many(self, path: str) -> Iterator[Finding]:
        """Said once, where the limit was passed."""
        if not self._told:
            self._told = True
            yield finding(
                Code.LIMIT_EXCEEDED,
                path,
                f"the graph has more than {self._limits.expressions:,} expressions",
                "split it into several workflows; the expressions from here on were not checked",
            )

    @cached_property
    def _ancestors(self) -> list[int]:
        return self._shape.ancestors()

    def _unknown(self, references: Iterable[str], node_id: str, *, itself: bool) -> list[str]:
        """The references that name no ancestor. If the node itself is unknown, any other will do."""
        numbers = self._shape.numbers
        place = numbers.get(node_id)
        if place is None:
            return sorted(name for name in references if name not in numbers)
        ancestors = self._ancestors[place] | (1 << place if itself else 0)
        return sorted(name for name in references if name not in numbers or not ancestors >> numbers[name] & 1)

    def _report(
        self,
        unknown: Iterable[str],
        path: str,
        place: str,
        *,
        node_ids: tuple[str, ...] = (),
        edge_ids: tuple[str, ...] = (),
    ) -> Iterator[Finding]:
        for name in unknown:
            exists = name in self._shape.numbers
            why = f"which does not run {place}" if exists else "which is not in the graph"
            yield finding(
                Code.UNKNOWN_REFERENCE,
                path,
                f"the expression names node {shown(name)}, {why}",
                "name an ancestor, or add the edges that make it one" if exists else "name a node that is there",
                node_ids=(*node_ids, name),
                edge_ids=edge_ids,
            )

    def _bad_template(self, path: str, error: ExpressionError, node_id: str) -> Finding:
        size = len(error.expression.encode())
        if size > self._limits.expression_bytes:
            return self._too_long(path, size, node_ids=(node_id,))
        return _bad_expression(path, error, node_ids=(node_id,))

    def _too_long(
        self, path: str, size: int, *, node_ids: tuple[str, ...] = (), edge_ids: tuple[str, ...] = ()
    ) -> Finding:
        return finding(
            Code.LIMIT_EXCEEDED,
            path,
            f"the expression has {size:,} bytes; at most {self._limits.expression_bytes:,} are allowed",
            "move part of it into a node of its own, with TransformModule",
            node_ids=node_ids,
            edge_ids=edge_ids,
        )


def _bad_expression(
    path: str, error: ExpressionError, *, node_ids: tuple[str, ...] = (), edge_ids: tuple[str, ...] = ()
) -> Finding:
    return finding(
        Code.BAD_EXPRESSION,
        path,
        f"{shown(error.expression)} does not compile: {error.message[:500]}",
        'expressions are CEL over trigger, execution and nodes["<ancestor>"].outputs; $${ is a literal ${',
        node_ids=node_ids,
        edge_ids=edge_ids,
    )


def _of_condition(text: str) -> frozenset[str]:
    return compile_condition(text).references


def _of_template(text: str) -> frozenset[str]:
    return compile_template(text).references


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string value in a JSON value with its path. Its depth was checked before."""
    if isinstance(value, str):
        yield value, path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]")
