"""Struct and Value: what is let in, what is shown, and where the limits are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from valkyr.api.graph.v1 import graph_pb2
from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.graph.limits import CARRIED_DEPTH
from valkyr.rpc.values import plain_to_struct, plain_to_value, struct_to_plain, value_to_plain

SAFE = 2**53 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


@given(JSON)
def test_what_goes_out_comes_back_equal(plain: Any) -> None:
    assert value_to_plain(plain_to_value(plain), "x") == plain


@given(JSON)
def test_it_is_what_the_json_of_protobuf_says(plain: Any) -> None:
    assert json.loads(json_format.MessageToJson(plain_to_value(plain))) == plain


def test_whole_doubles_become_integers() -> None:
    assert repr(value_to_plain(Value(number_value=5.0), "x")) == "5"
    assert repr(value_to_plain(Value(number_value=5.5), "x")) == "5.5"
    assert repr(value_to_plain(Value(number_value=-0.0), "x")) == "0"


@pytest.mark.parametrize("number", [SAFE, -SAFE])
def test_the_largest_safe_integers_pass(number: int) -> None:
    assert value_to_plain(Value(number_value=number), "x") == number


@pytest.mark.parametrize("number", [2.0**53, -(2.0**53), 1e300])
def test_i25_larger_integers_are_refused_with_the_advice_to_send_a_string(number: float) -> None:
    with pytest.raises(InvalidRequest, match="send it as a string"):
        value_to_plain(Value(number_value=number), "x")


def test_a_huge_number_leaves_room_for_the_advice() -> None:
    with pytest.raises(InvalidRequest, match=r"^x: 1e\+300 is an integer"):
        value_to_plain(Value(number_value=1e300), "x")


def test_larger_integers_are_shown_as_decimal_strings() -> None:
    assert plain_to_value(2**53).string_value == "9007199254740992"
    assert plain_to_value(-(2**100)).string_value == str(-(2**100))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_i25_what_is_no_json_number_is_refused(number: float) -> None:
    with pytest.raises(InvalidRequest, match="no JSON number"):
        value_to_plain(Value(number_value=number), "x")


@pytest.mark.parametrize(
    ("struct", "path"),
    [
        (
            Struct(fields={"a": Value(list_value=ListValue(values=[Value(), Value(string_value="\x00")]))}),
            "payload.a[1]",
        ),
        (Struct(fields={"odd key": Value(number_value=float("nan"))}), "payload['odd key']"),
        (Struct(fields={"\x00": Value()}), "payload['\\x00']"),
    ],
    ids=["in a list", "odd key", "in a key"],
)
def test_i25_a_refusal_names_the_path(struct: Struct, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        struct_to_plain(struct, "payload")
    assert caught.value.details.violations[0].field == path


@pytest.mark.parametrize(("depth", "fits"), [(64, True), (65, False)])
def test_i25_nesting_has_a_limit(depth: int, fits: bool) -> None:
    value = innermost = Value()
    for _ in range(depth):
        innermost = innermost.list_value.values.add()
    innermost.bool_value = True
    if fits:
        assert str(value_to_plain(value, "x")).count("[") == depth
    else:
        with pytest.raises(LimitExceeded, match="64"):
            value_to_plain(value, "x")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_what_is_nested_too_deep_for_the_wire_is_shown_as_json_text_and_arrives(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    plain = json.loads(opening * 64 + "1" + closing * 64)
    arrived = value_to_plain(Value.FromString(plain_to_value(plain).SerializeToString()), "x")
    for _ in range(64):
        arrived = next(iter(arrived.values())) if isinstance(arrived, dict) else arrived[0]
        if isinstance(arrived, str):
            arrived = json.loads(arrived)
    assert arrived == 1


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_config_arrives_as_it_is_or_is_refused(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def config(depth: int) -> Any:
        return json.loads('{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}")

    answer = graph_pb2.GetGraphResponse()
    answer.graph.modules.add().config.CopyFrom(plain_to_struct(config(CARRIED_DEPTH), "x"))
    arrived = graph_pb2.GetGraphResponse.FromString(answer.SerializeToString()).graph.modules[0].config
    assert struct_to_plain(arrived, "x") == config(CARRIED_DEPTH)
    with pytest.raises(LimitExceeded, match=f"x: is nested deeper than {CARRIED_DEPTH} levels"):
        plain_to_struct(config(CARRIED_DEPTH + 1), "x")


def test_lone_surrogates_are_shown_escaped() -> None:
    assert plain_to_struct({"\ud800": "\udfff"}, "x").fields["\\ud800"].string_value == "\\udfff"


def test_empty_lists_and_objects_stay_what_they_are() -> None:
    assert value_to_plain(plain_to_value([{}, []]), "x") == [{}, []]
    assert value_to_plain(Value(), "x") is None
