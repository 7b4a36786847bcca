"""What an HTTP answer, or none, means for the attempt that asked: through the worker, as it is reported."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpcore
import pytest

from tests.free_ports import a_silent_port
from tests.integration.modules.stub_server import StubServer, response
from tests.unit.runner.fakes import FakeTransport, a_lease, a_running, eventually
from valkyr.modules import HttpRules
from valkyr.runner.leases import Failure, FailureType, RunResult, Success

RULES = HttpRules(allow_hosts=frozenset({"127.0.0.1"}), max_response_bytes=1000)
DAY = timedelta(days=1)


async def run(transport: FakeTransport, **config: Any) -> RunResult:
    body = json.dumps(config).encode()
    transport.ready.append(a_lease("r1", "HttpRequestModule", config=body))
    async with a_running(transport, settings={"http": RULES}):
        await eventually(lambda: transport.results)
    return transport.result_of("r1")


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


_STATUSES: dict[int, FailureType | None] = {
    200: None,
    204: None,
    299: None,
    300: FailureType.PERMANENT,
    304: FailureType.PERMANENT,
    400: FailureType.PERMANENT,
    401: FailureType.PERMANENT,
    403: FailureType.PERMANENT,
    404: FailureType.PERMANENT,
    408: FailureType.TRANSIENT,
    409: FailureType.PERMANENT,
    422: FailureType.PERMANENT,
    425: FailureType.TRANSIENT,
    429: FailureType.RATE_LIMITED,
    451: FailureType.PERMANENT,
    499: FailureType.PERMANENT,
    500: FailureType.TRANSIENT,
    502: FailureType.TRANSIENT,
    503: FailureType.TRANSIENT,
    504: FailureType.TRANSIENT,
    599: FailureType.TRANSIENT,
}


@pytest.mark.parametrize(("status", "kind"), _STATUSES.items(), ids=map(str, _STATUSES))
async def test_a_status_means_a_failure_type(status: int, kind: FailureType | None) -> None:
    async with StubServer({"/": response(status)}) as server:
        result = (await run(FakeTransport(), url=server.url())).result
    if kind is None:
        assert isinstance(result, Success)
    else:
        assert isinstance(result, Failure)
        assert result.type is kind
        assert f"answered {status}" in result.message


@pytest.mark.parametrize("status", [302, 404, 408, 429, 503])
async def test_an_expected_status_is_a_success(status: int) -> None:
    async with StubServer({"/": response(status, headers=[("Location", "/x")])}) as server:
        result = (await run(FakeTransport(), url=server.url(), expect=[status])).result
    assert isinstance(result, Success)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", timedelta(seconds=7), timedelta(seconds=7)),
        (" 7 ", timedelta(seconds=7), timedelta(seconds=7)),
        ("999999999", DAY, DAY),
        ("9" * 400, None, None),
        ("-5", None, None),
        ("1.5", None, None),
        ("Fri, 31 Dec 2100 23:59:59 GMT", DAY, DAY),
        ("Friday, 31-Dec-99 23:59:59 GMT", timedelta(0), timedelta(0)),
        ("Fri, 31 Dec 1999 23:59:59 GMT", timedelta(0), timedelta(0)),
        ("Fri, 99 Dec 2100 23:59:59 GMT", None, None),
        ("Fri, 31 Dec 2100 23:59:59 -99999999999999", None, None),
        ("soon", None, None),
        ("", None, None),
        (None, None, None),
    ],
    ids=[
        "seconds",
        "blanks",
        "too-long",
        "digits",
        "negative",
        "fraction",
        "date",
        "old-form",
        "past",
        "no-date",
        "no-zone",
        "word",
        "empty",
        "absent",
    ],
)
async def test_a_rate_limit_says_when_to_come_back(
    value: str | None, low: timedelta | None, high: timedelta | None
) -> None:
    headers = [] if value is None else [("Retry-After", value)]
    async with StubServer({"/": response(429, headers=headers)}) as server:
        result = (await run(FakeTransport(), url=server.url())).result
    assert isinstance(result, Failure)
    assert result.type is FailureType.RATE_LIMITED
    if low is None or high is None:
        assert result.retry_after is None
    else:
        assert result.retry_after is not None
        assert low <= result.retry_after <= high


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", FailureType.TRANSIENT),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", FailureType.TRANSIENT),
        (b"garbage\r\n\r\n", FailureType.TRANSIENT),
        (hang, FailureType.TIMEOUT),
        (response(200, b"x" * 1001), FailureType.PERMANENT),
    ],
    ids=["hangs up", "half a body", "garbage", "no answer", "too large"],
)
async def test_an_exchange_that_breaks_means_a_failure_type(answer: Any, kind: FailureType) -> None:
    async with StubServer({"/": answer}) as server:
        timeout = "PT0.2S" if answer is hang else "PT1M"
        result = (await run(FakeTransport(), url=server.url(), timeout=timeout)).result
    assert isinstance(result, Failure)
    assert result.type is kind


async def test_nobody_listening_is_transient() -> None:
    with a_silent_port() as port:
        result = (await run(FakeTransport(), url=f"http://127.0.0.1:{port}/")).result
    assert isinstance(result, Failure)
    assert result.type is FailureType.TRANSIENT


async def test_a_connection_that_the_system_gives_up_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up(*_: Any, **__: Any) -> Any:
        raise httpcore.ConnectTimeout

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", give_up)
    result = (await run(FakeTransport(), url="http://127.0.0.1:9/")).result
    assert isinstance(result, Failure)
    assert (result.type, result.message) == (FailureType.TIMEOUT, "TimeoutError: 127.0.0.1: the connection timed out")


async def test_the_idempotency_key_is_the_same_in_every_attempt() -> None:
    async with StubServer({"/": response(503)}) as server:
        config = json.dumps({"url": server.url(), "method": "POST"}).encode()
        transport = FakeTransport(
            *(
                a_lease("r1", "HttpRequestModule", config=config, attempt=number, epoch=number, idempotency_key="key-7")
                for number in (1, 2, 3)
            )
        )
        async with a_running(transport, settings={"http": RULES}):
            await eventually(lambda: len(transport.results) == 3)
    assert [seen.headers["idempotency-key"] for seen in server.seen] == ["key-7"] * 3
