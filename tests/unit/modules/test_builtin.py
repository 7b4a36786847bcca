"""The modules that come with Valkyr, as a catalogue, and what each makes of its config."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from valkyr.module import Context, NoConfig, spec_of
from valkyr.modules import builtin_modules, catalogue
from valkyr.modules.delay import DelayConfig
from valkyr.modules.http_request import target_of
from valkyr.modules.transform import TransformConfig, transform


def test_the_catalogue_names_every_module() -> None:
    assert set(builtin_modules()) == {
        "DelayModule",
        "EmailModule",
        "FailModule",
        "GrpcCallModule",
        "HttpRequestModule",
        "LogModule",
        "NoopModule",
        "TransformModule",
    }
    assert set(catalogue()) == set(builtin_modules())


def test_only_delay_is_a_control_node() -> None:
    assert [name for name, spec in builtin_modules().items() if spec.control] == ["DelayModule"]


@pytest.mark.parametrize(
    ("class_name", "config", "fits"),
    [
        ("NoopModule", {}, True),
        ("NoopModule", {"anything": [1]}, True),
        ("LogModule", {"message": "hello", "fields": {"a": 1}}, True),
        ("LogModule", {"fields": {}}, False),
        ("LogModule", {"message": "x", "level": "loud"}, False),
        ("TransformModule", {"output": None}, True),
        ("TransformModule", {}, False),
        ("TransformModule", {"output": 1, "more": 2}, False),
        ("DelayModule", {"duration": "PT30S"}, True),
        ("DelayModule", {"duration": 30}, False),
        ("DelayModule", {}, False),
        ("HttpRequestModule", {"url": "https://example.com"}, True),
        (
            "HttpRequestModule",
            {"url": "https://example.com", "body": {"a": 1}, "expect": [200], "timeout": "PT5S"},
            True,
        ),
        ("HttpRequestModule", {"url": 5}, False),
        ("EmailModule", {"host": "x.test", "from": "a@x.test", "to": "b@x.test", "text": ""}, True),
        (
            "EmailModule",
            {"host": "x.test", "from": "a@x.test", "to": ["b@x.test"], "html": "x"},
            True,
        ),
        ("EmailModule", {"host": "x.test", "from": "a@x.test", "to": "b@x.test", "password": "x"}, False),
        ("EmailModule", {"host": "x.test", "from": "a@x.test", "to": 5}, False),
        ("GrpcCallModule", {"address": "x.test:443", "method": "a.b.C/Do", "request": {"id": 1}}, True),
        ("GrpcCallModule", {"address": "x.test:443", "method": "Do"}, False),
        ("GrpcCallModule", {"address": "x.test:443", "method": "a.C/Do", "request": "x"}, False),
        ("HttpRequestModule", {"url": "https://example.com", "verify": False}, False),
    ],
)
def test_schemas_say_what_configs_may_hold(class_name: str, config: dict[str, Any], fits: bool) -> None:
    assert jsonschema_rs.is_valid(catalogue()[class_name], config) is fits


@pytest.mark.parametrize("text", ["PT30S", "P1DT12H"])
def test_a_delay_is_an_iso_8601_duration(text: str) -> None:
    assert isinstance(DelayConfig.model_validate({"duration": text}).duration, timedelta)


@pytest.mark.parametrize("value", ["P2M", "P1Y", "-PT1S", "30", 30, 30.0, "", None, []])
def test_other_durations_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        DelayConfig.model_validate({"duration": value})


@pytest.mark.parametrize("output", [None, 1, "x", [1, {"a": 2}], {"k": 9007199254740993}])
def test_transform_returns_its_output(output: Any) -> None:
    assert transform(Context(), TransformConfig(output=output)) == output


@pytest.mark.parametrize(
    ("config", "target"),
    [
        ({"url": "https://API.Stripe.com/v1/charges?x=1"}, "http:api.stripe.com"),
        ({"url": "https://api.stripe.com.:8443"}, "http:api.stripe.com"),
        ({"url": "https://bücher.example/"}, "http:xn--bcher-kva.example"),
        ({"url": "no url"}, None),
        ({"url": 5}, None),
        ({}, None),
    ],
)
def test_the_target_of_a_request_is_its_host(config: dict[str, Any], target: str | None) -> None:
    assert target_of(config) == target


def test_the_context_decodes_inputs_only_when_asked() -> None:
    context = Context(inputs=b'{"trigger":{"a":1},"nodes":{"n":{"outputs":[2]}}}')
    assert context.trigger == {"a": 1}
    assert context.outputs_of("n") == [2]
    with pytest.raises(KeyError, match="other is no node whose edge to this one was taken: n"):
        context.outputs_of("other")
    assert Context(inputs=b"").inputs == {}
    assert Context(inputs={"trigger": 5}).trigger == 5


def test_a_module_without_config_takes_any() -> None:
    spec = spec_of("M", lambda context: None)
    assert spec.config_model is NoConfig
    assert not spec.is_async
