"""The objects that an overlay renders to, and what is found wrong with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Manifest = dict[str, Any]

K8S = Path(__file__).resolve().parents[1] / "k8s"
OVERLAYS = ("dev", "prod")
BUILD_SECONDS = 60


class BuildError(Exception):
    """The overlay cannot be built; the text is kustomize's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`rule` is the stable name of what is broken, `subject` the object, as Kind/name."""

    rule: str
    subject: str
    problem: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.problem}"


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The pods that a Deployment or a Job makes."""

    owner: Manifest

    @property
    def subject(self) -> str:
        return subject_of(self.owner)

    @property
    def labels(self) -> dict[str, str]:
        return self.owner["spec"]["template"].get("metadata", {}).get("labels") or {}

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.owner["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> list[Manifest]:
        """With those that run before."""
        return [*(self.spec.get("initContainers") or ()), *self.spec["containers"]]

    @property
    def server(self) -> Manifest:
        """The container that does the work."""
        container: Manifest = self.spec["containers"][0]
        return container

    @property
    def is_server(self) -> bool:
        return bool(self.owner["kind"] == "Deployment")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One overlay."""

    overlay: str
    objects: tuple[Manifest, ...]

    def of_kind(self, kind: str) -> list[Manifest]:
        return [item for item in self.objects if item["kind"] == kind]

    def find(self, kind: str, name: str) -> Manifest | None:
        return next((item for item in self.of_kind(kind) if item["metadata"]["name"] == name), None)

    def pods(self) -> Iterator[PodTemplate]:
        for item in self.objects:
            if "template" in (item.get("spec") or {}):
                yield PodTemplate(item)


def subject_of(item: Manifest) -> str:
    """As Kind/name."""
    return f"{item['kind']}/{item['metadata']['name']}"


def matches(selector: Manifest | None, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector, or a Service's plain one, selects these labels. None selects nothing, {} everything."""
    if selector is None:
        return False
    if not selector.keys() & {"matchLabels", "matchExpressions"}:
        return selector.items() <= labels.items()
    plain = (selector.get("matchLabels") or {}).items() <= labels.items()
    return plain and all(_holds(each, labels) for each in selector.get("matchExpressions") or ())


def _holds(expression: Manifest, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise ValueError(f"unknown operator {other!r} of a label selector")


def render(overlay: str, folder: Path = K8S / "overlays") -> Rendered:
    """Builds `folder`/`overlay` with the kustomize that is in kubectl; asks no cluster. BuildError."""
    command = [_kubectl(), "kustomize", str(folder / overlay)]
    environment = os.environ | {"KUBECONFIG": os.devnull}
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=BUILD_SECONDS, env=environment, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{overlay}: {done.stderr.strip()}")
    return Rendered(overlay, tuple(item for item in YAML(typ="safe").load_all(done.stdout) if item))


def _kubectl() -> str:
    """The locked one, else that of the PATH: there is no wheel of it for macOS."""
    locked = Path(sys.executable).parent / "kubectl"
    found = str(locked) if locked.exists() else shutil.which("kubectl")
    if found is None:
        raise BuildError("there is no kubectl beside this Python nor on the PATH; make setup installs it on Linux")
    return found
