"""Examples as predicates: what restricts, what nests, what is refused by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.chassis.example.matching import MAX_ITEMS, MAX_VALUES, Matcher, ignored_path, known_name, predicate_of
from services.chassis.example.predicates import (
    EVERYTHING,
    Absent,
    All,
    AnyOf,
    At,
    Blank,
    Contains,
    Equals,
    Matches,
    Nothing,
    Predicate,
    Some,
    StringMode,
)
from services.chassis.example.resource import Column, Group, Many, Resource, text
from tests.example_lab import PARTS, TOYS, WHEELS
from valkyr.errors import InvalidRequest
from valkyr.graph.fields import Problems

EXACT = Matcher()
PART, WHEEL = TOYS.fields["parts"], PARTS["wheels"]


def column(name: str, fields: Mapping[str, Any] = TOYS.fields) -> Column:
    found = fields[name]
    assert isinstance(found, Column)
    return found


def read(example: Any, matcher: Matcher = EXACT) -> Predicate:
    problems = Problems()
    predicate = predicate_of(example, TOYS.fields, matcher, problems)
    problems.raise_if_any()
    return predicate


def is_text(name: str, value: str, fields: Mapping[str, Any] = TOYS.fields) -> Matches:
    return Matches(column(name, fields), value, StringMode.EXACT, ignore_case=False)


def many(field: Any) -> Many:
    assert isinstance(field, Many)
    return field


CASES: dict[str, tuple[Any, Predicate]] = {
    "nothing": ({}, EVERYTHING),
    "one value": ({"count": "5"}, Equals(column("count"), 5)),
    "two values": ({"name": "x", "count": 5}, All((is_text("name", "x"), Equals(column("count"), 5)))),
    "null": ({"name": None}, Absent(column("name"))),
    "a group": ({"size": {"width": 1}}, Equals(Column("t.width", column("count").kind), 1)),
    "an empty group": ({"size": {}}, EVERYTHING),
    "a list's rows": (
        {"parts": [{"className": "A"}, {"className": "B"}]},
        All(tuple(Some(many(PART), is_text("className", name, PARTS)) for name in "AB")),
    ),
    "any row": ({"parts": [{}]}, Some(many(PART), EVERYTHING)),
    "an empty list": ({"parts": []}, EVERYTHING),
    "no rows": ({"parts": None}, Nothing(many(PART))),
    "a list in a list": (
        {"parts": [{"wheels": [{"size": 2.0}]}]},
        Some(many(PART), Some(many(WHEEL), Equals(column("size", WHEELS), 2))),
    ),
    "a label": ({"labels": {"team": "x"}}, Contains("t.labels", '{"team": "x"}')),
    "a label of digits": ({"labels": {"team": 7.0}}, Contains("t.labels", '{"team": "7"}')),
    "no such label": ({"labels": {"team": None}}, Absent(At("t.labels", ("team",)))),
    "no labels": ({"labels": None}, Blank("t.labels")),
    "a document": ({"config": {"a": {"b": [1.0]}}}, Contains("t.config", '{"a": {"b": [1]}}')),
    "an empty document": ({"config": {}}, EVERYTHING),
    "an empty object in a document": ({"config": {"a": {}, "b": 1.0}}, Contains("t.config", '{"b": 1}')),
    "an empty list in a document": ({"config": {"a": []}}, EVERYTHING),
    "null in a document": ({"config": {"a": None}}, Absent(At("t.config", ("a",)))),
    "no document": ({"config": None}, Absent(At("t.config", ()))),
    "names with underscores": ({"owner_id": None}, Absent(column("ownerId"))),
}


@pytest.mark.parametrize("case", CASES)
def test_an_example_restricts_by_what_it_gives(case: str) -> None:
    example, expected = CASES[case]
    assert read(example) == expected


def test_a_group_that_is_null_has_all_of_its_columns_null() -> None:
    size = TOYS.fields["size"]
    assert isinstance(size, Group)
    assert read({"size": None}) == All(tuple(Absent(inner) for inner in size.fields.values()))  # type: ignore[arg-type]


def test_the_mode_is_for_strings_and_for_nothing_else() -> None:
    matcher = Matcher(StringMode.CONTAINS, ignore_case=True)
    found = read({"name": "x", "count": 5, "state": "ready"}, matcher)
    assert found == All(
        (
            Matches(column("name"), "x", StringMode.CONTAINS, ignore_case=True),
            Equals(column("count"), 5),
            Equals(column("state"), "READY"),
        )
    )


@pytest.mark.parametrize("matcher", [Matcher(StringMode.ENDS_WITH), Matcher(ignore_case=True)], ids=["mode", "case"])
def test_the_mode_reaches_strings_in_labels_and_documents(matcher: Matcher) -> None:
    def inside(sql: str, *path: str) -> Matches:
        return Matches(At(sql, path), "x", matcher.mode, matcher.ignore_case)

    assert read({"labels": {"a.b": "x"}}, matcher) == inside("t.labels", "a.b")
    assert read({"config": {"a": {"b": "x"}}}, matcher) == inside("t.config", "a", "b")
    assert read({"config": {"a": {"b": 1}}}, matcher) == Contains("t.config", '{"a": {"b": 1}}')


def test_match_any_takes_one_value_wherever_it_stands() -> None:
    part = {"className": "A", "target": "T"}
    either = AnyOf((is_text("className", "A", PARTS), is_text("target", "T", PARTS)))
    found = read({"name": "x", "size": {"width": 1, "height": 2}, "parts": [part]}, Matcher(match_any=True))
    assert isinstance(found, AnyOf)
    assert len(found.parts) == 4
    assert found.parts[-1] == Some(many(PART), either)


def test_match_any_of_an_empty_example_restricts_nothing() -> None:
    assert read({}, Matcher(match_any=True)) == EVERYTHING


@pytest.mark.parametrize(
    ("ignored", "example"),
    [
        (("name",), {"name": 7}),
        (("name",), {"name": ["of the wrong type"]}),
        (("parts",), {"parts": "anything"}),
        (("parts", "className"), {"parts": [{"className": 5, "class_name": 6, "target": "kept"}]}),
        (("labels", "a.b"), {"labels": {"a.b": []}}),
        (("config", "a.b"), {"config": {"a": {"b": 1}}}),
        (("picture",), {"picture": "x"}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_an_ignored_path_is_not_looked_at(ignored: tuple[str, ...], example: dict[str, Any]) -> None:
    found = read(example, Matcher(ignored=frozenset([ignored])))
    kept = Some(many(PART), is_text("target", "kept", PARTS))
    assert found == (kept if ignored == ("parts", "className") else EVERYTHING)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "an unknown field": ({"nmae": "x"}, "example.nmae", r'there is no such field; did you mean "name"\?'),
    "nothing like it": ({"qqq": 1}, "example.qqq", r"there is no such field; there are id, name, note"),
    "a nested unknown field": (
        {"parts": [{}, {"classname": "A"}]},
        "example.parts[1].classname",
        r'did you mean "className"\?',
    ),
    "a nested value": (
        {"parts": [{"wheels": [{"size": "five"}]}]},
        "example.parts[0].wheels[0].size",
        r"'five' is not an integer",
    ),
    "an object for a list": ({"parts": {"className": "A"}}, "example.parts", "is not a list of objects"),
    "a string in a list": ({"parts": ["A"]}, "example.parts[0]", "'A' is not an object"),
    "null in a list": ({"parts": [None]}, "example.parts[0]", "null is not an object"),
    "a list for a value": ({"name": ["x"]}, "example.name", "is not a string"),
    "a string for a group": ({"size": "large"}, "example.size", "'large' is not an object"),
    "a string for labels": ({"labels": "team"}, "example.labels", "is not an object of strings"),
    "an object as a label": ({"labels": {"team": {}}}, "example.labels.team", "is not a string"),
    "NUL in a label's key": ({"labels": {"a\0": "x"}}, "example.labels.a\0", "NUL"),
    "NUL in a document": ({"config": {"a": "\0"}}, "example.config.a", "NUL"),
    "NUL in a document's key": ({"config": {"\0": 1}}, "example.config.\0", "NUL"),
    "half a character in a label": ({"labels": {"a": "\ud800"}}, "example.labels.a", "surrogate"),
    "NaN in a document": ({"config": {"a": float("nan")}}, "example.config.a", "not a number"),
    "a field given twice": ({"ownerId": None, "owner_id": None}, "example.owner_id", "given twice, as ownerId too"),
    "what cannot be asked for": ({"picture": "x"}, "example.picture", "cannot be asked for: leave it out"),
    "no object": ([], "example", r"\[\] is not an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_path(case: str) -> None:
    example, path, message = REFUSED[case]
    with pytest.raises(InvalidRequest, match=message) as refusal:
        read(example)
    assert [violation.field for violation in refusal.value.details.violations] == [path]


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read({"count": "five", "oops": 1, "parts": [{"target": []}]})
    paths = [violation.field for violation in refusal.value.details.violations]
    assert paths == ["example.count", "example.oops", "example.parts[0].target"]


@pytest.mark.parametrize(
    "example",
    [
        {"labels": {str(i): "x" for i in range(MAX_VALUES)}},
        {"config": {str(i): {"a": i} for i in range(MAX_VALUES)}},
        {f"unknown{i}": i for i in range(MAX_VALUES + 1)},
    ],
    ids=["labels", "document", "unknown"],
)
def test_an_example_of_too_many_values_is_refused(example: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(example)
    assert any("holds more than 200 values" in one.description for one in refusal.value.details.violations) or (
        refusal.value.details.metadata["total"] == str(MAX_VALUES + 1)
    )


def test_lists_of_an_example_hold_sixteen_objects_in_all() -> None:
    half = MAX_ITEMS // 2
    wheels = [{"size": 1}] * (half - 1)
    read({"parts": [*[{}] * half, {"wheels": wheels}]})
    with pytest.raises(InvalidRequest) as refusal:
        read({"parts": [*[{}] * half, {"wheels": [*wheels, {"size": 1}]}]})
    [violation] = refusal.value.details.violations
    assert violation.field == f"example.parts[{half}].wheels"
    assert "makes 17 objects of lists; an example holds at most 16" in violation.description


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("name", ("name",)),
        ("owner_id", ("ownerId",)),
        ("parts", ("parts",)),
        ("parts.className", ("parts", "className")),
        ("parts[0].wheels[3].size", ("parts", "wheels", "size")),
        ("labels.app.kubernetes.io/name", ("labels", "app.kubernetes.io/name")),
        ("config.a.b", ("config", "a.b")),
        ("size.width", ("size", "width")),
    ],
)
def test_an_ignored_path_leads_to_a_field(written: str, path: tuple[str, ...]) -> None:
    problems = Problems()
    assert ignored_path(written, TOYS.fields, "matcher.ignoredPaths[0]", problems) == path
    problems.raise_if_any()


@pytest.mark.parametrize("written", ["", "nmae", "name.x", "parts.oops", "size.width.x", "."])
def test_an_ignored_path_that_leads_nowhere_is_refused(written: str) -> None:
    problems = Problems()
    ignored_path(written, TOYS.fields, "matcher.ignoredPaths[0]", problems)
    with pytest.raises(InvalidRequest, match=r"^matcher.ignoredPaths\[0\]: "):
        problems.raise_if_any()


def test_an_underscore_stands_for_a_capital_and_for_nothing_else() -> None:
    fields = {"nodeId": text("n"), "a_b": text("a")}
    assert known_name("node_id", fields) == "nodeId"
    assert known_name("a_b", fields) == "a_b"
    assert known_name("nodeid", fields) is None
    assert known_name("_", fields) is None


@pytest.mark.parametrize(
    ("key", "order"),
    [(("nope",), "id"), (("name",), "name"), (("id",), "nope"), (("id",), "note"), (("id",), "parts desc")],
    ids=["unknown key", "nullable key", "unknown order", "no order", "a list's order"],
)
def test_a_resource_that_contradicts_itself_is_refused_when_it_is_described(key: tuple[str, ...], order: str) -> None:
    with pytest.raises(ValueError, match="toy"):
        Resource("toy", TOYS.fields, key, order)
