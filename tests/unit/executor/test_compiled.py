"""Graphs compiled into plans: what is constant, what is evaluated, and what never is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.builders import a_graph
from tests.unit.executor.executions import plan_of
from valkyr.expressions import ExpressionError
from valkyr.flow.edges import CannotEvaluate
from valkyr.flow.plan import Control, Sight
from valkyr.graph.model import Module
from valkyr.planning.compiled import CompiledConfig, canonical, digest_of


def config_of(module: Module | str | tuple[str, dict[str, Any]] | None) -> CompiledConfig:
    config = plan_of(a_graph("a -> z", modules={"z": module})).nodes[1].config
    assert isinstance(config, CompiledConfig)
    return config


def test_a_config_without_expressions_is_made_once() -> None:
    config = config_of(("LogModule", {"message": "hello", "fields": {"b": 1, "a": [True, None]}}))
    assert config.constant
    assert config.raw == b'{"fields":{"a":[true,null],"b":1},"message":"hello"}'
    assert config.digest == digest_of(config.raw)


def test_a_literal_dollar_brace_is_a_constant() -> None:
    config = config_of(("LogModule", {"message": "$${trigger.x} costs $5"}))
    assert config.constant
    assert orjson.loads(config.raw) == {"message": "${trigger.x} costs $5"}


def test_a_literal_beside_an_expression_stays_one() -> None:
    config = config_of(("LogModule", {"message": "$${x} is ${trigger.x}"}))
    assert not config.constant
    assert config.resolve(Sight(trigger={"x": 3})) == {"message": "${x} is 3"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"message": "${trigger.x}"}', {"message": "${trigger.x}"}),
        ('{"message": "$${trigger.x}"}', {"message": "$${trigger.x}"}),
        ('{"message": "${ this is no CEL"}', {"message": "${ this is no CEL"}),
        ("{}", {}),
        ("", {}),
    ],
)
def test_module_data_is_data_and_never_evaluated(data: str, expected: Any) -> None:
    config = config_of(Module("z", "LogModule", module_data=data))
    assert config.constant
    assert config.references == frozenset()
    assert orjson.loads(config.raw) == config.resolve(Sight(trigger={"x": 3})) == expected


def test_the_same_config_has_the_same_digest_whatever_the_order_of_its_keys() -> None:
    one = config_of(("LogModule", {"a": 1, "b": {"c": 2, "d": 3}}))
    other = config_of(Module("z", "LogModule", module_data='{"b": {"d": 3, "c": 2}, "a": 1}'))
    assert (one.raw, one.digest) == (other.raw, other.digest)


def test_a_node_without_a_module_passes_through_with_an_empty_config() -> None:
    node = plan_of(a_graph("a -> z", modules={"z": None})).nodes[1]
    assert (node.control, node.class_name, node.config.resolve(Sight())) == (Control.PASS_THROUGH, "", {})


@pytest.mark.parametrize(
    ("class_name", "control"), [("DelayModule", Control.DELAY), ("NoopModule", None), ("delaymodule", None)]
)
def test_control_classes_are_known_by_their_exact_name(class_name: str, control: Control | None) -> None:
    assert plan_of(a_graph("a", modules={"a": class_name})).nodes[0].control is control


def test_references_become_needs() -> None:
    graph = a_graph(
        "a -> b -> z",
        modules={"z": ("LogModule", {"message": "${nodes['a'].outputs.x}"})},
        edges={"b->z": {"condition": "nodes['a'].outputs.ok && outputs.ok"}},
    )
    plan = plan_of(graph)
    assert plan.nodes[2].needs == {0}
    assert plan.edges[1].needs == {0}
    assert plan.watched == {0, 1}


@pytest.mark.parametrize(
    ("sight", "expected"),
    [
        (Sight(outputs={"total": 120}), True),
        (Sight(outputs={"total": 99.5}), False),
        (Sight(outputs=None, error={"type": "TRANSIENT", "message": "x"}), None),
        (Sight(outputs={}), None),
    ],
)
def test_a_condition_holds_or_not_or_cannot_be_evaluated(sight: Sight, expected: bool | None) -> None:
    condition = plan_of(a_graph("a -> b", edges={"a->b": {"condition": "outputs.total > 100"}})).edges[0].condition
    assert condition is not None
    if expected is None:
        with pytest.raises(CannotEvaluate, match=r"outputs\.total"):
            condition.holds(sight)
    else:
        assert condition.holds(sight) is expected


def test_a_condition_sees_null_outputs_after_a_failure_and_null_error_after_a_success() -> None:
    text = "outputs == null && error.type == 'TIMEOUT' || error == null && outputs.ok"
    condition = plan_of(a_graph("a -> b", edges={"a->b": {"condition": text}})).edges[0].condition
    assert condition is not None
    assert condition.holds(Sight(outputs=None, error={"type": "TIMEOUT", "message": ""}))
    assert condition.holds(Sight(outputs={"ok": True}, error=None))


def test_a_config_that_cannot_be_resolved_says_so() -> None:
    with pytest.raises(CannotEvaluate, match="trigger"):
        config_of(("LogModule", {"message": "${trigger.x}"})).resolve(Sight(trigger={}))


def test_an_expression_that_does_not_compile_has_no_plan() -> None:
    with pytest.raises(ExpressionError):
        plan_of(a_graph("a -> b", edges={"a->b": {"condition": "1 +"}}))


def test_canonical_json_sorts_keys_at_every_depth() -> None:
    assert canonical({"b": {"d": 1, "c": 2}, "a": "ü"}) == '{"a":"ü","b":{"c":2,"d":1}}'.encode()
