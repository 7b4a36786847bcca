"""Breakers by example, over a real channel: what was answered is what can be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from services.breaker.app import open_app
from services.breaker.examples import BREAKERS, SWITCHED_OFF
from services.breaker.settings import BreakerSettings
from services.chassis.example.resource import Resource, columns_of
from tests.contract.breaker.calls import ask, report, trip
from tests.contract.breaker.conftest import MovableClock
from tests.example_lab import every_way_of_asking, to_be_asked, undescribed
from valkyr.api.breaker.v1 import breaker_pb2 as pb
from valkyr.api.breaker.v1.breaker_pb2_grpc import BreakerServiceStub
from valkyr.errors import InvalidRequest
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import from_rpc_error


@asynccontextmanager
async def switched_off(settings: BreakerSettings, clock: MovableClock) -> AsyncIterator[BreakerServiceStub]:
    async with open_app(settings.model_copy(update={"enabled": False}), clock=clock) as app:
        channel = open_channel(app.server.address, principal="tester")
        yield BreakerServiceStub(channel)
        await channel.close()


async def listed(stub: BreakerServiceStub, example: Mapping[str, Any] | None = None, **fields: Any) -> list[str]:
    """Targets."""
    request = json_format.ParseDict({"example": dict(example or {}), **fields}, pb.ListBreakersRequest())
    return [breaker.target for breaker in (await stub.ListBreakers(request)).breakers]


@pytest.mark.parametrize("resource", [BREAKERS, SWITCHED_OFF], ids=["on", "off"])
def test_every_field_that_is_answered_is_described(resource: Resource) -> None:
    assert undescribed(resource, pb.Breaker.DESCRIPTOR) == set()
    assert set(dict(columns_of(resource.fields))["state"].names) == set(pb.Breaker.State.keys()[1:])


async def test_every_column_can_be_asked_for_and_ordered_by(
    stub: BreakerServiceStub, settings: BreakerSettings, clock: MovableClock
) -> None:
    await report(stub, "SUCCESS", "FAILURE", target="x")
    async with switched_off(settings, clock) as off:
        for of, resource in ((stub, BREAKERS), (off, SWITCHED_OFF)):
            for way in every_way_of_asking(resource):
                assert len(await listed(of, **way)) == ("example" not in way or "matcher" in way), way


async def test_what_was_answered_is_its_own_example(
    stub: BreakerServiceStub, settings: BreakerSettings, clock: MovableClock
) -> None:
    await report(stub, "SUCCESS", "FAILURE", target="closed")
    await trip(stub, "open")
    await trip(stub, "half open")
    clock.advance(minutes=1)
    await ask(stub, "a", target="half open")
    async with switched_off(settings, clock) as off:
        for of, resource in ((stub, BREAKERS), (off, SWITCHED_OFF)):
            answered = (await of.ListBreakers(pb.ListBreakersRequest())).breakers
            assert [breaker.target for breaker in answered] == ["closed", "half open", "open"]
            for breaker in answered:
                assert await listed(of, to_be_asked(breaker, resource)) == [breaker.target]


async def test_the_state_that_is_shown_is_the_state_that_is_matched(
    stub: BreakerServiceStub, settings: BreakerSettings, clock: MovableClock
) -> None:
    await trip(stub, "a")
    await trip(stub, "b")
    clock.advance(minutes=1)
    await ask(stub, "x", "y", target="b")
    assert await listed(stub, {"state": "open"}) == ["a"]
    assert await listed(stub, {"permitsInFlight": 2}) == ["b"]
    async with switched_off(settings, clock) as off:
        assert await listed(off, {"state": "OPEN"}) == []
        assert await listed(off, {"state": "CLOSED", "openedTime": None, "permitsInFlight": 0}) == ["a", "b"]
        assert await listed(off, {"state": "CLOSED"}, orderBy="state, openedTime desc", pageSize=1) == ["b"]


async def test_what_stands_beside_the_example_holds_whatever_the_matcher_says(stub: BreakerServiceStub) -> None:
    for target in ("http:a", "http:b", "smtp:a"):
        await trip(stub, target)
    await report(stub, "FAILURE", target="http:c")
    contains = {"stringMode": "CONTAINS", "matchAny": True}
    example = {"target": "a", "state": "OPEN"}
    assert await listed(stub, example, matcher=contains) == ["http:a", "http:b", "smtp:a"]
    assert await listed(stub, example, matcher=contains, targetPrefix="http:") == ["http:a", "http:b"]
    assert await listed(stub, example, matcher=contains, states=["CLOSED"]) == []
    assert await listed(stub, orderBy="failureCount, target desc", pageSize=2) == ["http:c", "smtp:a"]


@pytest.mark.parametrize(
    ("asked", "path", "said"),
    [
        ({"example": {"state": "SHUT"}}, "example.state", "none of CLOSED"),
        ({"example": {"policy": {"failureThreshold": 5}}}, "example.policy", "the same for all"),
        ({"example": {"forced": "perhaps"}}, "example.forced", "not a boolean"),
        ({"orderBy": "policy"}, "orderBy", "nothing that this list can be ordered by"),
        ({"pageToken": "WyJ2ZXJzaW9uIiwxXQ"}, "pageToken", "was not given out for this list"),
    ],
)
async def test_i25_what_cannot_be_asked_for_is_named(
    stub: BreakerServiceStub, asked: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListBreakers(json_format.ParseDict(asked, pb.ListBreakersRequest()))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.details.violations] == [path]
    assert said in error.details.violations[0].description
