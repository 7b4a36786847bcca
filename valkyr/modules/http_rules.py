"""Where HTTP requests of graphs may go: which URLs, and which addresses their hosts may resolve to.

Graphs are data of others, so by default only public addresses are reached, by https. What an operator runs inside is
opened by name or by network. https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from valkyr.module import PermanentError

if TYPE_CHECKING:
    import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL = 8192

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029]")

# Never reached by allowing a host's name, only its network: cloud metadata, link-local, multicast, "this host".
_UNSAFE_EVEN_IF_NAMED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "192.0.0.192/32",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    )
)
# IANA special-purpose registries: https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Every address of a host, by the system. OSError if it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class HttpRules:
    """What an operator sets; a graph cannot widen it.

    `allow_hosts`: names or addresses, with or without `:port`, that may be called by http and at private addresses;
    lower case, IPv6 with a port in brackets.
    `allow_networks`: CIDR blocks that count as public. `ca_file`: PEM certificates to trust instead of the usual ones.
    """

    allow_hosts: frozenset[str] = frozenset()
    allow_networks: tuple[str, ...] = ()
    max_response_bytes: int = 1_000_000
    max_header_bytes: int = 32_768
    max_redirects: int = 3
    default_timeout: timedelta = timedelta(seconds=30)
    max_timeout: timedelta = timedelta(minutes=5)
    ca_file: str | None = None
    resolve: Resolver = field(default=system_resolver, compare=False)

    def __post_init__(self) -> None:
        """ValueError for what is no CIDR block."""
        for text in self.allow_networks:
            ip_network(text)

    def check_url(self, text: str) -> httpx.URL:
        """The URL, taken apart. PermanentError if its form or its scheme is refused; no name is resolved here."""
        import httpx  # by the first request: the rules are part of every executor's settings

        if len(text) > MAX_URL:
            raise PermanentError(f"the URL has {len(text)} characters, and {MAX_URL} are allowed")
        if _UNPRINTABLE.search(text):
            raise PermanentError("the URL contains blanks, backslashes or control characters: percent-encode them")
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError) as error:
            raise PermanentError(f"{_shown(text)} is no URL: {error}") from None
        if url.scheme not in ("http", "https"):
            raise PermanentError(f"{_shown(text)}: only https URLs are requested, not {url.scheme or 'relative'} ones")
        if url.userinfo:
            raise PermanentError("the URL contains a user name or password: use a header instead")
        if url.port is not None and not 0 < url.port < 65536:
            raise PermanentError(f"{_shown(str(url))}: there is no port {url.port}")
        _check_host(url)
        host = url.raw_host.decode("ascii")
        if url.scheme == "http" and not self._is_named(host, _port(url)):
            advice = f"use https, or have the operator add {host!r} to allow-hosts"
            raise PermanentError(f"{_shown(str(url))}: plain http is refused; {advice}")
        return url

    def check_address(self, text: str, host: str, port: int) -> str:
        """The address in the form to connect to. PermanentError if connections to it are refused."""
        try:
            address = ip_address(text)
        except ValueError:
            raise PermanentError(f"{host} resolves to {text[:64]!r}, which is no address") from None
        plain = (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
        if any(_inside(plain, ip_network(network)) for network in self.allow_networks):
            return str(plain)
        if self._is_named(host, port) and not any(_inside(plain, network) for network in _UNSAFE_EVEN_IF_NAMED):
            return str(plain)
        if plain is address and _is_public(address):
            return str(address)
        raise PermanentError(
            f"{host} is at {address}, which is not a public address; have the operator allow the host or its network"
        )

    def _is_named(self, host: str, port: int) -> bool:
        name = host.removesuffix(".").lower()
        with_port = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        return name in self.allow_hosts or with_port in self.allow_hosts


def _check_host(url: httpx.URL) -> None:
    """A canonical address or a plain name: what else resolvers read as a number (0x7f.1, 2130706433) is refused."""
    host = url.raw_host.decode("ascii", "replace").lower().removesuffix(".")
    if not host:
        raise PermanentError(f"{_shown(str(url))} names no host")
    if ":" in host or host.startswith("["):
        try:
            IPv6Address(host.strip("[]"))
        except ValueError:
            raise PermanentError(f"{host[:64]!r} is no IPv6 address") from None
        if "%" in host:
            raise PermanentError("an IPv6 address with a zone is refused")
        return
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(url.host)
        except ValueError:
            raise PermanentError(f"{host[:64]!r} is neither a name nor an IPv4 address in its usual form") from None
        return
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise PermanentError(f"{host[:64]!r} is no host name")


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return False
    refused = (*_NOT_PUBLIC, *_UNSAFE_EVEN_IF_NAMED)
    return address.is_global and not any(_inside(address, network) for network in refused)


def _inside(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _shown(text: str) -> str:
    """Without the query, which may hold secrets."""
    return repr(text.partition("?")[0][:200])
