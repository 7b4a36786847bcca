"""HttpRequestModule against a real server: what it sends, what it makes of answers, and its bounds."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from tests.free_ports import a_silent_port
from tests.integration.modules.stub_server import StubServer, redirect, response
from valkyr.module import Context, PermanentError, RetryLater
from valkyr.modules.http_request import HttpRequestConfig, http_request
from valkyr.modules.http_rules import HttpRules

RULES = HttpRules(allow_hosts=frozenset({"127.0.0.1", "localhost"}), max_response_bytes=50_000)
JSON = [("Content-Type", "application/json")]


async def call(url: str, rules: HttpRules = RULES, **config: Any) -> dict[str, Any]:
    context = Context(idempotency_key="key-1", settings={"http": rules})
    return await http_request(context, HttpRequestConfig.model_validate({"url": url, **config}))


async def test_a_request_says_what_the_config_says() -> None:
    async with StubServer({"/orders": response(201, b'{"id":7}', JSON)}) as server:
        outputs = await call(
            server.url("/orders?a=1"),
            method="POST",
            query={"b": [2, "x y"], "c": True},
            headers={"X-Trace": "t"},
            body={"amount": 12.5},
        )
    [seen] = server.seen
    assert (seen.method, seen.path) == ("POST", "/orders?a=1&b=2&b=x+y&c=true")
    assert seen.body == b'{"amount":12.5}'
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["idempotency-key"] == "key-1"
    assert seen.headers["x-trace"] == "t"
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"
    assert outputs["status"] == 201
    assert outputs["body"] == {"id": 7}
    assert outputs["url"] == server.url("/orders")


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ([("Content-Type", "application/problem+json; charset=utf-8")], b"[1]", {"body": [1]}),
        (JSON, b"not json", {"body": "not json"}),
        ([("Content-Type", "text/plain; charset=latin-1")], b"\xe4", {"body": "ä"}),
        ([], "ä".encode(), {"body": "ä"}),
        ([], b"\xff\xfe", {"body": None, "body_base64": "//4="}),
        ([("Content-Type", "text/plain")], b"a\0b", {"body": None, "body_base64": "YQBi"}),
        ([("Content-Type", "text/plain; charset=unheard-of")], b"a", {"body": None, "body_base64": "YQ=="}),
        ([], b"", {"body": None}),
        (
            [("Content-Encoding", "gzip"), *JSON],
            gzip.compress(b"[1]", mtime=0) + gzip.compress(b" ", mtime=0),
            {"body": [1]},
        ),
        ([("Content-Encoding", "deflate"), *JSON], zlib.compress(b"[1]"), {"body": [1]}),
    ],
)
async def test_bodies_become_json_or_text_or_base64(
    headers: list[tuple[str, str]], body: bytes, expected: dict[str, Any]
) -> None:
    async with StubServer({"/": response(200, body, headers)}) as server:
        outputs = await call(server.url())
    assert {key: value for key, value in outputs.items() if key.startswith("body")} == expected


async def test_headers_come_in_lower_case_and_without_cookies() -> None:
    headers = [("X-A", "1"), ("x-a", "2"), ("Set-Cookie", "session=secret")]
    async with StubServer({"/": response(200, b"", headers)}) as server:
        outputs = await call(server.url())
    assert outputs["headers"]["x-a"] == "1, 2"
    assert "set-cookie" not in outputs["headers"]


@pytest.mark.parametrize("status", [500, 502, 503, 599, 408, 425])
async def test_what_may_pass_is_transient(status: int) -> None:
    async with StubServer({"/": response(status)}) as server:
        with pytest.raises(ConnectionError, match=f"answered {status}"):
            await call(server.url())


@pytest.mark.parametrize("status", [304, 400, 401, 404, 409, 410, 422, 451])
async def test_what_will_stay_is_permanent(status: int) -> None:
    async with StubServer({"/": response(status)}) as server:
        with pytest.raises(PermanentError, match=f"answered {status}, expected 200 to 299"):
            await call(server.url() + "?token=secret")


@pytest.mark.parametrize(
    ("status", "expect", "fits"), [(404, [200, 404], True), (503, [503], True), (200, [404], False)]
)
async def test_expected_statuses_are_a_success(status: int, expect: list[int], fits: bool) -> None:
    async with StubServer({"/": response(status)}) as server:
        if fits:
            assert (await call(server.url(), expect=expect))["status"] == status
        else:
            with pytest.raises(PermanentError, match="expected 404"):
                await call(server.url(), expect=expect)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("99999999", 86400, 86400),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 86400, 86400),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
        ("soon", None, None),
        (None, None, None),
    ],
)
async def test_429_asks_to_be_retried_when_the_target_says(
    value: str | None, low: int | None, high: int | None
) -> None:
    headers = [("Retry-After", value)] if value is not None else []
    async with StubServer({"/": response(429, b"", headers)}) as server:
        with pytest.raises(RetryLater) as caught:
            await call(server.url())
    if low is None or high is None:
        assert caught.value.after is None
    else:
        assert caught.value.after is not None
        assert low <= caught.value.after.total_seconds() <= high


async def test_no_connection_is_transient() -> None:
    with a_silent_port() as port, pytest.raises(OSError, match=r"127\.0\.0\.1") as caught:
        await call(f"http://127.0.0.1:{port}/")
    assert not isinstance(caught.value, TimeoutError)


async def test_a_name_that_does_not_resolve_is_transient() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    with pytest.raises(ConnectionError, match="no such host"):
        await call("https://nowhere.test/", replace(RULES, resolve=nowhere))


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 2", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["nothing", "half a line", "garbage", "half a body"],
)
async def test_a_broken_answer_is_transient(answer: bytes) -> None:
    async with StubServer({"/": answer}) as server:
        with pytest.raises(ConnectionError):
            await call(server.url())


async def test_half_a_gzip_is_transient() -> None:
    packed = gzip.compress(b"x" * 1000, mtime=0)[:-12]
    async with StubServer({"/": response(200, packed, [("Content-Encoding", "gzip")])}) as server:
        with pytest.raises(ConnectionError, match="compressed"):
            await call(server.url())


async def test_a_target_that_does_not_answer_is_a_timeout() -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with StubServer({"/": hang}) as server:
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            await call(server.url(), timeout="PT0.05S")


async def test_a_target_that_drips_is_a_timeout() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    async with StubServer({"/": drip}) as server:
        with pytest.raises(TimeoutError):
            await call(server.url(), timeout="PT0.1S")


async def test_the_operator_bounds_the_timeout() -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with StubServer({"/": hang}) as server:
        with pytest.raises(TimeoutError, match=r"0\.03 s"):
            await call(server.url(), replace(RULES, max_timeout=timedelta(seconds=0.03)), timeout="P1D")


@pytest.mark.parametrize(("size", "fits"), [(50_000, True), (50_001, False)])
@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_has_a_largest_size(size: int, fits: bool, packed: bool) -> None:
    body = b"x" * size
    answer = (
        response(200, gzip.compress(body, mtime=0), [("Content-Encoding", "gzip")]) if packed else response(200, body)
    )
    async with StubServer({"/": answer}) as server:
        if fits:
            assert (await call(server.url()))["body"] == body.decode()
        else:
            with pytest.raises(PermanentError, match="larger than the 50000 bytes"):
                await call(server.url())


async def test_a_body_without_end_is_cut_off() -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await writer.drain()

    async with StubServer({"/": pour}) as server:
        with pytest.raises(PermanentError, match="larger than"):
            await call(server.url())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_does_not_go_off(encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(40)) + packer.flush()
    assert len(bomb) < 50_000
    async with StubServer({"/": response(200, bomb, [("Content-Encoding", encoding)])}) as server:
        with pytest.raises(PermanentError, match="larger than"):
            await call(server.url())


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "unheard-of"])
async def test_other_encodings_are_refused(encoding: str) -> None:
    async with StubServer({"/": response(200, b"x", [("Content-Encoding", encoding)])}) as server:
        with pytest.raises(PermanentError, match="gzip and deflate"):
            await call(server.url())


async def test_headers_have_a_largest_size() -> None:
    async with StubServer({"/": response(200, b"", [("X-Large", "x" * 40_000)])}) as server:
        with pytest.raises(PermanentError, match="bytes of headers"):
            await call(server.url())


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with StubServer({"/": response(200)}) as server, StubServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        await call(server.url())
        assert not proxy.connections


@pytest.mark.parametrize(
    ("status", "method", "becomes", "keeps_body"),
    [
        (301, "GET", "GET", False),
        (301, "POST", "GET", False),
        (302, "POST", "GET", False),
        (303, "PUT", "GET", False),
        (303, "HEAD", "HEAD", False),
        (307, "POST", "POST", True),
        (308, "PUT", "PUT", True),
        (302, "PUT", "PUT", True),
    ],
)
async def test_a_redirect_is_followed_as_http_says(status: int, method: str, becomes: str, keeps_body: bool) -> None:
    answers = {"/a": redirect(status, "/b?x=1"), "/b": response(200, b"" if method == "HEAD" else b"there")}
    async with StubServer(answers) as server:  # type: ignore[arg-type]
        body = None if method in ("GET", "HEAD") else "data"
        outputs = await call(server.url("/a"), method=method, body=body, headers={"Authorization": "Bearer t"})
    second = server.seen[1]
    assert (second.method, second.path) == (becomes, "/b?x=1")
    assert second.body == (b"data" if keeps_body else b"")
    assert second.headers["authorization"] == "Bearer t", "the same origin may see it again"
    assert outputs["url"] == server.url("/b")


async def test_another_host_sees_no_credentials() -> None:
    secrets = {"Authorization": "Bearer t", "Cookie": "s=1", "X-Api-Key": "k"}
    async with StubServer({"/b": response(200)}) as other, StubServer() as server:
        server.answers["/a"] = redirect(307, other.url("/b", "localhost"))
        await call(server.url("/a"), method="POST", headers=secrets, body={"n": 1})
        [seen] = other.seen
    assert seen.headers.keys().isdisjoint(name.lower() for name in secrets)
    assert seen.headers["idempotency-key"] == "key-1"
    assert seen.headers["host"] == f"localhost:{other.port}"
    assert seen.body == b'{"n":1}'


@pytest.mark.parametrize(("hops", "fits"), [(3, True), (4, False)])
async def test_at_most_three_redirects_are_followed(hops: int, fits: bool) -> None:
    answers = {f"/{hop}": redirect(302, f"/{hop + 1}") for hop in range(hops)} | {f"/{hops}": response(200)}
    async with StubServer(answers) as server:  # type: ignore[arg-type]
        if fits:
            assert (await call(server.url("/0")))["status"] == 200
        else:
            with pytest.raises(PermanentError, match="more than 3 redirects"):
                await call(server.url("/0"))


async def test_an_expected_redirect_is_not_followed() -> None:
    async with StubServer({"/": redirect(302, "/elsewhere")}) as server:
        outputs = await call(server.url(), expect=[302])
    assert outputs["headers"]["location"] == "/elsewhere"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"headers": {"Host": "other"}},
        {"headers": {"content-length": "5"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Proxy-Authorization": "x"}},
        {"headers": {"X-A": "1\r\nX-B: 2"}},
        {"headers": {"X A": "1"}},
        {"headers": {"": "1"}},
        {"method": "TRACE"},
        {"method": "CONNECT"},
        {"timeout": "P1M"},
        {"timeout": "5"},
        {"expect": [99]},
        {"url": ""},
        {"verify": False},
        {"unknown": 1},
    ],
)
def test_a_config_that_could_harm_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpRequestConfig.model_validate({"url": "https://example.com", **config})
