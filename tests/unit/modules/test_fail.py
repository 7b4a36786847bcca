"""FailModule: fails so often, in the way it is told to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from tests.unit.runner.fakes import FakeTransport, a_lease, a_running, eventually
from valkyr.module import Context
from valkyr.modules import catalogue
from valkyr.modules.fail import FailConfig, fail
from valkyr.runner.leases import Failure, FailureType, Success


async def _outcome_of(config: bytes, *, attempt: int = 1) -> Success | Failure:
    transport = FakeTransport(a_lease("r1", "FailModule", config=config, attempt=attempt))
    async with a_running(transport):
        await eventually(lambda: transport.results)
    result = transport.result_of("r1").result
    assert isinstance(result, Success | Failure)
    return result


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (b"{}", FailureType.TRANSIENT, "DrillFailure: this is a drill"),
        (b'{"type":"TRANSIENT","message":"away"}', FailureType.TRANSIENT, "DrillFailure: away"),
        (b'{"type":"RATE_LIMITED","message":"slower"}', FailureType.RATE_LIMITED, "slower"),
        (b'{"type":"TIMEOUT"}', FailureType.TIMEOUT, "TimeoutError: this is a drill"),
        (b'{"type":"PERMANENT","message":"never"}', FailureType.PERMANENT, "never"),
    ],
    ids=["default", "transient", "rate limited", "timeout", "permanent"],
)
async def test_a_drill_fails_as_it_is_told_to(config: bytes, kind: FailureType, message: str) -> None:
    outcome = await _outcome_of(config)
    assert isinstance(outcome, Failure)
    assert (outcome.type, outcome.message) == (kind, message)


async def test_a_drill_may_ask_to_be_retried_later() -> None:
    outcome = await _outcome_of(b'{"type":"RATE_LIMITED","retry_after":"PT1M30S"}')
    assert isinstance(outcome, Failure)
    assert outcome.retry_after == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("times", "attempt", "succeeds"), [(2, 1, False), (2, 2, False), (2, 3, True), (0, 1, True), (None, 1000, False)]
)
async def test_a_drill_fails_so_often_and_then_succeeds(times: int | None, attempt: int, succeeds: bool) -> None:
    outcome = await _outcome_of(b"{}" if times is None else b'{"times":%d}' % times, attempt=attempt)
    assert outcome == Success(b'{"attempt":%d}' % attempt) if succeeds else isinstance(outcome, Failure)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"type":"RUNNER_LOST"}', "type: Input should be 'TRANSIENT', 'RATE_LIMITED', 'TIMEOUT' or 'PERMANENT'"),
        (b'{"type":"CANCELLED"}', "not 'CANCELLED'"),
        (b'{"type":"oops"}', "not 'oops'"),
        (b'{"times":-1}', "times: Input should be greater than or equal to 0, not -1"),
        (b'{"retry_after":"PT5S"}', "retry_after goes with the type RATE_LIMITED, not with TRANSIENT"),
        (b'{"type":"RATE_LIMITED","retry_after":"5"}', "retry_after: .*ISO 8601"),
        (b'{"message":""}', "message: "),
        (b'{"how":"badly"}', "how: Extra inputs are not permitted"),
    ],
    ids=[
        "runner lost",
        "cancelled",
        "unknown",
        "negative times",
        "retry_after",
        "duration",
        "no message",
        "unknown key",
    ],
)
async def test_a_drill_that_makes_no_sense_is_permanent_and_says_why(config: bytes, message: str) -> None:
    outcome = await _outcome_of(config)
    assert isinstance(outcome, Failure)
    assert outcome.type is FailureType.PERMANENT
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(outcome.message)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({}, True),
        ({"type": "RATE_LIMITED", "message": "m", "times": 3, "retry_after": "PT5S"}, True),
        ({"type": "RUNNER_LOST"}, False),
        ({"times": "often"}, False),
        ({"retry_after": 5}, False),
    ],
)
def test_the_schema_of_a_drill(config: dict[str, Any], fits: bool) -> None:
    assert jsonschema_rs.is_valid(catalogue()["FailModule"], config) is fits
    if not fits:
        with pytest.raises(ValidationError):
            FailConfig.model_validate(config)


def test_a_drill_names_the_attempt_that_succeeded() -> None:
    assert fail(Context(attempt=4), FailConfig(times=3)) == {"attempt": 4}
