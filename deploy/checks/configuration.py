"""The settings as the service reads them: the mounted file and the container's variables, by its own model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.checks.rendered import Finding, Manifest, PodTemplate, Rendered
from deploy.checks.rooms import ROOMS, Room
from services.chassis.settings import RoomSettings, SettingsError, load_settings

SAMPLE_URL = "postgresql://valkyr:password@postgresql.example/valkyr"
SAMPLE_FIELD = "executor-5d4f8c7b9d-x2k7p"


def check_settings(rendered: Rendered) -> Iterator[Finding]:
    """Each service would start with what it is given, and finds its neighbours where they are."""
    for room in ROOMS.values():
        owner = rendered.find("Deployment", room.name)
        if owner is None:
            continue
        pods = PodTemplate(owner)
        try:
            settings = loaded(rendered, room, pods)
        except SettingsError as error:
            yield Finding("settings", pods.subject, str(error))
            continue
        yield from _fits(rendered, room, pods, settings)


def loaded(rendered: Rendered, room: Room, pods: PodTemplate) -> RoomSettings:
    """The settings of the service in these pods. SettingsError."""
    environment = dict(_variables(pods.server))
    path = environment.get("VALKYR_CONFIG")
    if path is None:
        return load_settings(room.settings_model, section=room.name, environ=environment)
    content = _mounted(rendered, pods, path)
    if content is None:
        raise SettingsError(f"no ConfigMap is mounted that holds {path}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yaml"
        file.write_text(content, encoding="utf-8")
        return load_settings(room.settings_model, section=room.name, environ=environment, config_file=file)


def _variables(container: Manifest) -> Iterator[tuple[str, str]]:
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if "secretKeyRef" in source:
            yield variable["name"], SAMPLE_URL
        elif "fieldRef" in source:
            yield variable["name"], SAMPLE_FIELD
        else:
            yield variable["name"], variable.get("value", "")


def _mounted(rendered: Rendered, pods: PodTemplate, path: str) -> str | None:
    folder, _, name = path.rpartition("/")
    mount = next((each for each in pods.server.get("volumeMounts") or () if each["mountPath"] == folder), None)
    volumes = pods.spec.get("volumes") or ()
    volume = next((each for each in volumes if mount and each["name"] == mount["name"]), None)
    if volume is None or "configMap" not in volume:
        return None
    config = rendered.find("ConfigMap", volume["configMap"]["name"])
    content: str | None = ((config or {}).get("data") or {}).get(name)
    return content


def _fits(rendered: Rendered, room: Room, pods: PodTemplate, settings: RoomSettings) -> Iterator[Finding]:
    server, subject = settings.server, pods.subject
    if server.is_loopback:
        yield Finding("settings", subject, f"server.host {server.host} cannot be reached from other pods")
    ports = {port["containerPort"] for port in pods.server.get("ports") or ()}
    if server.port not in ports:
        yield Finding("settings", subject, f"listens on {server.port}, but the container's ports are {sorted(ports)}")
    if server.max_connection_age is None:
        yield Finding("settings", subject, "server.max-connection-age is unset: clients would never find new pods")
    if rendered.overlay == "prod" and server.reflection:
        yield Finding("settings", subject, "server.reflection is on in production")
    for neighbour in room.calls:
        yield from _is_found(rendered, neighbour, getattr(settings, neighbour.replace("-", "_"), None), subject)
    homes = [mount["mountPath"] for mount in pods.server.get("volumeMounts") or () if not mount.get("readOnly")]
    if str(settings.home) not in homes:
        yield Finding("settings", subject, f"VALKYR_HOME {settings.home} is no folder that can be written: {homes}")


def _is_found(rendered: Rendered, neighbour: str, address: Any, subject: str) -> Iterator[Finding]:
    if address is None:
        return
    url = urlsplit(address)
    host, _, port = url.path.removeprefix("/").rpartition(":")
    service = rendered.find("Service", host)
    ports = {str(each["port"]) for each in service["spec"]["ports"]} if service else set()
    if url.scheme != "dns" or host != neighbour or port not in ports:
        yield Finding("neighbour", subject, f"{neighbour} is at {address!r}; takes dns:///<its Service>:<its port>")
