"""Pod Security `restricted`, rule by rule, and what Valkyr demands beyond it."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.checks.rendered import Finding, Manifest, PodTemplate, Rendered, subject_of

USER = 10001
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
RESOURCES = ("cpu", "memory")


def check_namespace(rendered: Rendered) -> Iterator[Finding]:
    """The cluster itself refuses pods that are not restricted."""
    for namespace in rendered.of_kind("Namespace"):
        labels = namespace["metadata"].get("labels") or {}
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield Finding("enforce-restricted", subject_of(namespace), "does not enforce Pod Security restricted")


def check_pod_security(rendered: Rendered) -> Iterator[Finding]:
    """The restricted profile (https://kubernetes.io/docs/concepts/security/pod-security-standards/) for Linux pods."""
    for pods in rendered.pods():
        for problem in _pod_problems(pods.spec):
            yield Finding("restricted", pods.subject, problem)
        for container in pods.containers:
            for problem in _container_problems(container, pods.spec.get("securityContext") or {}):
                yield Finding("restricted", pods.subject, f"container {container['name']}: {problem}")


def _pod_problems(spec: Manifest) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    for volume in spec.get("volumes") or ():
        bad = volume.keys() - {"name"} - ALLOWED_VOLUMES
        if bad:
            yield f"volume {volume['name']} is a {', '.join(sorted(bad))}"
    context = spec.get("securityContext") or {}
    if context.get("sysctls"):
        yield "sysctls are set"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"


def _container_problems(container: Manifest, pod: Manifest) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield "is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if (context.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield "seccompProfile is not RuntimeDefault"
    if context.get("procMount", "Default") != "Default":
        yield "procMount is not Default"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield "takes a port of the host"


def check_beyond(rendered: Rendered) -> Iterator[Finding]:
    """Root file system read-only, the image's user, no token, no links, requests and limits."""
    for pods in rendered.pods():
        account = rendered.find("ServiceAccount", pods.spec.get("serviceAccountName") or "default")
        if pods.spec.get("automountServiceAccountToken") is not False or (
            account is not None and account.get("automountServiceAccountToken") is not False
        ):
            yield Finding("no-token", pods.subject, "a token of the service account is mounted")
        if pods.spec.get("enableServiceLinks") is not False:
            yield Finding(
                "no-links", pods.subject, "links set variables VALKYR_..., and an unknown one stops the start"
            )
        for container in pods.containers:
            yield from _container_beyond(pods, container)


def _container_beyond(pods: PodTemplate, container: Manifest) -> Iterator[Finding]:
    context = container.get("securityContext") or {}
    if context.get("readOnlyRootFilesystem") is not True:
        yield Finding("read-only-root", pods.subject, f"container {container['name']} may write to its image")
    user = context.get("runAsUser", (pods.spec.get("securityContext") or {}).get("runAsUser"))
    if user != USER:
        yield Finding("user", pods.subject, f"container {container['name']} runs as {user}, not as {USER}")
    resources = container.get("resources") or {}
    for kind in ("requests", "limits"):
        missing = [name for name in RESOURCES if name not in (resources.get(kind) or {})]
        if missing:
            yield Finding("resources", pods.subject, f"container {container['name']}: {kind} lack {missing}")
    for volume in pods.spec.get("volumes") or ():
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield Finding("resources", pods.subject, f"volume {volume['name']} has no sizeLimit")
