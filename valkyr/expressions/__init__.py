"""Templates and conditions in CEL: compiles them, reports what they refer to, evaluates them.

Names an expression may use: `trigger`, `execution`, `nodes["<literal id>"].outputs` and `.error`; in conditions also
`outputs` and `error`. Compiled values are immutable and may be shared by threads; CEL itself runs under the GIL.
"""

from __future__ import annotations

from valkyr.expressions.cel import MAX_DEPTH, MAX_EXPRESSION_BYTES, Condition, ExpressionError, compile_condition
from valkyr.expressions.scope import Bindings, Scope
from valkyr.expressions.template import Template, compile_template, has_expressions

__all__ = [
    "MAX_DEPTH",
    "MAX_EXPRESSION_BYTES",
    "Bindings",
    "Condition",
    "ExpressionError",
    "Scope",
    "Template",
    "compile_condition",
    "compile_template",
    "has_expressions",
]
