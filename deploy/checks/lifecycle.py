"""Start, health and end of pods: probes, the time to drain, and what stays while others go."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.checks.configuration import loaded
from deploy.checks.rendered import Finding, PodTemplate, Rendered, subject_of
from deploy.checks.rooms import ROOMS, Room
from services.chassis.health import LIVENESS
from services.chassis.migrate import WAIT_FOR_OTHERS
from services.chassis.settings import RoomSettings, SettingsError

ENDPOINT_DELAY = 10
"""Seconds until a pod that ends is in nobody's DNS answer any more: endpoints, and CoreDNS's five seconds."""


def check_probes(rendered: Rendered) -> Iterator[Finding]:
    """All by gRPC: ready is the service's own health; alive and started ask nothing of the database."""
    for room, pods in _servers(rendered):
        names = {"startupProbe": LIVENESS, "livenessProbe": LIVENESS, "readinessProbe": room.health_name}
        ports = {port["containerPort"] for port in pods.server.get("ports") or ()}
        for probe, name in names.items():
            asked = (pods.server.get(probe) or {}).get("grpc")
            if asked is None:
                yield Finding("probe", pods.subject, f"{probe} is none by gRPC")
            elif asked["port"] not in ports:
                yield Finding("probe", pods.subject, f"{probe} asks port {asked['port']}; the container's: {ports}")
            elif asked.get("service") != name:
                yield Finding("probe", pods.subject, f"{probe} asks for {asked.get('service')!r}; takes {name!r}")
        yield from _waits_for_migrations(rendered, room, pods)


def _waits_for_migrations(rendered: Rendered, room: Room, pods: PodTemplate) -> Iterator[Finding]:
    probe, settings = pods.server.get("startupProbe") or {}, _settings(rendered, room, pods)
    if settings is None:
        return
    patience = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) + probe.get("initialDelaySeconds", 0)
    needed = (WAIT_FOR_OTHERS + settings.database.startup_timeout).total_seconds()
    if patience <= needed:
        yield Finding("startup-time", pods.subject, f"is given {patience} s to start; may wait {needed:.0f} s")


def check_drain(rendered: Rendered) -> Iterator[Finding]:
    """SIGTERM comes after the pod has left the DNS, and SIGKILL after the whole drain."""
    for room, pods in _servers(rendered):
        hook = ((pods.server.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
        asleep = hook.get("seconds", 0)
        if asleep < ENDPOINT_DELAY:
            yield Finding("pre-stop", pods.subject, f"preStop sleeps {asleep} s; takes {ENDPOINT_DELAY} or more")
        settings = _settings(rendered, room, pods)
        if settings is None:
            continue
        drain = drain_seconds(settings)
        grace = pods.spec.get("terminationGracePeriodSeconds", 30)
        if grace <= asleep + drain:
            needed = f"preStop {asleep} s and draining {drain:.0f} s"
            yield Finding("grace", pods.subject, f"terminationGracePeriodSeconds {grace} is not more than {needed}")


def drain_seconds(settings: RoomSettings) -> float:
    """From SIGTERM to the end of the process, at most: the server's delay and grace, and a runner's."""
    total = settings.server.drain_delay + settings.server.drain_grace
    runner = getattr(settings, "runner", None)
    if runner is not None:
        total += runner.drain_grace
    return total.total_seconds()


def check_availability(rendered: Rendered) -> Iterator[Finding]:
    """Pods on different nodes; budgets that keep one and still let nodes be emptied; updates that take none away."""
    for room, pods in _servers(rendered):
        replicas = pods.owner["spec"].get("replicas", 1)
        if rendered.overlay == "prod" and replicas < 2:
            yield Finding("replicas", pods.subject, f"has {replicas}; takes two or more in production")
        if (pods.owner["spec"].get("strategy", {}).get("rollingUpdate") or {}).get("maxUnavailable") != 0:
            yield Finding("rolling-update", pods.subject, "an update may take pods away before others are ready")
        spread = {each["topologyKey"]: each for each in pods.spec.get("topologySpreadConstraints") or ()}
        by_host = spread.get("kubernetes.io/hostname")
        if by_host is None:
            yield Finding("spread", pods.subject, "is not spread over kubernetes.io/hostname")
        elif rendered.overlay == "prod" and by_host["whenUnsatisfiable"] != "DoNotSchedule":
            yield Finding("spread", pods.subject, "may have all pods on one node in production")
        yield from _budget(rendered, room, replicas)


def _budget(rendered: Rendered, room: Room, replicas: int) -> Iterator[Finding]:
    budget = rendered.find("PodDisruptionBudget", room.name)
    if budget is None:
        return
    least, most = budget["spec"].get("minAvailable"), budget["spec"].get("maxUnavailable")
    if (least is not None and not 0 <= least < replicas) or (most is not None and most < 1):
        yield Finding("budget", subject_of(budget), f"of {replicas} pods none may go: nodes could not be emptied")
    if rendered.overlay == "prod" and (least is None or least < 1):
        yield Finding("budget", subject_of(budget), "minAvailable keeps no pod in production")


def _servers(rendered: Rendered) -> Iterator[tuple[Room, PodTemplate]]:
    for room in ROOMS.values():
        owner = rendered.find("Deployment", room.name)
        if owner is not None:
            yield room, PodTemplate(owner)


def _settings(rendered: Rendered, room: Room, pods: PodTemplate) -> RoomSettings | None:
    """None if they cannot be loaded, which check_settings says."""
    try:
        return loaded(rendered, room, pods)
    except SettingsError:
        return None
