"""Who may connect to whom, as DESIGN says, held against what the rendered policies allow: these pairs and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy.checks.network import Endpoint, Policies, Port, is_peer, peers_of, ports_of, rules_of
from deploy.checks.rendered import Finding, Manifest, Rendered, subject_of
from deploy.checks.rooms import ROOMS

DNS_UDP, DNS_TCP = Port(53, "UDP"), Port(53)
POSTGRESQL, COLLECTOR = Port(5432), Port(4317)
HTTP, HTTPS, SSH = Port(80), Port(443), Port(22)
PUBLIC = ("203.0.112.10", "2606:4700::1111")
PRIVATE = (
    *("10.1.2.3", "100.64.1.1", "127.0.0.1", "169.254.169.254", "172.20.1.1", "192.168.1.1", "198.18.0.1", "239.1.1.1"),
    *("::1", "fd00:ec2::254", "fe80::1", "ff02::1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::"),
)
ELSEWHERE = "elsewhere"

Cell = tuple[str, str, Port]


def check_policies(rendered: Rendered) -> Iterator[Finding]:
    """Default deny in and out, and the allowed pairs exactly."""
    policies, endpoints = Policies(rendered), _endpoints(rendered)
    yield from _default_deny(rendered, policies)
    for policy in rendered.of_kind("NetworkPolicy"):
        yield from _speaks_of_known(policy, endpoints)
    yield from _pairs(rendered, policies, endpoints)


def _default_deny(rendered: Rendered, policies: Policies) -> Iterator[Finding]:
    namespace = _namespace(rendered)
    stranger = Endpoint("any pod", {}, namespace, _namespace_labels(rendered))
    for direction in ("ingress", "egress"):
        if not policies.isolate(stranger, direction):
            problem = f"a pod that no policy names is open to {direction}"
            yield Finding("default-deny", f"Namespace/{namespace}", problem)


def _speaks_of_known(policy: Manifest, endpoints: Mapping[str, Endpoint]) -> Iterator[Finding]:
    """What a policy allows can be seen from the pairs: its ports are numbers, its peers are known here."""
    namespace = policy["metadata"]["namespace"]
    for rule in rules_of(policy):
        if any(not isinstance(each.get("port"), int) for each in rule.get("ports") or ()):
            yield Finding("policy-port", subject_of(policy), "names ports other than by number")
        for peer in peers_of(rule):
            if not any(is_peer(peer, endpoint, namespace) for endpoint in endpoints.values()):
                yield Finding("policy-peer", subject_of(policy), f"names somebody that is not known here: {peer}")


def _pairs(rendered: Rendered, policies: Policies, endpoints: Mapping[str, Endpoint]) -> Iterator[Finding]:
    namespace, wanted = _namespace(rendered), expected()
    for cell in _cells(rendered, endpoints):
        source, target, port = endpoints[cell[0]], endpoints[cell[1]], cell[2]
        out, into = policies.let_out(source, target, port), policies.let_in(source, target, port)
        if cell not in wanted:
            # Each end is a wall by itself; what is not of this namespace has its own policies.
            out, into = out and source.namespace == namespace, into and target.namespace == namespace
            problem = f"the source lets it out: {out}; the target lets it in: {into}" if out or into else ""
        else:
            problem = "" if out and into else "is denied"
        if problem:
            yield Finding("network-pair", f"{cell[0]} -> {cell[1]}", f"{port.protocol} {port.number}: {problem}")


def expected() -> set[Cell]:
    """The allowed pairs."""
    rooms, jobs = list(ROOMS), [f"migrate-{name}" for name in ROOMS]
    cells: set[Cell] = {(caller, "dns", port) for caller in _inside() for port in (DNS_UDP, DNS_TCP)}
    cells |= {(room.name, called, Port(ROOMS[called].port)) for room in ROOMS.values() for called in room.calls}
    for client in ("client", f"client {ELSEWHERE}"):
        cells |= {(client, room.name, Port(room.port)) for room in ROOMS.values()}
    cells |= {(runner, "executor", Port(ROOMS["executor"].port)) for runner in ("runner", f"runner {ELSEWHERE}")}
    cells |= {(caller, "database", POSTGRESQL) for caller in [*rooms, *jobs]}
    cells |= {(caller, "collector", COLLECTOR) for caller in [*rooms, "client", "runner"]}
    cells |= {
        (caller, address, port) for caller in ("executor", "runner") for address in PUBLIC for port in (HTTP, HTTPS)
    }
    return cells


def table(rendered: Rendered) -> str:
    """The matrix of what is allowed, one line for each pair that is, with its ports."""
    policies, endpoints = Policies(rendered), _endpoints(rendered)
    ports: dict[tuple[str, str], list[str]] = {}
    for source, target, port in _cells(rendered, endpoints):
        if policies.allow(endpoints[source], endpoints[target], port):
            ports.setdefault((source, target), []).append(f"{port.protocol}/{port.number}")
    return "\n".join(f"{source:20} -> {target:20} {' '.join(each)}" for (source, target), each in ports.items())


def _cells(rendered: Rendered, endpoints: Mapping[str, Endpoint]) -> Iterator[Cell]:
    """Every pod here with everything else, both ways, at every port that is served, named by a policy, or neither."""
    served = [*(Port(room.port) for room in ROOMS.values()), DNS_UDP, DNS_TCP, POSTGRESQL, COLLECTOR, HTTP, HTTPS, SSH]
    named = [port for policy in rendered.of_kind("NetworkPolicy") for port in ports_of(policy)]
    ports = list(dict.fromkeys([*served, *named]))
    ours = {name for name, endpoint in endpoints.items() if endpoint.namespace == endpoints["client"].namespace}
    for source in endpoints:
        for target in endpoints:
            if source != target and (source in ours or target in ours) and not endpoints[source].address:
                yield from ((source, target, port) for port in ports)


def _inside() -> list[str]:
    return [*ROOMS, *(f"migrate-{name}" for name in ROOMS), "client", "runner", "stranger"]


def _endpoints(rendered: Rendered) -> dict[str, Endpoint]:
    namespace, ours = _namespace(rendered), _namespace_labels(rendered)
    found = [Endpoint(pods.owner["metadata"]["name"], pods.labels, namespace, ours) for pods in rendered.pods()]
    roles = {"client": {"valkyr-role": "client"}, "runner": {"valkyr-role": "runner", "valkyr-runs-modules": "true"}}
    found += [Endpoint(name, labels, namespace, ours) for name, labels in {**roles, "stranger": {}}.items()]
    invited = {"valkyr-access": "true"}
    found += [Endpoint(f"{name} {ELSEWHERE}", labels, ELSEWHERE, invited) for name, labels in roles.items()]
    found += [Endpoint(f"uninvited {name}", labels, "uninvited", {}) for name, labels in roles.items()]
    # Who has learnt a service's labels is not the service: those count in this namespace only.
    found += [
        Endpoint(f"{pods.owner['metadata']['name']} {ELSEWHERE}", pods.labels, ELSEWHERE, invited)
        for pods in rendered.pods()
        if pods.is_server
    ]
    found.append(Endpoint("stranger elsewhere", {}, ELSEWHERE, invited))
    system = {"kubernetes.io/metadata.name": "kube-system"}
    found.append(Endpoint("dns", {"k8s-app": "kube-dns"}, "kube-system", system))
    found.append(Endpoint("system", {"k8s-app": "other"}, "kube-system", system))
    found.append(Endpoint("database", {"valkyr-role": "database"}, "databases", {}))
    found.append(Endpoint("collector", {"valkyr-role": "collector"}, "observability", {}))
    found += [Endpoint(address, address=address) for address in (*PUBLIC, *PRIVATE)]
    return {endpoint.name: endpoint for endpoint in found}


def _namespace(rendered: Rendered) -> str:
    return str(next((pods.owner["metadata"]["namespace"] for pods in rendered.pods()), ""))


def _namespace_labels(rendered: Rendered) -> dict[str, str]:
    namespace = rendered.find("Namespace", _namespace(rendered))
    name = {"kubernetes.io/metadata.name": _namespace(rendered)}
    return name if namespace is None else name | (namespace["metadata"].get("labels") or {})
