"""python -m deploy.checks: builds every overlay, checks it, prints who may connect to whom. Exit code 1: findings."""

from __future__ import annotations

import sys

from deploy.checks.every import findings
from deploy.checks.matrix import table
from deploy.checks.rendered import OVERLAYS, BuildError, render
from deploy.checks.schemas import KUBERNETES_VERSIONS, check_schemas


def main() -> int:
    """0: nothing found; 1: findings, one a line; 2: an overlay cannot be built."""
    count = 0
    for overlay in OVERLAYS:
        try:
            rendered = render(overlay)
        except BuildError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        found = [*check_schemas(rendered), *findings(rendered)]
        sys.stdout.write("".join(f"{overlay}: {finding}\n" for finding in found))
        count += len(found)
        versions = " and ".join(KUBERNETES_VERSIONS)
        sys.stdout.write(f"{overlay}: {len(rendered.objects)} objects, Kubernetes {versions}, {len(found)} findings\n")
    sys.stdout.write(f"\nconnections that the policies allow ({overlay}):\n{table(rendered)}\n")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
