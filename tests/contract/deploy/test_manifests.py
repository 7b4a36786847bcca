"""Every overlay holds what deploy.checks demands; and each demand, broken in a copy, is named."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from deploy.checks.every import CHECKS, findings
from deploy.checks.rendered import BuildError, Manifest, PodTemplate, Rendered, render
from deploy.checks.schemas import check_schemas

Change = Callable[[Rendered], object]

_ENFORCE = "pod-security.kubernetes.io/enforce"
_EXECUTOR = "valkyr.api.executor.v1.ExecutorService"


def test_every_overlay_fits_together_and_with_the_code(rendered: Rendered) -> None:
    assert [str(finding) for finding in findings(rendered)] == []


def test_every_object_is_of_its_kinds_schema_strictly(rendered: Rendered) -> None:
    assert [str(finding) for finding in check_schemas(rendered)] == []


def test_a_field_that_kubernetes_does_not_know_is_named(prod: Rendered) -> None:
    _pod(prod)["terminationGracePeriod"] = 60
    found = list(check_schemas(Rendered("prod", (_get(prod, "Deployment", "executor"),))))
    assert ["terminationGracePeriod" in str(finding) for finding in found] == [True, True]


def test_an_unknown_kind_is_named(prod: Rendered) -> None:
    service = _get(prod, "Service", "executor")
    service["kind"] = "Servise"
    assert ["Servise" in str(finding) for finding in check_schemas(Rendered("prod", (service,)))] == [True, True]


def test_an_overlay_that_cannot_be_built_says_so() -> None:
    with pytest.raises(BuildError, match="no-such-overlay"):
        render("no-such-overlay")


def _get(rendered: Rendered, kind: str, name: str) -> Manifest:
    found = rendered.find(kind, name)
    assert found is not None
    return found


def _pod(rendered: Rendered, name: str = "executor") -> Manifest:
    return PodTemplate(_get(rendered, "Deployment", name)).spec


def _container(rendered: Rendered, name: str = "executor") -> Manifest:
    return PodTemplate(_get(rendered, "Deployment", name)).server


def _job(rendered: Rendered) -> Manifest:
    return PodTemplate(_get(rendered, "Job", "migrate-executor")).spec


def _removed(kind: str, name: str) -> Change:
    def change(rendered: Rendered) -> None:
        item = _get(rendered, kind, name)
        # Not without a trace: the list of objects cannot shrink, so it becomes one that is nobody's.
        item["kind"], item["spec"] = "Nothing", {}

    return change


def _policy(name: str) -> Callable[[Rendered], Manifest]:
    def find(rendered: Rendered) -> Manifest:
        spec: Manifest = _get(rendered, "NetworkPolicy", name)["spec"]
        return spec

    return find


def _set(find: Callable[[Rendered], Manifest], **values: Any) -> Change:
    def change(rendered: Rendered) -> None:
        for key, value in values.items():
            if value is None:
                find(rendered).pop(key)
            else:
                find(rendered)[key] = value

    return change


def _spec(kind: str, name: str) -> Callable[[Rendered], Manifest]:
    def find(rendered: Rendered) -> Manifest:
        spec: Manifest = _get(rendered, kind, name)["spec"]
        return spec

    return find


def _security(rendered: Rendered) -> Manifest:
    context: Manifest = _container(rendered)["securityContext"]
    return context


def _pod_security(rendered: Rendered) -> Manifest:
    context: Manifest = _pod(rendered)["securityContext"]
    return context


def _labels(rendered: Rendered) -> Manifest:
    labels: Manifest = _get(rendered, "Namespace", "valkyr")["metadata"]["labels"]
    return labels


def _port(rendered: Rendered) -> Manifest:
    port: Manifest = _get(rendered, "Service", "executor")["spec"]["ports"][0]
    return port


def _probe(kind: str) -> Callable[[Rendered], Manifest]:
    def find(rendered: Rendered) -> Manifest:
        asked: Manifest = _container(rendered)[kind]["grpc"]
        return asked

    return find


def _variable(name: str) -> Callable[[Rendered], Manifest]:
    def find(rendered: Rendered) -> Manifest:
        return next(each for each in _container(rendered)["env"] if each["name"] == name)

    return find


def _settings(old: str, new: str) -> Change:
    def change(rendered: Rendered) -> None:
        config = next(c for c in rendered.of_kind("ConfigMap") if c["metadata"]["name"].startswith("executor-settings"))
        assert old in config["data"]["settings.yaml"]
        config["data"]["settings.yaml"] = config["data"]["settings.yaml"].replace(old, new)

    return change


def _spread(rendered: Rendered) -> Manifest:
    spread: Manifest = _pod(rendered)["topologySpreadConstraints"][0]
    return spread


def _renamed_config(rendered: Rendered) -> None:
    _pod(rendered)["volumes"][0]["configMap"]["name"] = "executor-settings"


def _host_path(rendered: Rendered) -> None:
    _pod(rendered)["volumes"].append({"name": "host", "hostPath": {"path": "/var"}})


def _everything_may_come(rendered: Rendered) -> None:
    _policy("breaker")(rendered)["ingress"][0]["from"].append({"podSelector": {}})


def _no_limit(rendered: Rendered) -> None:
    del _container(rendered)["resources"]["limits"]["memory"]


def _metadata_of_the_cloud(rendered: Rendered) -> None:
    _policy("modules-to-internet")(rendered)["egress"][0]["to"][0]["ipBlock"]["except"].remove("169.254.0.0/16")


def _job_as_server(rendered: Rendered) -> None:
    job = _get(rendered, "Job", "migrate-executor")["spec"]["template"]["metadata"]["labels"]
    job["app.kubernetes.io/component"] = "server"


def _sleeps_for(seconds: int) -> Change:
    def change(rendered: Rendered) -> None:
        _container(rendered)["lifecycle"]["preStop"]["sleep"]["seconds"] = seconds

    return change


BROKEN: dict[str, tuple[str, Change]] = {
    "a service that is not there": ("missing-object", _removed("PodDisruptionBudget", "dlq")),
    "an object of another namespace": (
        "namespace",
        lambda r: _get(r, "Service", "dlq")["metadata"].update(namespace="default"),
    ),
    "a Service that selects another's pods": (
        "selector",
        _set(_spec("Service", "dlq"), selector={"app.kubernetes.io/component": "server"}),
    ),
    "a Service that selects migration Jobs": ("selector", _job_as_server),
    "a Service that selects nobody": ("selector", _set(_spec("Service", "dlq"), selector={"app": "dlq"})),
    "a budget that selects nobody": (
        "selector",
        _set(_spec("PodDisruptionBudget", "dlq"), selector={"matchLabels": {"app": "dlq"}}),
    ),
    "a spread over all services' pods": ("selector", _set(_spread, labelSelector={"matchLabels": {}})),
    "a Service with an address": ("headless", _set(_spec("Service", "executor"), clusterIP=None)),
    "a port of another name": ("port-name", _set(_port, name="http")),
    "a target port of no container": ("target-port", _set(_port, targetPort="rpc")),
    "a Service's port that nobody listens on": ("target-port", _set(_port, port=80)),
    "a ConfigMap that is not there": ("reference", _renamed_config),
    "a Secret that nobody makes": (
        "reference",
        lambda r: _variable("VALKYR_DATABASE_URL")(r)["valueFrom"]["secretKeyRef"].update(name="database"),
    ),
    "a key that the Secret has not": (
        "reference",
        lambda r: _variable("VALKYR_DATABASE_URL")(r)["valueFrom"]["secretKeyRef"].update(key="URL"),
    ),
    "a volume that is not there": ("reference", lambda r: _container(r)["volumeMounts"][0].update(name="setting")),
    "a ServiceAccount that is not there": ("service-account", _set(_pod, serviceAccountName="default")),
    "another image for one service": (
        "one-image",
        _set(_container, image=f"registry.example.com/other@sha256:{'1' * 64}"),
    ),
    "an image by tag in production": ("pinned-image", _set(_container, image="registry.example.com/valkyr:1")),
    "another service's command": ("command", _set(_container, args=["breaker"])),
    "a namespace that enforces nothing": ("enforce-restricted", _set(_labels, **{_ENFORCE: "baseline"})),
    "the network of the host": ("restricted", _set(_pod, hostNetwork=True)),
    "a folder of the host": ("restricted", _host_path),
    "a privileged container": ("restricted", _set(_security, privileged=True)),
    "privileges that may grow": ("restricted", _set(_security, allowPrivilegeEscalation=None)),
    "capabilities that stay": ("restricted", _set(_security, capabilities={"drop": ["NET_RAW"]})),
    "capabilities that are added": ("restricted", _set(_security, capabilities={"drop": ["ALL"], "add": ["SYS_TIME"]})),
    "a pod that may run as root": ("restricted", _set(_pod_security, runAsNonRoot=None)),
    "no seccomp profile": ("restricted", _set(_pod_security, seccompProfile=None)),
    "root by number": ("restricted", _set(_pod_security, runAsUser=0)),
    "sysctls": ("restricted", _set(_pod_security, sysctls=[{"name": "kernel.shm_rmid_forced", "value": "0"}])),
    "the whole of /proc": ("restricted", _set(_security, procMount="Unmasked")),
    "a port of the host": ("restricted", lambda r: _container(r)["ports"][0].update(hostPort=50052)),
    "a Job without a security context": ("restricted", lambda r: _job(r)["containers"][0].pop("securityContext")),
    "an image that may be written to": ("read-only-root", _set(_security, readOnlyRootFilesystem=False)),
    "another user": ("user", _set(_pod_security, runAsUser=1000)),
    "a token in the pod": ("no-token", _set(_pod, automountServiceAccountToken=None)),
    "links to other services": ("no-links", _set(_pod, enableServiceLinks=None)),
    "no limit of memory": ("resources", _no_limit),
    "a setting that is wrong": ("settings", _settings("drain-grace: PT30S", "drain-grace: 30s")),
    "a setting that nobody knows": ("settings", _settings("drain-grace: PT30S", "drain-graze: PT30S")),
    "a variable that nobody knows": ("settings", _set(_variable("VALKYR_HOME"), name="VALKYR_FOLDER")),
    "a server that is open without saying so": ("settings", _settings("insecure: true", "insecure: false")),
    "a server that only its pod can reach": ("settings", _settings("host: 0.0.0.0", "host: 127.0.0.1")),
    "a server on another port": ("settings", _settings("port: 50052", "port: 50060")),
    "connections that stay for ever": ("settings", _settings("  max-connection-age: PT90S\n", "")),
    "a home that cannot be written": ("settings", _set(_variable("VALKYR_HOME"), value="/srv/valkyr")),
    "reflection in production": ("settings", _settings("reflection: false", "reflection: true")),
    "a neighbour at a wrong port": ("neighbour", _settings("dns:///dlq:50054", "dns:///dlq:50053")),
    "a neighbour that is not there": ("neighbour", _settings("dns:///breaker:50053", "dns:///brake:50053")),
    "a neighbour by one address": ("neighbour", _settings("dns:///breaker:50053", "breaker:50053")),
    "liveness that asks the database": ("probe", _set(_probe("livenessProbe"), service=_EXECUTOR)),
    "a start that asks the database": ("probe", _set(_probe("startupProbe"), service=_EXECUTOR)),
    "readiness of a service that is not this one": ("probe", _set(_probe("readinessProbe"), service=_EXECUTOR + "s")),
    "readiness that asks for nothing": ("probe", _set(_probe("readinessProbe"), service=None)),
    "a probe at a port that nobody listens on": ("probe", _set(_probe("readinessProbe"), port=50051)),
    "a probe by TCP": ("probe", lambda r: _container(r).update(livenessProbe={"tcpSocket": {"port": 50052}})),
    "no time for migrations": ("startup-time", lambda r: _container(r)["startupProbe"].update(failureThreshold=30)),
    "SIGTERM while clients still come": ("pre-stop", _sleeps_for(5)),
    "SIGKILL before the drain has ended": ("grace", _set(_pod, terminationGracePeriodSeconds=55)),
    "a longer drain than the pod is given": ("grace", _settings("drain-grace: PT30S", "drain-grace: PT75S")),
    "one pod in production": ("replicas", _set(_spec("Deployment", "executor"), replicas=1)),
    "updates that take a pod away first": (
        "rolling-update",
        lambda r: _get(r, "Deployment", "dlq")["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    ),
    "all pods on one node": ("spread", _set(_spread, whenUnsatisfiable="ScheduleAnyway")),
    "a budget that lets no node be emptied": ("budget", _set(_spec("PodDisruptionBudget", "dlq"), minAvailable=2)),
    "a budget that keeps none": ("budget", _set(_spec("PodDisruptionBudget", "dlq"), minAvailable=0)),
    "a namespace that is open": ("default-deny", _set(_policy("default-deny"), policyTypes=["Egress"])),
    "a service that all pods may call": ("network-pair", _everything_may_come),
    "a pair that is not allowed": ("network-pair", _set(_policy("dlq"), egress=[])),
    "the cloud's metadata within reach": ("network-pair", _metadata_of_the_cloud),
    "a policy for everybody": ("network-pair", _set(_policy("to-database"), podSelector={})),
    "a peer that nobody knows": (
        "policy-peer",
        lambda r: _policy("dlq")(r)["ingress"][0]["from"].append({"podSelector": {"matchLabels": {"app": "x"}}}),
    ),
    "a port that nobody knows": (
        "network-pair",
        lambda r: _policy("dlq")(r)["ingress"][0]["ports"].append({"protocol": "TCP", "port": 8080}),
    ),
    "a rule without a port": ("network-pair", lambda r: _policy("to-database")(r)["egress"][0].pop("ports")),
}
"""What is broken: the rule that has to name it, and how. The rest of the rules may see consequences of it."""


@pytest.mark.parametrize("what", list(BROKEN))
def test_what_is_broken_is_named(prod: Rendered, what: str) -> None:
    rule, change = BROKEN[what]
    change(prod)
    assert any(finding.rule == rule for check in CHECKS for finding in check(prod))


def test_a_name_twice_is_named(prod: Rendered) -> None:
    twice = Rendered("prod", (*prod.objects, _get(prod, "Service", "dlq")))
    assert {finding.rule for finding in findings(twice)} == {"duplicate-name"}


def test_any_tag_is_named_in_development_too(dev: Rendered) -> None:
    for pods in dev.pods():
        pods.server["image"] = "valkyr:latest"
    assert {finding.rule for finding in findings(dev)} == {"pinned-image"}


def test_a_port_by_name_in_a_policy_is_named(prod: Rendered) -> None:
    _policy("to-dns")(prod)["egress"][0]["ports"][0]["port"] = "dns"
    assert "policy-port" in {finding.rule for finding in findings(prod)}


def test_every_rule_is_broken_once() -> None:
    """A rule without a test that breaks it may be one that never finds anything."""
    broken = {rule for rule, _ in BROKEN.values()} | {"duplicate-name", "policy-port"}
    rules = set()
    for check in CHECKS:
        module = ast.parse(inspect.getsource(inspect.getmodule(check)))
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding":
                rules.add(call.args[0].value)
    assert rules == broken
