"""JSON with the place of everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyr.cli.json_text import read_json
from valkyr.cli.located import Position, Unreadable

TEXT = """{
  "nodes": [
    {"nodeId": "a", "x": {}},
    {"nodeId": "b: {[,]}", "tags": ["one",
      "two"]}
  ],
  "edges": []
}"""


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ("nodes", 2, 3),
        ("nodes[0]", 3, 5),
        ("nodes[0].nodeId", 3, 6),
        ("nodes[0].x", 3, 21),
        ("nodes[1].nodeId", 4, 6),
        ("nodes[1].tags[1]", 5, 7),
        ("nodes[1].missing", 4, 5),
        ("edges", 7, 3),
        ("edges[4].edgeId", 7, 3),
    ],
)
def test_every_value_knows_its_place(path: str, line: int, column: int) -> None:
    assert read_json(TEXT, "f.json").position_of(path) == Position(line, column)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ('{"a": 1,\n "a": 2}', "DUPLICATE_KEY", 2, 2),
        ('{"a": {"b": 1}, "c": [{"b": 1, "b": 2}]}', "DUPLICATE_KEY", 1, 32),
        ('{"a": 1,}', "SYNTAX", 1, 9),
        ('{"a": NaN}', "BAD_NUMBER", 1, 1),
        ("[" * 100_000, "SYNTAX", 1, 1),
        ("", "SYNTAX", 1, 1),
    ],
)
def test_what_is_no_json_is_refused_at_its_place(text: str, code: str, line: int, column: int) -> None:
    with pytest.raises(Unreadable) as caught:
        read_json(text, "f.json")
    assert (caught.value.code, *caught.value.position) == (code, line, column)


def _paths(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [path] * bool(path) + [
            inner for key, item in value.items() for inner in _paths(item, f"{path}.{key}" if path else key)
        ]
    if isinstance(value, list):
        return [path] * bool(path) + [
            inner for index, item in enumerate(value) for inner in _paths(item, f"{path}[{index}]")
        ]
    return [path] * bool(path)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    ),
    st.sampled_from([None, 1]),
)
def test_the_places_found_are_those_of_all_values(value: Any, indent: int | None) -> None:
    text = json.dumps({"root": value}, indent=indent)
    document = read_json(text, "f.json")
    lines = text.split("\n")
    for path in _paths({"root": value}):
        line, column = document.position_of(path)
        name = path.rsplit(".", 1)[-1]
        if not name.endswith("]"):
            assert lines[line - 1][column - 1 :].startswith(json.dumps(name) + ":")
