"""Every object against the schema of its kind, strictly: a field that Kubernetes does not know is a finding."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes_validate

from deploy.checks.rendered import Finding, Rendered, subject_of

KUBERNETES_VERSIONS = ("1.34", "1.37")
"""The oldest that is supported (there a preStop hook that sleeps is no beta any more), and the newest that is known."""


def check_schemas(rendered: Rendered) -> Iterator[Finding]:
    """By every supported version's schemas."""
    for version in KUBERNETES_VERSIONS:
        for item in rendered.objects:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError as error:
                yield Finding("schema", subject_of(item), error.message)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(str(part) for part in error.path)
                yield Finding("schema", subject_of(item), f"Kubernetes {version}: {path}: {error.message}")
