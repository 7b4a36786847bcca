"""Conditions of edges: what they give, what they refer to, and how they fail."""

from __future__ import annotations

import threading

import pytest

from valkyr.expressions import MAX_EXPRESSION_BYTES, ExpressionError, Scope, compile_condition

SCOPE = Scope(
    trigger={"amount": 5, "text": "x", "items": [1, 2, 3], "none": None, "big": 2**62},
    execution={"id": "e-1"},
    nodes={"charge": {"outputs": {"total": 120, "rate": 0.5}, "error": None}},
    outputs={"total": 120.5, "ok": True},
    error={"type": "PERMANENT", "message": "no"},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("outputs.total > 100", True),
        ('nodes["charge"].outputs.total > 100', True),
        ('nodes["charge"].outputs.total == 120.0', True),
        ("outputs.total * 2 > 240", True),
        ("2 * outputs.total == 241.0", True),
        ('nodes["charge"].outputs.total * 1.5 == 180', True),
        ('nodes["charge"].outputs.total * 2 == 240', True),
        ('nodes["charge"].outputs.total - 0.5 < outputs.total', True),
        ("outputs.total + 1 < 121", False),
        ("outputs.total / 2 == 60.25", True),
        ("outputs.total in [120.5]", True),
        ("5.0 in [trigger.amount]", True),
        ("trigger.big == 4611686018427387904", True),
        ('error.type == "PERMANENT"', True),
        ("has(trigger.missing)", False),
        ("trigger.none == null", True),
        ("trigger.items.all(item, item > 0)", True),
        ('execution.id == "e-1"', True),
        ('nodes["other"].outputs == null', True),
        ('nodes["other"].error == null', True),
        ("math.greatest(trigger.items) == 3", True),
        ("outputs.ok", True),
    ],
)
def test_a_condition_gives_what_it_says(text: str, expected: bool) -> None:
    assert compile_condition(text).evaluate(SCOPE) is expected


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ('nodes["a"].outputs.x > 1', {"a"}),
        ("nodes['a'].outputs.x > 1", {"a"}),
        ('.nodes["a"].outputs.x > 1', {"a"}),
        ('nodes["a.b"].outputs.x == nodes["ä\\u0020"].error', {"a.b", "ä "}),
        ('trigger.items.exists(i, nodes["q"].outputs.v == i)', {"q"}),
        ('{"k": nodes["m"].outputs}.k == [nodes["l"].outputs]', {"m", "l"}),
        ('has(nodes["h"].outputs.x) ? nodes["t"].outputs.y : nodes["f"].outputs.z', {"h", "t", "f"}),
        ('nodes[""].outputs == null', {""}),
        ("1 < 2", set()),
        ('"nodes[\\"no\\"]" == trigger.text', set()),
    ],
)
def test_references_are_read_without_evaluating(text: str, references: set[str]) -> None:
    assert compile_condition(text).references == references


@pytest.mark.parametrize(
    "text",
    [
        "nodes[trigger.text].outputs == 1",
        'nodes["a" + "b"].outputs == 1',
        "nodes.a.outputs == 1",
        "size(nodes) > 1",
        "nodes == nodes",
        'nodes[nodes["a"].outputs].outputs == 1',
        "trigger.items.exists(nodes, nodes > 1)",
        "nodes[1].outputs == 1",
        'has(nodes.a) && nodes["a"].outputs.x == 1',
    ],
)
def test_nodes_are_indexed_by_a_literal_only(text: str) -> None:
    with pytest.raises(ExpressionError, match=r'nodes\["<node id>"\]'):
        compile_condition(text)


def test_a_node_has_outputs_and_error_and_nothing_else() -> None:
    with pytest.raises(ExpressionError, match="has outputs and error, not 'output'"):
        compile_condition('nodes["a"].output.x == 1')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 +", "Syntax error"),
        ("", "empty"),
        ("  ", "empty"),
        ("foo > 1", "no name 'foo'"),
        ("1 + 1", "has to give true or false, and this gives int"),
        ('"a" == 1', "no matching overload"),
        ("trigger.a = 1", "Syntax error"),
        ("'\0' == 'a'", "NUL"),
        ("'\ud800' == 'a'", "surrogate"),
        ("(" * 100 + "true" + ")" * 100, "recursion"),
        ("item == 1", "no name 'item'"),
    ],
)
def test_what_cannot_be_meant_does_not_compile(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        compile_condition(text)
    assert caught.value.expression == text


@pytest.mark.parametrize(("extra", "fits"), [(-1, True), (0, True), (1, False)])
def test_an_expression_has_at_most_4_kib(extra: int, fits: bool) -> None:
    quoted = "'" + "ä" * ((MAX_EXPRESSION_BYTES - 10) // 2)
    text = quoted + "x" * (MAX_EXPRESSION_BYTES + extra - len(quoted.encode()) - 7) + "' != ''"
    assert len(text.encode()) == MAX_EXPRESSION_BYTES + extra
    if fits:
        assert compile_condition(text).evaluate(SCOPE)
    else:
        with pytest.raises(ExpressionError, match="4096 are allowed"):
            compile_condition(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trigger.missing == 1", "no 'missing'"),
        ("trigger.none.x == 1", "no object"),
        ('nodes["other"].outputs.x == 1', "no object"),
        ("trigger.amount", "has to give true or false, and this gave '5'"),
        ("trigger.amount && true", "neither true nor false"),
        ("trigger.amount ? true : false", "neither true nor false"),
        ("trigger.items[7] == 1", "index=7"),
        ("1 / 0 == 1", "divide by zero"),
        ("outputs.total / 0 == 1.0", "division by zero"),
        ("trigger.amount + trigger.text == 'a'", "No matching overloads"),
        ("trigger.big * 4 > 0", "overflow"),
        ("matches(trigger.text, '(')", "regular expression"),
    ],
)
def test_what_has_no_value_says_why(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        compile_condition(text).evaluate(SCOPE)
    assert repr(text) in str(caught.value)


def test_a_failure_behind_a_decided_or_does_not_matter() -> None:
    assert compile_condition("trigger.missing == 1 || trigger.amount == 5").evaluate(SCOPE)


def test_macros_over_long_lists_are_bounded() -> None:
    nested = compile_condition("trigger.all(a, trigger.all(b, trigger.all(c, a + b + c > -1)))")
    assert nested.evaluate(Scope(trigger=[1] * 10))
    with pytest.raises(ExpressionError, match="too many steps"):
        nested.evaluate(Scope(trigger=[1] * 1000))


def test_deep_values_are_refused_before_the_engine_sees_them() -> None:
    condition = compile_condition("trigger != 1")
    assert condition.evaluate(Scope(trigger=nested(64)))
    with pytest.raises(ExpressionError, match="deeper than"):
        condition.evaluate(Scope(trigger=nested(100_000)))


@pytest.mark.parametrize(
    ("value", "message"), [("a\0b", "NUL"), ({"a\0": 1}, "NUL"), ("\ud800", "JSON"), (2**64, "JSON"), ({1}, "JSON")]
)
def test_values_that_cel_would_change_are_refused(value: object, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_condition("trigger != 1").evaluate(Scope(trigger={"v": value}))


def test_text_that_only_looks_like_a_nul_is_kept() -> None:
    assert compile_condition(r"trigger == '\\u0000'").evaluate(Scope(trigger="\\u0000"))


def test_only_what_is_used_has_to_be_plain() -> None:
    assert compile_condition("outputs").evaluate(Scope(trigger=object(), outputs=True))


def test_one_condition_serves_many_threads() -> None:
    condition = compile_condition("trigger.items.map(i, i * outputs) == trigger.expected")
    wrong: list[int] = []

    def check(factor: int) -> None:
        scope = Scope(trigger={"items": [1, 2, 3], "expected": [factor, 2 * factor, 3 * factor]}, outputs=factor)
        if not all(condition.evaluate(scope) for _ in range(300)):
            wrong.append(factor)

    threads = [threading.Thread(target=check, args=(factor,)) for factor in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def nested(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value
