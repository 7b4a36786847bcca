"""What NetworkPolicies allow: who is isolated, which peers and ports a rule names. Policies add up; none takes away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from deploy.checks.rendered import Manifest, Rendered, matches


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod, by its labels and its namespace's; or, with `address`, something outside of the cluster."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a protocol, TCP or UDP."""

    number: int
    protocol: str = "TCP"


class Policies:
    """The policies of one rendered overlay."""

    def __init__(self, rendered: Rendered) -> None:
        self._policies = rendered.of_kind("NetworkPolicy")

    def allow(self, source: Endpoint, target: Endpoint, port: Port) -> bool:
        """Whether a connection from `source` to `port` of `target` comes about: both ends have to allow it."""
        return self.let_out(source, target, port) and self.let_in(source, target, port)

    def let_out(self, source: Endpoint, target: Endpoint, port: Port) -> bool:
        """Whether the source's policies allow it."""
        return self._allow("egress", source, target, port)

    def let_in(self, source: Endpoint, target: Endpoint, port: Port) -> bool:
        """Whether the target's policies allow it."""
        return self._allow("ingress", target, source, port)

    def isolate(self, endpoint: Endpoint, direction: str) -> bool:
        """Whether what no policy allows is denied ("ingress", "egress") for this pod."""
        return any(True for _ in self._of(endpoint, direction))

    def _allow(self, direction: str, pod: Endpoint, peer: Endpoint, port: Port) -> bool:
        if pod.address:
            return True
        policies = list(self._of(pod, direction))
        if not policies:
            return True
        side = "from" if direction == "ingress" else "to"
        return any(
            _names_port(rule, port) and _names_peer(rule.get(side), peer, policy["metadata"]["namespace"])
            for policy in policies
            for rule in policy["spec"].get(direction) or ()
        )

    def _of(self, pod: Endpoint, direction: str) -> Iterator[Manifest]:
        for policy in self._policies:
            spec = policy["spec"]
            types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
            if (
                policy["metadata"]["namespace"] == pod.namespace
                and direction.title() in types
                and matches(spec.get("podSelector"), pod.labels)
            ):
                yield policy


def _names_port(rule: Manifest, port: Port) -> bool:
    """No ports are all ports. A port by name counts as none: what it allows is not to be seen from the policy."""
    named = rule.get("ports")
    return not named or any(
        each.get("protocol", "TCP") == port.protocol
        and ("port" not in each or _in_range(each["port"], each.get("endPort"), port.number))
        for each in named
    )


def _in_range(first: int | str, last: int | None, number: int) -> bool:
    return isinstance(first, int) and first <= number <= (last or first)


def _names_peer(peers: list[Manifest] | None, peer: Endpoint, namespace: str) -> bool:
    """No peers are all peers."""
    return not peers or any(is_peer(each, peer, namespace) for each in peers)


def rules_of(policy: Manifest) -> Iterator[Manifest]:
    """Of both directions."""
    for direction in ("ingress", "egress"):
        yield from policy["spec"].get(direction) or ()


def peers_of(rule: Manifest) -> list[Manifest]:
    """Whom a rule of either direction names."""
    peers: list[Manifest] = rule.get("from") or rule.get("to") or []
    return peers


def ports_of(policy: Manifest) -> Iterator[Port]:
    """Every port that a policy names by number; of a range its ends."""
    for rule in rules_of(policy):
        for each in rule.get("ports") or ():
            for number in (each.get("port"), each.get("endPort")):
                if isinstance(number, int):
                    yield Port(number, each.get("protocol", "TCP"))


def is_peer(rule: Manifest, peer: Endpoint, namespace: str) -> bool:
    """Whether one entry of `from` or `to`, of a policy in `namespace`, means this endpoint."""
    if "ipBlock" in rule:
        block = rule["ipBlock"]
        return bool(peer.address) and _within(peer.address, block["cidr"], block.get("except") or ())
    if peer.address:
        return False
    if "namespaceSelector" in rule:
        in_namespace = matches(rule["namespaceSelector"], peer.namespace_labels)
    else:
        in_namespace = peer.namespace == namespace
    return in_namespace and matches(rule.get("podSelector", {}), peer.labels)


def _within(address: str, block: str, but: list[str] | tuple[str, ...]) -> bool:
    place = ip_address(address)
    return place in ip_network(block) and not any(place in ip_network(each) for each in but)
