"""Expressions in the shape that plans want: compiled once per version, evaluated against what a run may see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from valkyr.expressions import (
    Bindings,
    Condition,
    ExpressionError,
    Scope,
    Template,
    compile_condition,
    compile_template,
)
from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.plan import Control, DedupeOf, Plan, Sight, TargetOf, make_plan
from valkyr.graph.model import Graph, Module
from valkyr.telemetry import get_logger

log = get_logger(__name__)

Value = TypeVar("Value")

# Decided by the engine, never leased; the empty name is a node without a module.
CONTROL_CLASSES = {"": Control.PASS_THROUGH, "DelayModule": Control.DELAY}


def plan_of(graph: Graph, target_of: TargetOf, dedupe_of: DedupeOf) -> Plan:
    """The plan of a saved graph. ExpressionError for one that the validator would have refused."""
    return make_plan(
        graph,
        compile_condition=lambda text: CompiledCondition(compile_condition(text)),
        compile_config=_compile_config,
        control_of=CONTROL_CLASSES.get,
        target_of=target_of,
        dedupe_of=dedupe_of,
    )


@dataclass(frozen=True, slots=True)
class CompiledCondition:
    condition: Condition

    @property
    def references(self) -> frozenset[str]:
        return self.condition.references

    def holds(self, sight: Sight) -> bool:
        return _evaluated(self.condition.evaluate, sight)


@dataclass(frozen=True, slots=True)
class CompiledConfig:
    """A config. Where `constant`, `raw` and `digest` are its JSON and hash, made once; `source` is as it was saved."""

    template: Template
    raw: bytes
    digest: str
    source: bytes

    @property
    def references(self) -> frozenset[str]:
        return self.template.references

    @property
    def constant(self) -> bool:
        return self.template.dynamic is None

    def resolve(self, sight: Sight) -> Any:
        return _evaluated(self.template.evaluate, sight)


def new_memory() -> Bindings:
    """For the `memory` of a Sight: values are converted for the expression language once in a walk."""
    return Bindings()


def digest_of(raw: bytes) -> str:
    """SHA-256 of canonical JSON, hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: what is hashed."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _compile_config(module: Module | None) -> CompiledConfig:
    if module is not None and module.config is not None:
        data: Any = dict(module.config)
        template = compile_template(data)
    else:
        data = orjson.loads(module.module_data) if module is not None and module.module_data else {}
        template = Template(frozenset(), frozenset(), "", data, None)
    raw = canonical(template.constant) if template.dynamic is None else b""
    return CompiledConfig(template, raw, digest_of(raw) if raw else "", raw or canonical(data))


def _evaluated(evaluate: Callable[[Scope], Value], sight: Sight) -> Value:
    """CannotEvaluate whatever goes wrong: an expression is data of others, and must not stop a transaction."""
    try:
        return evaluate(_scope(sight))
    except ExpressionError as error:
        raise CannotEvaluate(str(error)) from error
    except Exception as error:
        log.error("expression.failed", error=str(error), exc_info=error)
        raise CannotEvaluate(f"it could not be evaluated: {error}") from error


def _scope(sight: Sight) -> Scope:
    return Scope(
        trigger=sight.trigger,
        execution=sight.execution,
        nodes=sight.nodes,
        outputs=sight.outputs,
        error=sight.error,
        bindings=sight.memory,
    )
