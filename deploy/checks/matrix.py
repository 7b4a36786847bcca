"""Who may connect to whom, as DESIGN says, held against what the rendered policies allow: these pairs and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy.checks.network import Endpoint, Policies, Port
from deploy.checks.rendered import Finding, PodTemplate, Rendered, subject_of
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
    namespace = _namespace(rendered)
    stranger = Endpoint("any pod", {}, namespace, _namespace_labels(rendered))
    for direction in ("ingress", "egress"):
        if not policies.isolate(stranger, direction):
            yield Finding(
                "default-deny", f"Namespace/{namespace}", f"a pod that no policy names is open to {direction}"
            )
    for policy in rendered.of_kind("NetworkPolicy"):
        yield from _has_numbers(policy)
    wanted = expected()
    for source, target, port in _cells(endpoints):
        allowed = policies.allow(endpoints[source], endpoints[target], port)
        if allowed != ((source, target, port) in wanted):
            what = "is allowed" if allowed else "is denied"
            yield Finding("network-pair", f"{source} -> {target}", f"{port.protocol} {port.number} {what}")


def _has_numbers(policy: Mapping[str, object]) -> Iterator[Finding]:
    spec = policy["spec"]
    assert isinstance(spec, dict)
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            if any(not isinstance(each.get("port"), int) for each in rule.get("ports") or ()):
                yield Finding("policy-port", subject_of(dict(policy)), "names ports other than by number")


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
    for source, target, port in _cells(endpoints):
        if policies.allow(endpoints[source], endpoints[target], port):
            ports.setdefault((source, target), []).append(f"{port.protocol}/{port.number}")
    return "\n".join(f"{source:20} -> {target:20} {' '.join(each)}" for (source, target), each in ports.items())


def _cells(endpoints: Mapping[str, Endpoint]) -> Iterator[Cell]:
    """Every pod here with everything else, both ways, at every port."""
    known = [Port(room.port) for room in ROOMS.values()]
    ports = [*known, DNS_UDP, DNS_TCP, POSTGRESQL, COLLECTOR, HTTP, HTTPS, SSH]
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
    return str(next((PodTemplate(item.owner).owner["metadata"]["namespace"] for item in rendered.pods()), ""))


def _namespace_labels(rendered: Rendered) -> dict[str, str]:
    namespace = rendered.find("Namespace", _namespace(rendered))
    name = {"kubernetes.io/metadata.name": _namespace(rendered)}
    return name if namespace is None else name | (namespace["metadata"].get("labels") or {})
