"""Whether the objects fit together: selectors, names, ports, references, images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from deploy.checks.rendered import Finding, Manifest, PodTemplate, Rendered, matches, subject_of
from deploy.checks.rooms import ROOMS

SECRETS_MADE_APART = {f"{name}-database": {"url"} for name in ROOMS}
"""Secret -> its keys: credentials are in no repository; docs/deploy.md says how to make them."""
CLUSTER_SCOPED = {"Namespace"}
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")


def check_names(rendered: Rendered) -> Iterator[Finding]:
    """Every object once, in one namespace, and each service with all that it is made of."""
    for subject, count in Counter(map(subject_of, rendered.objects)).items():
        if count > 1:
            yield Finding("duplicate-name", subject, f"is rendered {count} times")
    namespaces = [item["metadata"]["name"] for item in rendered.of_kind("Namespace")]
    for item in rendered.objects:
        if item["kind"] not in CLUSTER_SCOPED and item["metadata"].get("namespace") not in namespaces:
            yield Finding("namespace", subject_of(item), f"is not in the namespace {namespaces}")
    for room in ROOMS:
        parts = [(kind, room) for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget")]
        for kind, name in [*parts, ("Job", f"migrate-{room}")]:
            if rendered.find(kind, name) is None:
                yield Finding("missing-object", f"{kind}/{name}", "is not rendered")


def check_selectors(rendered: Rendered) -> Iterator[Finding]:
    """A Deployment, a Service, a budget and a spread select the server's pods and no others."""
    for deployment in rendered.of_kind("Deployment"):
        pods, subject = PodTemplate(deployment), subject_of(deployment)
        yield from _selects_only(rendered, deployment["spec"]["selector"], pods, subject)
        for spread in pods.spec.get("topologySpreadConstraints") or ():
            where = f"{subject} spread over {spread['topologyKey']}"
            yield from _selects_only(rendered, spread.get("labelSelector"), pods, where)
    for kind in ("Service", "PodDisruptionBudget"):
        for item in rendered.of_kind(kind):
            owner = rendered.find("Deployment", item["metadata"]["name"])
            if owner is None:
                yield Finding("selector", subject_of(item), "has no Deployment of its name")
            else:
                selector = item["spec"].get("selector")
                yield from _selects_only(rendered, selector, PodTemplate(owner), subject_of(item))


def _selects_only(
    rendered: Rendered, selector: Manifest | None, wanted: PodTemplate, subject: str
) -> Iterator[Finding]:
    selected = {pods.subject for pods in rendered.pods() if matches(selector, pods.labels)}
    if selected != {wanted.subject}:
        yield Finding("selector", subject, f"selects pods of {sorted(selected)}, not of {wanted.subject} alone")


def check_ports(rendered: Rendered) -> Iterator[Finding]:
    """Headless Services whose ports are the containers' ports, under the name grpc."""
    for service in rendered.of_kind("Service"):
        subject, owner = subject_of(service), rendered.find("Deployment", service["metadata"]["name"])
        if service["spec"].get("clusterIP") != "None":
            yield Finding("headless", subject, "has a cluster IP, so that clients would hold on to one pod")
        ports = PodTemplate(owner).server.get("ports") or [] if owner else []
        numbers = {port.get("name"): port["containerPort"] for port in ports}
        offered: list[Manifest] = service["spec"].get("ports") or [{}]
        for port in offered:
            if port.get("name") != "grpc":
                yield Finding("port-name", subject, f"has a port {port.get('name')!r}; takes grpc")
            number = numbers.get(port.get("targetPort"))
            if number is None:
                yield Finding("target-port", subject, f"no container port is named {port.get('targetPort')!r}")
            elif number != port["port"]:
                # A headless Service maps nothing: clients connect to the pod at the port they know of the Service.
                yield Finding("target-port", subject, f"says {port['port']}, but the container listens on {number}")


def check_references(rendered: Rendered) -> Iterator[Finding]:
    """Every ConfigMap, Secret, key, ServiceAccount and volume that is named exists."""
    for pods in rendered.pods():
        account = pods.spec.get("serviceAccountName")
        if account is None or rendered.find("ServiceAccount", account) is None:
            yield Finding("service-account", pods.subject, f"there is no ServiceAccount {account!r}")
        for kind, name, key in _named(pods):
            keys = _keys(rendered, kind, name)
            if keys is None:
                yield Finding("reference", pods.subject, f"there is no {kind} {name!r}")
            elif key is not None and key not in keys:
                yield Finding("reference", pods.subject, f"{kind} {name!r} has no key {key!r}")
        volumes = {volume["name"] for volume in pods.spec.get("volumes") or ()}
        for container in pods.containers:
            for mount in container.get("volumeMounts") or ():
                if mount["name"] not in volumes:
                    yield Finding("reference", pods.subject, f"there is no volume {mount['name']!r}")


def _named(pods: PodTemplate) -> Iterator[tuple[str, str, str | None]]:
    for container in pods.containers:
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in source:
                    yield kind, source[field]["name"], source[field]["key"]
        for source in container.get("envFrom") or ():
            for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if field in source:
                    yield kind, source[field]["name"], None
    for volume in pods.spec.get("volumes") or ():
        if "configMap" in volume:
            items: list[Manifest] = volume["configMap"].get("items") or [{}]
            for item in items:
                yield "ConfigMap", volume["configMap"]["name"], item.get("key")
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], None


def _keys(rendered: Rendered, kind: str, name: str) -> set[str] | None:
    if kind == "Secret" and name in SECRETS_MADE_APART:
        return SECRETS_MADE_APART[name]
    item = rendered.find(kind, name)
    if item is None:
        return None
    return {key for field in ("data", "stringData", "binaryData") for key in item.get(field) or ()}


def check_images(rendered: Rendered) -> Iterator[Finding]:
    """One image everywhere, each with its own command; pinned by digest in production."""
    images = Counter(container["image"] for pods in rendered.pods() for container in pods.containers)
    usual = images.most_common(1)[0][0] if images else ""
    for pods in rendered.pods():
        for container in pods.containers:
            image = container["image"]
            if image != usual:
                yield Finding("one-image", pods.subject, f"runs {image}, where the others run {usual}")
            if rendered.overlay == "prod" and not PINNED.fullmatch(image):
                yield Finding("pinned-image", pods.subject, f"{image} is not pinned by @sha256:...")
            if rendered.overlay != "prod" and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
                yield Finding("pinned-image", pods.subject, f"{image} may be any; takes a tag, and not latest")
    for room in ROOMS.values():
        yield from _runs(rendered, "Deployment", room.name, [room.command])
        yield from _runs(rendered, "Job", f"migrate-{room.name}", ["migrate", room.command])


def _runs(rendered: Rendered, kind: str, name: str, arguments: list[str]) -> Iterator[Finding]:
    owner = rendered.find(kind, name)
    if owner is None:
        return
    server = PodTemplate(owner).server
    if server.get("args") != arguments or "command" in server:
        yield Finding("command", subject_of(owner), f"takes the image's entrypoint with args {arguments}")
