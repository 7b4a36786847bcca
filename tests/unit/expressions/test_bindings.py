"""Expressions get only what they read, and what was converted once is not converted again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from valkyr.expressions import Bindings, ExpressionError, Scope, compile_condition, compile_template
from valkyr.expressions.cel import compile_expression
from valkyr.expressions.scope import shortest

OUTPUTS = {
    "n": 5,
    "text": "x",
    "none": None,
    "rows": [{"id": 1, "tags": {"a": [1]}}, {"id": 2}],
    "deep": {"a": {"b": {"c": 1}, "b2": 2}, "é.x": 3, "n": 4},
}
SCOPE = Scope(
    trigger=OUTPUTS,
    execution={"id": "e-1", "n": 1},
    nodes={"a": {"outputs": OUTPUTS, "error": None}, "b": {"outputs": None, "error": {"type": "PERMANENT"}}},
)
READINGS = [
    ("1 + 1", set()),
    ("trigger", {("trigger",)}),
    ("trigger.deep.a.b.c", {("trigger", "deep", "a", "b", "c")}),
    ('trigger["deep"].a["b"]', {("trigger", "deep", "a", "b")}),
    ('trigger.deep["é.x"]', {("trigger", "deep", "é.x")}),
    ("[trigger.deep.a, trigger.deep.a.b.c, trigger.n]", {("trigger", "deep", "a"), ("trigger", "n")}),
    ("trigger.rows[0].id", {("trigger", "rows")}),
    ("trigger.rows[trigger.n - 4].id", {("trigger", "rows"), ("trigger", "n")}),
    ('trigger[trigger.text + "y"]', {("trigger",)}),
    ("trigger.rows.map(r, r.id + trigger.n)", {("trigger", "rows"), ("trigger", "n")}),
    ("trigger.rows.exists(trigger, trigger.id == 2)", {("trigger", "id"), ("trigger", "rows")}),
    ("has(trigger.deep.a) && !has(trigger.deep.z)", {("trigger", "deep", "a"), ("trigger", "deep", "z")}),
    ("has(trigger.none.x)", {("trigger", "none", "x")}),
    ("trigger.text.x", {("trigger", "text", "x")}),
    ("trigger.missing", {("trigger", "missing")}),
    ("trigger.deep.missing.more", {("trigger", "deep", "missing", "more")}),
    ('"n" in trigger.deep', {("trigger", "deep")}),
    ("size(trigger.deep.a)", {("trigger", "deep", "a")}),
    ('{"k": trigger.n}.k', {("trigger", "n")}),
    ('{"n": trigger.deep}["n"].n', {("trigger", "deep")}),
    ("(trigger.n > 1 ? trigger.deep : trigger).n", {("trigger",)}),
    ('nodes["a"].outputs.deep.n', {("nodes", "a", "outputs", "deep", "n")}),
    ('nodes["a"].error', {("nodes", "a", "error")}),
    ('nodes["b"].error.type', {("nodes", "b", "error", "type")}),
    ('nodes["none"].outputs', {("nodes", "none", "outputs")}),
    ('nodes["none"].outputs.x', {("nodes", "none", "outputs", "x")}),
    ('[nodes["a"], nodes["b"].error.type]', {("nodes", "a"), ("nodes", "b", "error", "type")}),
    ("execution.id", {("execution", "id")}),
]


@pytest.mark.parametrize(("text", "paths"), READINGS)
def test_an_expression_reads_along_its_paths(text: str, paths: set[tuple[str, ...]]) -> None:
    assert set(compile_expression(text).paths) == paths


@pytest.mark.parametrize("text", [text for text, _ in READINGS])
def test_what_is_left_out_makes_no_difference(text: str) -> None:
    """Neither to the value nor to the words of the error."""
    expression = compile_expression(text)
    whole = replace(expression, paths=(("execution",), ("nodes", "a"), ("nodes", "b"), ("nodes", "none"), ("trigger",)))
    assert ended(expression, SCOPE) == ended(whole, SCOPE)
    assert ended(expression, Scope()) == ended(whole, Scope())


def ended(expression: Any, scope: Scope) -> Any:
    try:
        return expression.evaluate(scope)
    except ExpressionError as error:
        return str(error)


def test_only_what_lies_on_the_paths_is_handed_over_and_has_to_be_plain() -> None:
    expression = compile_expression('[trigger.deep.a.b2, nodes["a"].outputs.n, nodes["none"].error]')
    scope = replace(SCOPE, trigger={"deep": {"a": {"b2": 2, "c": object()}}, "x": b"bytes"})
    bound = Bindings().bind(scope, expression.paths, expression.environment)
    assert bound.data == {
        "trigger": {"deep": {"a": {"b2": 2}}},
        "nodes": {"a": {"outputs": {"n": 5}}, "none": {"error": None}},
    }
    assert expression.evaluate(scope) == [2, 5, None]


def test_paths_that_lie_within_others_are_left_out() -> None:
    assert shortest([("a", "b", "c"), ("a", "b"), ("a", "c"), ("b",), ("b", "x"), ("a", "b")]) == (
        ("a", "b"),
        ("a", "c"),
        ("b",),
    )


def test_deep_values_are_refused_also_at_the_end_of_a_path() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = {"a": value}
    expression = compile_expression("trigger" + ".a" * 30)
    with pytest.raises(ExpressionError, match="deeper than 64"):
        expression.evaluate(Scope(trigger=value))


class Counting(Bindings):
    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def bind(self, *args: Any) -> Any:
        bound = super().bind(*args)
        self.given.append(bound)
        return bound


def test_conditions_over_the_same_values_share_what_was_converted() -> None:
    bindings = Counting()
    outputs = {"rows": list(range(1000)), "n": 5}
    conditions = [
        compile_condition(f"size(outputs.rows) > {number} && {number} in outputs.rows") for number in range(50)
    ]
    for condition in conditions:
        assert condition.evaluate(Scope(outputs=outputs, bindings=bindings))
    assert len({id(bound.activation) for bound in bindings.given}) == 1
    assert not conditions[0].evaluate(Scope(outputs={"rows": []}, bindings=bindings))
    assert len({id(bound.activation) for bound in bindings.given}) == 2


def test_values_are_told_apart_by_what_they_are_not_by_what_they_equal() -> None:
    bindings = Bindings()
    condition = compile_condition("outputs == 1.0 && type(outputs) == double")
    assert condition.evaluate(Scope(outputs=1.0, bindings=bindings))
    assert not condition.evaluate(Scope(outputs=1, bindings=bindings))
    conditions = [compile_condition(f"outputs.n == {number}") for number in range(50)]
    for number, condition in enumerate(conditions):  # a freed value's place is taken by the next: it has to be held
        assert condition.evaluate(Scope(outputs={"n": number}, bindings=bindings))


def test_a_template_and_a_condition_do_not_mix_up_their_bindings() -> None:
    bindings = Bindings()
    scope = Scope(trigger={"n": 1}, bindings=bindings)
    assert compile_template("${trigger.n}").evaluate(scope) == 1
    assert compile_condition("trigger.n == 1").evaluate(scope)


def test_bindings_keep_only_the_last_few() -> None:
    bindings = Counting()
    for number in range(3 * Bindings.LIMIT):
        assert compile_condition(f"outputs.k{number} == 1").evaluate(
            Scope(outputs={f"k{number}": 1}, bindings=bindings)
        )
    assert len(bindings._bound) == Bindings.LIMIT


def test_the_expressions_of_a_template_share_what_was_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Counting] = []

    def counting() -> Counting:
        made.append(Counting())
        return made[-1]

    monkeypatch.setattr("valkyr.expressions.template.Bindings", counting)
    template = compile_template({"a": "${trigger.rows[0] == 1}", "b": ["x ${trigger.rows[1] == 2}"]})
    assert template.evaluate(Scope(trigger={"rows": [1, 2]})) == {"a": True, "b": ["x true"]}
    [bindings] = made
    assert len({id(bound.activation) for bound in bindings.given}) == 1


@pytest.mark.parametrize(
    ("text", "lean"),
    [
        ("trigger.n == 1", True),
        ("trigger.n * 2 > trigger.m - 1.5", True),
        ("has(trigger.n) && trigger.s in ['a', 'b']", True),
        ("trigger.rows.exists(r, r.id == 5)", True),
        ("trigger.rows.all(r, r.id in [1, 2])", False),
        ("trigger.rows.all(r, r.id * 1.5 > 1.0)", False),
        ("trigger.rows.map(r, r.id)", False),
        ("trigger.rows.filter(r, r.id > 1)", False),
        ("trigger.s + trigger.s", False),
        ("string(trigger.s)", False),
        ("math.greatest(trigger.n)", False),
    ],
)
def test_only_what_leaves_nothing_behind_shares_memory(text: str, lean: bool) -> None:
    assert compile_expression(text).lean is lean


def test_many_evaluations_that_make_strings_do_not_pile_them_up() -> None:
    resource = pytest.importorskip("resource")
    bindings = Bindings()
    outputs = {"text": "x" * 100_000}
    condition = compile_condition("size(outputs.text + outputs.text) == 200000")
    condition.evaluate(Scope(outputs=outputs, bindings=bindings))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(500):
        assert condition.evaluate(Scope(outputs=outputs, bindings=bindings))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "KiB: 500 times 200 kB is 100 MB"
