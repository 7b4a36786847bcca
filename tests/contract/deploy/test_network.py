"""What policies mean, by cases of the Kubernetes documentation; the second wall around modules against the first."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from deploy.checks.network import Endpoint, Policies, Port
from deploy.checks.rendered import Manifest, Rendered, matches
from valkyr.module import PermanentError
from valkyr.modules import HttpRules

WEB, DATABASE = Endpoint("web", {"app": "web"}, "here"), Endpoint("db", {"app": "db"}, "here")
STRANGER = Endpoint("stranger", {"app": "web"}, "there", {"team": "other"})
SPECIAL = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/3", "64:ff9b::/96", "2001::/23"),
    *("2001:db8::/32", "2002::/16", "2000::/3", "3fff::/20", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
)
"""Networks whose edges are looked at, from within and from without."""


def _policies(*specs: dict[str, Any]) -> Policies:
    made: list[Manifest] = [
        {"kind": "NetworkPolicy", "metadata": {"name": str(number), "namespace": "here"}, "spec": spec}
        for number, spec in enumerate(specs)
    ]
    return Policies(Rendered("test", tuple(made)))


def _ingress(*peers: dict[str, Any], **rule: Any) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": list(peers), **rule}]}


DENY_ALL: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
FROM_WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
CASES: dict[str, tuple[Policies, bool]] = {
    "no policies deny nothing": (_policies(), True),
    "a policy without rules denies": (_policies(DENY_ALL), False),
    "what one policy allows no other denies": (_policies({"podSelector": {}}, _ingress(FROM_WEB)), True),
    "both ends have to allow it": (_policies(DENY_ALL, _ingress(FROM_WEB)), False),
    "a policy of ingress alone leaves egress open": (_policies(_ingress(FROM_WEB)), True),
    "a policy of other pods does not matter": (_policies({"podSelector": {"matchLabels": {"app": "x"}}}), True),
    "an empty rule allows everybody": (_policies({"podSelector": {}, "ingress": [{}]}), True),
    "rules of a policy add up": (_policies(_ingress({"podSelector": {"matchLabels": {"app": "x"}}}, FROM_WEB)), True),
    "the port counts": (_policies(_ingress(FROM_WEB, ports=[{"port": 5433}])), False),
    "the protocol counts": (_policies(_ingress(FROM_WEB, ports=[{"port": 5432, "protocol": "UDP"}])), False),
    "a range holds its ports": (_policies(_ingress(FROM_WEB, ports=[{"port": 5000, "endPort": 5432}])), True),
    "a protocol alone means all its ports": (_policies(_ingress(FROM_WEB, ports=[{"protocol": "TCP"}])), True),
    "an ipBlock means no pods": (_policies(_ingress({"ipBlock": {"cidr": "0.0.0.0/0"}})), False),
    "another namespace's pods are not this one's": (
        _policies(_ingress({"namespaceSelector": {"matchLabels": {"team": "other"}}, **FROM_WEB})),
        False,
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_a_policy_means_what_kubernetes_says(case: str) -> None:
    policies, allowed = CASES[case]
    assert policies.allow(WEB, DATABASE, Port(5432)) == allowed


def test_a_pod_selector_alone_means_the_policys_own_namespace() -> None:
    policies = _policies(_ingress(FROM_WEB))
    assert policies.allow(WEB, DATABASE, Port(5432))
    assert not policies.allow(STRANGER, DATABASE, Port(5432))


def test_a_namespace_and_a_pod_selector_in_one_peer_both_have_to_match() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "other"}}}
    both = _policies(_ingress({**peer, "podSelector": {"matchLabels": {"app": "web"}}}))
    other = _policies(_ingress({**peer, "podSelector": {"matchLabels": {"app": "job"}}}))
    assert both.allow(STRANGER, DATABASE, Port(5432))
    assert not other.allow(STRANGER, DATABASE, Port(5432))
    assert _policies(_ingress(peer)).allow(STRANGER, DATABASE, Port(5432))


def test_expressions_of_a_selector_hold_as_kubernetes_says() -> None:
    labels = {"tier": "front"}
    held = {"In": ["front"], "NotIn": ["back"], "Exists": None}
    missed = {"In": ["back"], "NotIn": ["front"], "DoesNotExist": None}
    for wanted, expressions in ((True, held), (False, missed)):
        for operator, values in expressions.items():
            expression = {"key": "tier", "operator": operator, **({"values": values} if values else {})}
            assert matches({"matchExpressions": [expression]}, labels) == wanted
    assert matches({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, labels)
    with pytest.raises(ValueError, match="Near"):
        matches({"matchExpressions": [{"key": "tier", "operator": "Near"}]}, labels)


@pytest.mark.parametrize("network", SPECIAL)
def test_modules_reach_by_policy_what_the_http_module_takes_for_public(prod: Rendered, network: str) -> None:
    pods = next(each for each in prod.pods() if each.is_server and "valkyr-runs-modules" in each.labels)
    executor = Endpoint("executor", pods.labels, pods.owner["metadata"]["namespace"])
    policies, block = Policies(prod), ip_network(network)
    first, last = int(block.network_address), int(block.broadcast_address)
    bits = type(block.network_address)
    for number in (first - 1, first, last, last + 1):
        if 0 <= number < 1 << block.max_prefixlen:
            address = str(ip_address(bits(number)))
            reached = policies.allow(executor, Endpoint(address, address=address), Port(443))
            assert (address, reached) == (address, _taken_for_public(address))


def _taken_for_public(address: str) -> bool:
    try:
        HttpRules().check_address(address, "a.example", 443)
    except PermanentError:
        return False
    return True
