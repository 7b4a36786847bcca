"""Requests that graphs must not be able to make, each tried for real: nothing may connect."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.integration.modules.stub_server import TLS, StubServer, redirect, response
from valkyr.module import Context, PermanentError
from valkyr.modules.http_request import HttpRequestConfig, http_request
from valkyr.modules.http_rules import HttpRules

NAMES = {
    "localhost.": ["127.0.0.1"],
    "internal.test": ["10.1.2.3"],
    "metadata.google.internal": ["169.254.169.254"],
    "mixed.test": ["93.184.216.34", "127.0.0.1"],
    "mixed6.test": ["2606:4700::1111", "::1"],
    "v6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "odd.test": ["not an address"],
    "zone.test": ["fe80::1%1"],
}

SPELLINGS = [
    *("http://127.0.0.1:{port}/", "http://localhost:{port}/", "HTTP://LOCALHOST:{port}/", "http://93.184.216.34/"),
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/", "dict://127.0.0.1:{port}/"),
    *("ldap://127.0.0.1:{port}/", "data:text/plain,x", "javascript:alert(1)", "ws://127.0.0.1:{port}/", "unix:/run/x"),
    *(
        "//127.0.0.1:{port}/",
        "127.0.0.1:{port}",
        "/etc/passwd",
        "?",
        "https://",
        "https:///127.0.0.1:{port}/",
        "https:",
    ),
    *(
        "https://127.0.0.1:{port}/",
        "https://127.0.0.1.:{port}/",
        "https://localhost:{port}/",
        "https://localhost.:{port}",
    ),
    *(
        "HTTPS://LocalHost:{port}/",
        "https://127.1:{port}/",
        "https://127.0.1:{port}/",
        "https://127.000.000.001:{port}/",
    ),
    *(
        "https://0177.0.0.1:{port}/",
        "https://0x7f.0.0.1:{port}/",
        "https://0x7f000001:{port}/",
        "https://0X7F000001:{port}",
    ),
    *("https://2130706433:{port}/", "https://017700000001:{port}/", "https://0:{port}/", "https://0.0.0.0:{port}/"),
    *(
        "https://127.255.255.254:{port}/",
        "https://0x:{port}/",
        "https://127.0.0.0x1:{port}/",
        "https://00000000177.1:{port}",
    ),
    *("https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.0.1/"),
    *(
        "https://169.254.169.254/latest/meta-data/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://169.254.0.1/",
    ),
    *("https://100.64.0.1/", "https://100.100.100.200/", "https://168.63.129.16/", "https://192.0.0.192/"),
    *("https://192.0.2.1/", "https://198.18.0.1/", "https://198.51.100.1/", "https://203.0.113.1/"),
    *("https://224.0.0.1/", "https://239.1.1.1/", "https://240.0.0.1/", "https://255.255.255.255/"),
    *(
        "https://[::1]:{port}/",
        "https://[::]:{port}/",
        "https://[0:0:0:0:0:0:0:1]:{port}/",
        "https://[::ffff:127.0.0.1]:{port}",
    ),
    *("https://[::ffff:7f00:1]:{port}/", "https://[::127.0.0.1]:{port}/", "https://[64:ff9b::7f00:1]/"),
    *("https://[64:ff9b::127.0.0.1]/", "https://[64:ff9b:1::7f00:1]/", "https://[2002:7f00:1::]/"),
    *("https://[2001:0:7f00:1::]/", "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[fec0::1]/"),
    *(
        "https://[fc00::1]/",
        "https://[fd00::1]/",
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[100::1]/",
    ),
    *(
        "https://[2001:db8::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[5f00::1]/",
        "https://[::1",
        "https://::1/",
    ),
    *(
        "https://internal.test/",
        "https://metadata.google.internal/",
        "https://mixed.test:{port}/",
        "https://mapped.test:{port}",
    ),
    *("https://mixed6.test:{port}/", "https://v6.test:{port}/", "https://odd.test/", "https://zone.test/"),
    *(
        "https://example.com@127.0.0.1:{port}/",
        "https://127.0.0.1:{port}@example.com/",
        "https://a:b@127.0.0.1:{port}/",
    ),
    *("https://example.com\\@127.0.0.1:{port}/", "https://example.com\t@127.0.0.1/", "https://127.0.0.1\r\n/"),
    *("https://%31%32%37.0.0.1:{port}/", "https://127%2e0.0.1:{port}/", "https://１２７.0.0.1:{port}/"),
    *("https://127。0。0。1:{port}/", "https://①②⑦.0.0.1:{port}/", "https://ⓛocalhost:{port}/", "https://1.2.3.4.5/"),
    *("https://256.1.1.1/", "https://exa mple.com/", " https://127.0.0.1:{port}/", "https://example.com\0.test/"),
    *(
        "https://-a.test/",
        "https://a..test/",
        "https://" + "a" * 64 + ".test/",
        "https://x.test:99999/",
        "https://x.test:-1/",
    ),
    *("https://127.0.0.1:{port}#@example.com/", "https://localhost:{port}?@example.com", "https://" + "a/" * 5000),
]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Names from the table; numbers in every form that the system understands, as it would."""
    if host in NAMES:
        return NAMES[host]
    numeric = await asyncio.get_running_loop().getaddrinfo(
        host, port, flags=0 if "localhost" in host else socket.AI_NUMERICHOST
    )
    return [str(entry[4][0]) for entry in numeric]


async def call(url: str, rules: HttpRules, **config: object) -> dict[str, object]:
    settings = {"http": rules}
    return await http_request(Context(settings=settings), HttpRequestConfig.model_validate({"url": url, **config}))


def test_the_table_is_long() -> None:
    assert len(set(SPELLINGS)) == len(SPELLINGS) >= 60


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda text: ascii(text[:60]))
async def test_by_default_nothing_inside_is_reached(spelling: str) -> None:
    async with StubServer({"/": response(200)}) as server:
        with pytest.raises(PermanentError):
            await call(spelling.replace("{port}", str(server.port)), HttpRules(resolve=resolve))
        assert not server.connections


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "8.8.8.8", "2a00:1450:4001::1"])
def test_public_addresses_are_reached(address: str) -> None:
    assert HttpRules().check_address(address, "example.com", 443) == address


@pytest.mark.parametrize(
    "url", ["https://example.com/a?b=c#d", "https://xn--bcher-kva.example:8443/", "https://[2606:4700::1111]/"]
)
def test_usual_urls_are_accepted(url: str) -> None:
    HttpRules().check_url(url)


@pytest.mark.parametrize(
    ("allowed", "fits"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:{port}", True),
        ("127.0.0.1:1", False),
        ("127.0.0.2", False),
        ("localhost", False),
    ],
)
async def test_a_named_host_is_reached_by_plain_http(allowed: str, fits: bool) -> None:
    async with StubServer({"/": response(200)}) as server:
        rules = HttpRules(allow_hosts=frozenset({allowed.format(port=server.port)}))
        if fits:
            assert (await call(server.url(), rules))["status"] == 200
        else:
            with pytest.raises(PermanentError):
                await call(server.url(), rules)
        assert bool(server.connections) is fits


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "168.63.129.16", "0.0.0.0", "224.0.0.1"]
)
def test_a_named_host_does_not_open_the_metadata_service(address: str) -> None:
    rules = HttpRules(allow_hosts=frozenset({"billing.internal"}))
    with pytest.raises(PermanentError, match="not a public address"):
        rules.check_address(address, "billing.internal", 80)
    assert rules.check_address("10.0.0.7", "billing.internal", 80) == "10.0.0.7"


def test_a_network_that_is_no_network_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="10"):
        HttpRules(allow_networks=("10.0.0.0/99",))


class Rebinding:
    """A name server whose answer changes after the first question."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.questions = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.questions += 1
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """127.0.0.1 stands for a public address here; the second answer would lead elsewhere."""
    name_server = Rebinding("127.0.0.1", "127.0.0.9")
    async with StubServer({"/": response(200)}, tls=True) as server:
        rules = HttpRules(allow_networks=("127.0.0.1/32",), resolve=name_server, ca_file=str(TLS / "certificate.pem"))
        await call(server.url(host="target.test"), rules)
    assert name_server.questions == 1
    assert server.names == ["target.test"], "TLS goes on using the name"
    assert server.seen[0].headers["host"] == f"target.test:{server.port}"


async def test_a_redirect_to_the_same_name_is_resolved_and_checked_anew() -> None:
    name_server = Rebinding("127.0.0.1", "127.0.0.9")
    async with StubServer({"/": redirect(302, "/again")}, tls=True) as server:
        rules = HttpRules(allow_networks=("127.0.0.1/32",), resolve=name_server, ca_file=str(TLS / "certificate.pem"))
        with pytest.raises(PermanentError, match=r"target\.test is at 127\.0\.0\.9"):
            await call(server.url(host="target.test"), rules)
    assert name_server.questions == 2
    assert server.connections == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://target.test:{port}/x",
        "https://127.0.0.9:{port}/x",
        "https://localhost:{port}/x",
        "https://169.254.169.254/latest/meta-data/",
        "//[::1]:{port}/x",
        "file:///etc/passwd",
        "gopher://target.test/",
        "https://user:password@target.test:{port}/x",
        "https://0x7f000001:{port}/x",
        "https://[bad/",
    ],
)
async def test_a_redirect_may_not_lead_where_a_request_may_not(location: str) -> None:
    async def found(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "target.test" else await resolve(host, port)

    async with StubServer({"/x": response(200)}, tls=True) as server:
        server.answers["/"] = redirect(302, location.format(port=server.port))
        rules = HttpRules(allow_networks=("127.0.0.1/32",), resolve=found, ca_file=str(TLS / "certificate.pem"))
        if "localhost" in location or "0x7f" in location:
            rules = replace(rules, resolve=_loopback_elsewhere)
        with pytest.raises(PermanentError):
            await call(server.url(host="target.test"), rules)
        assert [seen.path for seen in server.seen] == ["/"]


async def _loopback_elsewhere(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"] if host == "target.test" else ["127.0.0.9"]


@pytest.mark.parametrize(
    ("host", "ca_file"),
    [("wrong.test", "certificate.pem"), ("target.test", None)],
    ids=["another name", "unknown issuer"],
)
async def test_tls_is_verified(host: str, ca_file: str | None) -> None:
    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with StubServer({"/": response(200)}, tls=True) as server:
        rules = HttpRules(
            allow_networks=("127.0.0.0/8",), resolve=here, ca_file=str(TLS / ca_file) if ca_file is not None else None
        )
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            await call(server.url(host=host), rules)
        assert not server.seen
