"""YAML by the core schema of 1.2, with the line of everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyr.cli.graph_commands import yaml_of
from valkyr.cli.located import Position, Unreadable
from valkyr.cli.yaml_text import read_yaml

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc:#-é 0", max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("''", ""),
        ("12", 12),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("2026-01-31", "2026-01-31"),
        ("0.10", 0.1),
        ("'0'", "0"),
        ("!!str 5", "5"),
        ("=", "="),
    ],
)
def test_a_plain_scalar_means_what_the_core_schema_says(text: str, value: Any) -> None:
    read = read_yaml(f"key: {text}\n", "f.yaml").value["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: 1\nb: 2\na: 3\n", "DUPLICATE_KEY", 3, 1),
        ("a:\n  - {x: 1, y: 2, x: 3}\n", "DUPLICATE_KEY", 2, 18),
        ("a: 012\n", "AMBIGUOUS_NUMBER", 1, 4),
        ("a: .nan\n", "BAD_NUMBER", 1, 4),
        ("a: -.inf\n", "BAD_NUMBER", 1, 4),
        ("1: one\n", "BAD_KEY", 1, 1),
        ("true: one\n", "BAD_KEY", 1, 1),
        ("? [a]\n: 1\n", "BAD_KEY", 1, 3),
        ("base: &b {x: 1}\nuse:\n  <<: *b\n", "BAD_KEY", 3, 3),
        ("a: !!python/name:os.system x\n", "BAD_TAG", 1, 4),
        ("a: !!set {x}\n", "BAD_TAG", 1, 4),
        ("a: *nobody\n", "SYNTAX", 1, 4),
        ("a: &x [*x]\n", "SYNTAX", 1, 8),
        ("a: 1\n---\nb: 2\n", "SYNTAX", 2, 1),
        ("a:\n\t- 1\n", "SYNTAX", 2, 1),
        ("a: [1, 2\n", "SYNTAX", 2, 1),
        ("a: 'x\n", "SYNTAX", 2, 1),
        ("x: \x00", "SYNTAX", 1, 4),
        (f"a: {'9' * 500}\n", "LIMIT_EXCEEDED", 1, 4),
        ("[" * 5000, "SYNTAX", 1, 201),
    ],
)
def test_what_would_mean_something_else_is_refused_at_its_place(text: str, code: str, line: int, column: int) -> None:
    with pytest.raises(Unreadable) as caught:
        read_yaml(text, "f.yaml")
    assert (caught.value.code, *caught.value.position) == (code, line, column)


def test_a_small_file_that_means_a_huge_document_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(Unreadable, match="2,000,000 values"):
        read_yaml("\n".join(lines), "bomb.yaml")


def test_an_alias_stands_for_its_value() -> None:
    document = read_yaml("a: &x {k: [1]}\nb: *x\n", "f.yaml")
    assert document.value == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert document.position_of("b.k[0]") == Position(2, 1)


def test_every_value_knows_its_line_and_the_unknown_that_of_what_is_around_it() -> None:
    document = read_yaml("nodes:\n  - nodeId: a\n    label: |\n      two\n      lines\n  - {nodeId: b}\n", "f.yaml")
    assert document.position_of("nodes[0].nodeId") == Position(2, 5)
    assert document.position_of("nodes[0].label") == Position(3, 5)
    assert document.position_of("nodes[1].nodeId") == Position(6, 6)
    assert document.position_of("nodes[1].timeout") == Position(6, 5)
    assert document.position_of("nodes[7].x.y") == Position(1, 1)
    assert document.position_of("") == Position(1, 1)


@given(JSON_VALUES)
def test_what_graph_get_prints_reads_back_the_same(value: Any) -> None:
    document = {"value": value}
    assert json.dumps(read_yaml(yaml_of(document), "f.yaml").value, sort_keys=True) == json.dumps(
        document, sort_keys=True
    )
