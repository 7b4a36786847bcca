"""Templates: JSON whose strings may hold `${ ... }`.

A string that is one whole expression keeps the type of its value; in others, values that are no strings appear as JSON.
`$${` is a literal `${`. An expression ends at the `}` that matches: braces, strings and comments of CEL are respected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from valkyr.expressions.cel import Expression, ExpressionError, compile_expression
from valkyr.expressions.scope import Bindings, Scope
from valkyr.expressions.values import NotPlain, check_depth

# A whole string, comment or name: a brace inside closes nothing. Names, so that the r of `for"` starts no raw string.
_OPAQUE = re.compile(
    "|".join(
        [
            r"(?:[rR][bB]?|[bB][rR])(?:\'\'\'.*?\'\'\'|\"\"\".*?\"\"\"|\'[^\'\n]*\'|\"[^\"\n]*\")",
            r"\'\'\'(?:\\.|[^\\])*?\'\'\'|\"\"\"(?:\\.|[^\\])*?\"\"\"",
            r"\'(?:\\.|[^\'\\\n])*\'|\"(?:\\.|[^\"\\\n])*\"",
            r"//[^\n]*",
            r"[A-Za-z_][A-Za-z0-9_]*",
        ]
    ),
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Joined:
    """A string of several parts: literal text and expressions."""

    parts: tuple[str | Expression, ...]

    def evaluate(self, scope: Scope) -> str:
        return "".join(part if isinstance(part, str) else _shown(part.evaluate(scope)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Object:
    """An object with something to evaluate: `constant` holds all members in order, `dynamic` what replaces some."""

    constant: dict[str, Any]
    dynamic: tuple[tuple[str, _Part], ...]

    def evaluate(self, scope: Scope) -> dict[str, Any]:
        filled = self.constant.copy()
        for key, part in self.dynamic:
            filled[key] = part.evaluate(scope)
        return filled


@dataclass(frozen=True, slots=True)
class _Array:
    """As _Object, for lists."""

    constant: list[Any]
    dynamic: tuple[tuple[int, _Part], ...]

    def evaluate(self, scope: Scope) -> list[Any]:
        filled = self.constant.copy()
        for index, part in self.dynamic:
            filled[index] = part.evaluate(scope)
        return filled


_Part = Expression | _Joined | _Object | _Array


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template. Immutable; may be evaluated by several threads at once.

    What holds no expression is returned as the very object that was compiled: treat results as read-only.
    """

    references: frozenset[str]
    names: frozenset[str]
    source: str
    constant: Any
    dynamic: _Part | None

    @property
    def uses_trigger(self) -> bool:
        return "trigger" in self.names

    def evaluate(self, scope: Scope) -> Any:
        """The JSON value with every expression replaced. ExpressionError names the expression that could not be."""
        if self.dynamic is None:
            return self.constant
        shared = scope if scope.bindings else replace(scope, bindings=Bindings())
        return self.dynamic.evaluate(shared)


def compile_template(config: Any) -> Template:
    """ExpressionError for the first string whose expression does not compile, and for JSON deeper than 64 levels."""
    try:
        check_depth(config)
    except NotPlain as error:
        raise ExpressionError(f"the value {error}", "") from None
    expressions: list[Expression] = []
    compiled = _compile_value(config, expressions)
    dynamic = compiled if isinstance(compiled, _Part) else None
    return Template(
        references=frozenset().union(*(expression.references for expression in expressions)),
        names=frozenset(path[0] for expression in expressions for path in expression.paths),
        source=", ".join(expression.text for expression in expressions[:3]),
        constant=None if dynamic is not None else compiled,
        dynamic=dynamic,
    )


def has_expressions(value: Any) -> bool:
    """Whether evaluating the value could give anything but itself: some string in it holds `${`."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "${" in item:
                return True
        elif isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
    return False


def _compile_value(value: Any, expressions: list[Expression]) -> Any:
    """A _Part if there is something to evaluate, else the value: itself, unless a `$${` in it had to be unescaped."""
    if isinstance(value, str):
        return _compile_string(value, expressions) if "${" in value else value
    if isinstance(value, Mapping):
        members = {key: _compile_value(item, expressions) for key, item in value.items()}
        dynamic = tuple((key, part) for key, part in members.items() if isinstance(part, _Part))
        if dynamic:
            return _Object(members, dynamic)
        return value if all(members[key] is item for key, item in value.items()) else members
    if isinstance(value, list | tuple):
        items = [_compile_value(item, expressions) for item in value]
        moving = tuple((index, part) for index, part in enumerate(items) if isinstance(part, _Part))
        if moving:
            return _Array(items, moving)
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def _compile_string(text: str, expressions: list[Expression]) -> str | Expression | _Joined:
    parts: list[str | Expression] = []
    literal: list[str] = []
    at = 0
    while (found := text.find("${", at)) >= 0:
        if found > at and text[found - 1] == "$":
            literal.append(text[at : found - 1] + "${")
            at = found + 2
            continue
        literal.append(text[at:found])
        end = _end_of_expression(text, found + 2)
        expression = compile_expression(text[found + 2 : end])
        expressions.append(expression)
        if joined := "".join(literal):
            parts.append(joined)
        literal.clear()
        parts.append(expression)
        at = end + 1
    if tail := "".join([*literal, text[at:]]):
        parts.append(tail)
    if len(parts) == 1 and isinstance(parts[0], str | Expression):
        return parts[0]
    return _Joined(tuple(parts)) if parts else ""


def _end_of_expression(text: str, start: int) -> int:
    """Where the `}` is that closes the expression starting at `start`."""
    depth = 0
    at = start
    while at < len(text):
        letter = text[at]
        if letter == "}" and depth == 0:
            return at
        depth += (letter == "{") - (letter == "}")
        token = _OPAQUE.match(text, at)
        at = token.end() if token else at + 1
    raise ExpressionError("its closing } is missing", text[start:])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
