"""One CEL expression: compiled once, evaluated often, with errors a person understands."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_math

from valkyr.expressions.checked import Misuse, Path, Uses, uses_of
from valkyr.expressions.scope import Bindings, Bound, Scope, shortest
from valkyr.expressions.values import MAX_DEPTH, NotPlain, plain

__all__ = [
    "MAX_DEPTH",
    "MAX_EXPRESSION_BYTES",
    "Condition",
    "Expression",
    "ExpressionError",
    "Scope",
    "compile_condition",
]

MAX_EXPRESSION_BYTES = 4096
MAX_MESSAGE = 500
"""Characters: CEL's own errors may quote whole values."""

_TEMPLATE_NAMES = ("trigger", "execution", "nodes")
_CONDITION_NAMES = (*_TEMPLATE_NAMES, "outputs", "error")
_COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")
_MISSING_KEY = re.compile(r'Key not found in map : (?:"(.*)"|(.*))', re.DOTALL)
_STATUS = re.compile(r"^[A-Z_]+: ")


class ExpressionError(Exception):
    """An expression does not compile, or gave no usable value. `str(error)` names the expression and what was wrong.

    `message` and `str(error)` can be stored and shown whatever CEL or a value put into them: printable, and bounded.
    """

    def __init__(self, message: str, expression: str) -> None:
        shown = expression if len(expression) <= 200 else expression[:200] + "..."
        self.message = _storable(message)
        super().__init__(f"expression {shown!r}: {self.message}")
        self.expression = expression


class _NoTruth(Exception):
    """A condition gave something else than true or false."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. Immutable; may be evaluated by several threads at once."""

    text: str
    paths: tuple[Path, ...]
    lean: bool
    program: Any
    environment: Any

    @property
    def references(self) -> frozenset[str]:
        return frozenset(path[1] for path in self.paths if path[0] == "nodes")

    @property
    def uses_trigger(self) -> bool:
        return any(path[0] == "trigger" for path in self.paths)

    def evaluate(self, scope: Scope) -> Any:
        """A plain JSON value. ExpressionError if something is missing or does not fit."""
        return self._run(scope, plain)

    def evaluate_bool(self, scope: Scope) -> bool:
        """As `evaluate`, where only true and false will do."""
        return bool(self._run(scope, _truth))

    def _run(self, scope: Scope, convert: Callable[[Any], Any]) -> Any:
        """The only place where CEL's results become ours: whatever goes wrong here is the expression's error."""
        bound = self._bind(scope)
        try:
            # What an evaluation makes is freed with its activation: only lean ones may share it.
            given = {"activation": bound.activation} if self.lean else {"data": bound.data}
            result = self.program.eval(**given)
            if result.type() != cel.Type.ERROR:
                return convert(result)
            problem = _explain(str(result.value()))
        except NotPlain as error:
            problem = f"its result {error}"
        except _NoTruth as error:
            problem = str(error)
        except RuntimeError as error:
            problem = _explain(str(error))
        except Exception as error:  # noqa: BLE001 - CEL's binding raises whatever the conversion met
            problem = f"its result cannot be read: {type(error).__name__}: {error}"
        raise ExpressionError(problem, self.text)

    def _bind(self, scope: Scope) -> Bound:
        try:
            return (scope.bindings or Bindings()).bind(scope, self.paths, self.environment)
        except NotPlain as error:
            raise ExpressionError(f"what it reads {error}", self.text) from None


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of an edge. Immutable; may be evaluated by several threads at once."""

    expression: Expression

    @property
    def text(self) -> str:
        return self.expression.text

    @property
    def references(self) -> frozenset[str]:
        return self.expression.references

    @property
    def uses_trigger(self) -> bool:
        return self.expression.uses_trigger

    def evaluate(self, scope: Scope) -> bool:
        """True or false. ExpressionError if something is missing, or if the result is neither."""
        return self.expression.evaluate_bool(scope)


def compile_condition(text: str) -> Condition:
    """ExpressionError if it is no CEL, uses an unknown name, cannot be a bool, or is over 4 KiB."""
    expression = _compile(text, _condition_environment())
    kind = expression.program.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise ExpressionError(f"a condition has to give true or false, and this gives {kind.name().lower()}", text)
    return Condition(expression)


def compile_expression(text: str) -> Expression:
    """One `${...}` of a template, without its braces. ExpressionError as for conditions."""
    return _compile(text, _template_environment())


def _truth(result: Any) -> bool:
    value = result.value()
    if value is True or value is False:
        return bool(value)
    raise _NoTruth(f"a condition has to give true or false, and this gave {str(value)[:64]!r}")


def _compile(text: str, environment: Any) -> Expression:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_EXPRESSION_BYTES:
        raise ExpressionError(f"it has {size} bytes, and {MAX_EXPRESSION_BYTES} are allowed", text)
    if not text.strip():
        raise ExpressionError("it is empty", text)
    if not text.isprintable() and any(ord(letter) == 0 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise ExpressionError("it holds a NUL character or half a surrogate pair", text)
    try:
        program = environment.compile(text)
        uses: Uses = uses_of(program.serialize())
    except Misuse as error:
        raise ExpressionError(str(error), text) from None
    except RuntimeError as error:
        raise ExpressionError(_explain_compilation(str(error)), text) from None
    paths = shortest(path for path in uses.paths if path[0] in _CONDITION_NAMES)
    return Expression(text, paths, uses.lean, program, environment)


@cache
def _template_environment() -> Any:
    return _environment(_TEMPLATE_NAMES)


@cache
def _condition_environment() -> Any:
    return _environment(_CONDITION_NAMES)


def _environment(names: tuple[str, ...]) -> Any:
    return cel.NewEnv(
        variables=dict.fromkeys(names, cel.Type.DYN), extensions=[_mixed_arithmetic(), ext_math.ExtMath()]
    )


def _mixed_arithmetic() -> Any:
    """JSON has one kind of number and CEL two: 120 and 120.5 have to behave alike in `outputs.total * 2`."""
    operators: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
        "_+_": ("add", operator.add),
        "_-_": ("subtract", operator.sub),
        "_*_": ("multiply", operator.mul),
        "_/_": ("divide", operator.truediv),
    }
    # Declared to give anything: as a double, `outputs.total * 1.5 == 180` would not compile for want of a 180.0.
    integer, double, either = cel.Type.INT, cel.Type.DOUBLE, cel.Type.DYN
    declarations = [
        cel.FunctionDecl(
            symbol,
            [
                cel.Overload(f"{name}_int64_double", return_type=either, parameters=[integer, double], impl=function),
                cel.Overload(f"{name}_double_int64", return_type=either, parameters=[double, integer], impl=function),
            ],
        )
        for symbol, (name, function) in operators.items()
    ]
    return cel.CelExtension("valkyr.mixed_arithmetic", declarations)


def _explain_compilation(text: str) -> str:
    match = _COMPILE_ERROR.search(text)
    if match is None:
        return _STATUS.sub("", text).removesuffix("]").rsplit(" [", 1)[0]
    column, what = int(match.group(2)), match.group(3).split(" expecting {")[0]
    unknown = re.match(r"undeclared reference to '([^']*)'", what)
    if unknown:
        return (
            f'there is no name {unknown.group(1)!r}: use trigger, execution or nodes["<node id>"], '
            "in conditions of edges also outputs and error"
        )
    return f"{what} (at character {column})" if column > 0 else what


def _explain(text: str) -> str:
    """CEL's own words where they are plain, and better ones for what authors meet daily."""
    missing = _MISSING_KEY.search(text)
    if missing:
        key = missing.group(1) if missing.group(1) is not None else missing.group(2)
        return f"there is no {key!r} (ask has(...) first if it may be missing)"
    if "Applying SELECT to non-message type" in text:
        return "it asks for a field of a value that is no object (of null, perhaps)"
    if "Iteration budget exceeded" in text:
        return "it takes too many steps: macros over lists may take 10,000 in all"
    if "<jump_condition>" in text or "_&&_" in text or "_||_" in text:
        return "it uses a value that is neither true nor false as a condition"
    return _STATUS.sub("", text).removesuffix(" [INTERNAL]")


def _storable(text: str) -> str:
    """Without what PostgreSQL and protobuf refuse (NUL, half surrogate pairs) or a terminal obeys, and bounded."""
    text = text[: MAX_MESSAGE * 4].replace("\0", "")
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return _cut(text, MAX_MESSAGE)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
