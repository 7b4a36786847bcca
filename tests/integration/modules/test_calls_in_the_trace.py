"""What modules call is in the trace of their run: calls of the modules that come with Valkyr by themselves, gRPC by its
channels, other clients by `context.traceparent`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.free_ports import a_silent_port
from tests.integration.modules.grpc_server import SERVICE, OrderServer
from tests.integration.modules.mail_server import MailServer
from tests.integration.modules.stub_server import StubServer, redirect, response
from tests.unit.runner.fakes import a_lease
from tests.unit.runner.test_attempt_spans import SAMPLED, TRACE, UNSAMPLED, Traced, run_all, said, traced
from valkyr.module import Context
from valkyr.modules import EmailRules, GrpcRules, HttpRules
from valkyr.rpc.channel import open_channel
from valkyr.telemetry import attempt_span_id, parse_traceparent

RULES = HttpRules(allow_hosts=frozenset({"127.0.0.1", "localhost"}))


def spans_of(told: Traced, kind: int = Span.SPAN_KIND_CLIENT) -> list[Span]:
    return sorted((span for span in told.spans if span.kind == kind), key=lambda span: span.start_time_unix_nano)


async def request(worker: Any, told: Traced, traceparent: str = SAMPLED, **config: Any) -> None:
    lease = a_lease("r1", "HttpRequestModule", config=json.dumps(config).encode(), traceparent=traceparent)
    await run_all(worker, told.transport, lease)


@pytest.fixture
def _rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valkyr.modules.http_call._DEFAULT_RULES", RULES)


pytestmark = pytest.mark.usefixtures("_rules")


async def test_i23_an_http_request_has_a_client_span_that_the_target_hears_of() -> None:
    async with StubServer({"/orders/secret": response(201)}) as server, traced() as (told, worker):
        url = server.url("/orders/secret?token=secret", "localhost")
        await request(worker, told, url=url, method="POST", query={"more": "secret"}, body="secret")
    [span] = spans_of(told)
    assert span.name == "HTTP POST"
    assert span.parent_span_id.hex() == attempt_span_id("r1", 1)
    assert said(span) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "server.address": "localhost",
        "server.port": server.port,
        "http.response.status_code": 201,
    }
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert server.seen[0].headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert {"baggage", "tracestate"}.isdisjoint(server.seen[0].headers)
    assert "secret" not in str(told.spans), "S23"


async def test_i23_ids_are_handed_on_when_nothing_is_recorded() -> None:
    async with StubServer({"/": response(200)}) as server, traced() as (told, worker):
        await request(worker, told, UNSAMPLED, url=server.url())
    sent = parse_traceparent(server.seen[0].headers["traceparent"])
    assert sent is not None
    assert (f"{sent.trace_id:032x}", sent.trace_flags.sampled) == (TRACE, False)
    assert not told.spans


async def test_the_request_of_a_run_without_a_trace_begins_one() -> None:
    async with StubServer({"/": response(200)}) as server, traced() as (told, worker):
        await request(worker, told, "", url=server.url())
    [span] = spans_of(told)
    assert not span.parent_span_id
    assert server.seen[0].headers["traceparent"] == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"


@pytest.mark.parametrize("name", ["traceparent", "TraceParent"])
async def test_the_author_may_name_another_trace(name: str) -> None:
    other = f"00-{'1' * 32}-{'2' * 16}-01"
    async with StubServer({"/": response(200)}) as server, traced() as (told, worker):
        await request(worker, told, url=server.url(), headers={name: other})
    assert server.seen[0].headers["traceparent"] == other
    assert spans_of(told)[0].trace_id.hex() == TRACE


async def test_each_hop_of_a_redirect_has_its_own_span() -> None:
    async with StubServer({"/b": response(200)}) as other, StubServer() as server, traced() as (told, worker):
        server.answers["/a"] = redirect(307, other.url("/b", "localhost"))
        await request(worker, told, url=server.url("/a"))
    first, second = spans_of(told)
    assert [said(span)["http.response.status_code"] for span in (first, second)] == [307, 200]
    assert [said(span)["server.address"] for span in (first, second)] == ["127.0.0.1", "localhost"]
    assert {span.parent_span_id.hex() for span in (first, second)} == {attempt_span_id("r1", 1)}
    for span, hop in ((first, server), (second, other)):
        assert hop.seen[0].headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"


@pytest.mark.parametrize(
    ("status", "expect", "error_type"),
    [(503, [], "503"), (404, [], "404"), (404, [404], None), (204, [], None)],
    ids=["503", "404", "expected 404", "204"],
)
async def test_an_answer_that_was_not_expected_is_an_error(
    status: int, expect: list[int], error_type: str | None
) -> None:
    async with StubServer({"/": response(status)}) as server, traced() as (told, worker):
        await request(worker, told, url=server.url(), expect=expect)
    [span] = spans_of(told)
    assert said(span).get("error.type") == error_type
    assert (span.status.code == Status.STATUS_CODE_ERROR) is (error_type is not None)
    assert span.status.message == ""


async def test_a_connection_that_does_not_come_about_is_an_error() -> None:
    with a_silent_port() as port:
        async with traced() as (told, worker):
            await request(worker, told, url=f"http://127.0.0.1:{port}/")
    [span] = spans_of(told)
    assert said(span)["error.type"] == "ConnectionError"
    assert "http.response.status_code" not in said(span)


@asynccontextmanager
async def a_grpc_server(seen: list[dict[str, str]]) -> AsyncIterator[str]:
    async def answer(request: bytes, context: Any) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        return request

    handler = grpc.method_handlers_generic_handler("a.Service", {"Say": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_i23_a_grpc_call_of_a_module_is_in_the_trace() -> None:
    seen: list[dict[str, str]] = []

    async with a_grpc_server(seen) as address:

        async def call(context: Context) -> None:
            channel = open_channel(address)
            await channel.unary_unary("/a.Service/Say")(b"x")
            await channel.close()

        async with traced(M=call) as (told, worker):
            await run_all(worker, told.transport, a_lease("r1", "M", traceparent=SAMPLED))
    [span] = spans_of(told)
    assert span.name == "a.Service/Say"
    assert span.parent_span_id.hex() == attempt_span_id("r1", 1)
    assert seen[0]["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED], ids=["sampled", "not sampled"])
async def test_i23_a_client_of_the_authors_own_is_given_the_traceparent(traceparent: str) -> None:
    async with StubServer({"/": response(200)}) as server:

        def call(context: Context) -> None:
            httpx.get(server.url(), headers={"traceparent": context.traceparent}, trust_env=False)

        async with traced(M=call) as (told, worker):
            await run_all(worker, told.transport, a_lease("r1", "M", traceparent=traceparent))
    expected = f"00-{TRACE}-{attempt_span_id('r1', 1)}-{traceparent[-2:]}"
    assert server.seen[0].headers["traceparent"] == expected


async def test_i23_a_grpc_call_has_a_client_span_that_the_target_hears_of(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = GrpcRules(allow_hosts=frozenset({"127.0.0.1"}))
    monkeypatch.setattr("valkyr.modules.grpc_call._DEFAULT_RULES", rules)
    async with OrderServer() as server, traced() as (told, worker):
        config = {"address": f"127.0.0.1:{server.port}", "method": f"{SERVICE}/Place", "tls": False}
        config |= {"request": {"card": "secret"}, "metadata": {"authorization": "secret"}}
        lease = a_lease("r1", "GrpcCallModule", config=json.dumps(config).encode(), traceparent=SAMPLED)
        await run_all(worker, told.transport, lease)
    [span] = spans_of(told)
    assert (span.name, span.parent_span_id.hex()) == (f"{SERVICE}/Place", attempt_span_id("r1", 1))
    assert said(span) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Place",
        "rpc.grpc.status_code": 0,
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    assert server.seen[0][1]["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert "secret" not in str(told.spans), "S23"


async def test_i23_a_mail_has_a_client_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valkyr.modules.email_call._DEFAULT_RULES", EmailRules(allow_hosts=frozenset({"127.0.0.1"})))
    async with MailServer(says={"DATA": "451 later"}) as server, traced() as (told, worker):
        config = {"host": "127.0.0.1", "port": server.port, "tls": "none", "subject": "secret", "text": "secret"}
        config |= {"from": "secret@example.com", "to": "secret@example.com"}
        lease = a_lease("r1", "EmailModule", config=json.dumps(config).encode(), traceparent=SAMPLED)
        await run_all(worker, told.transport, lease)
    [span] = spans_of(told)
    assert (span.name, span.parent_span_id.hex()) == ("SMTP send", attempt_span_id("r1", 1))
    assert said(span) == {"server.address": "127.0.0.1", "server.port": server.port, "error.type": "ConnectionError"}
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert "secret" not in str(span), "S23"
