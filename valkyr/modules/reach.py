"""Where calls of graphs may go: which hosts, and which addresses these may resolve to.

Graphs are data of others, so by default only public addresses are reached, and only over TLS. What an operator runs
inside is opened by name or by network.
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from valkyr.module import PermanentError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_ADDRESSES = 4
"""Of one host, that a call is tried at."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

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
class Reach:
    """What an operator sets; a graph cannot widen it.

    `allow_hosts`: names or addresses, with or without `:port`, that may be called without TLS and at private addresses;
    lower case, IPv6 with a port in brackets. `allow_networks`: CIDR blocks that count as public.
    """

    allow_hosts: frozenset[str] = frozenset()
    allow_networks: tuple[str, ...] = ()
    resolve: Resolver = field(default=system_resolver, compare=False)

    def __post_init__(self) -> None:
        """ValueError for what is no CIDR block."""
        for text in self.allow_networks:
            ip_network(text)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where to connect to: nothing is looked up a second time. OSError if there is no such host, PermanentError if
        any of its addresses is refused."""
        found = await self.resolve(host, port)
        return [self.check_address(text, host, port) for text in found][:MAX_ADDRESSES]

    def check_address(self, text: str, host: str, port: int) -> str:
        """The address in the form to connect to. PermanentError if connections to it are refused."""
        try:
            address = ip_address(text)
        except ValueError:
            raise PermanentError(f"{host} resolves to {text[:64]!r}, which is no address") from None
        plain = (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
        if any(_inside(plain, ip_network(network)) for network in self.allow_networks):
            return str(plain)
        if self.is_named(host, port) and not any(_inside(plain, network) for network in _UNSAFE_EVEN_IF_NAMED):
            return str(plain)
        if plain is address and _is_public(address):
            return str(address)
        raise PermanentError(
            f"{host} is at {address}, which is not a public address; have the operator allow the host or its network"
        )

    def is_named(self, host: str, port: int) -> bool:
        """Whether the operator has opened it by name."""
        name = host.removesuffix(".").lower()
        with_port = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        return name in self.allow_hosts or with_port in self.allow_hosts


def check_host(text: str) -> None:
    """A canonical address or a plain name: what else resolvers read as a number (0x7f.1, 2130706433) is refused."""
    host = text.lower().removesuffix(".")
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
            IPv4Address(text)
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
