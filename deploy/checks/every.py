"""All checks that need no schema: they take a second, and run with the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy.checks.configuration import check_settings
from deploy.checks.lifecycle import check_availability, check_drain, check_probes
from deploy.checks.matrix import check_policies
from deploy.checks.pods import check_beyond, check_namespace, check_pod_security
from deploy.checks.rendered import Finding, Rendered
from deploy.checks.wiring import check_images, check_names, check_ports, check_references, check_selectors

CHECKS: tuple[Callable[[Rendered], Iterator[Finding]], ...] = (
    check_names,
    check_selectors,
    check_ports,
    check_references,
    check_images,
    check_namespace,
    check_pod_security,
    check_beyond,
    check_settings,
    check_probes,
    check_drain,
    check_availability,
    check_policies,
)


def findings(rendered: Rendered) -> list[Finding]:
    """What is wrong, each once."""
    return list(dict.fromkeys(finding for check in CHECKS for finding in check(rendered)))
