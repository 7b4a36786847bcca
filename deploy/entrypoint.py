"""The commands of the image: the four services, and `migrate`; the process becomes `python -m MODULE ARGUMENT...`."""

from __future__ import annotations

import os
import sys

COMMANDS = {
    "graph_store": "services.graph_store",
    "executor": "services.executor",
    "breaker": "services.breaker",
    "dlq": "services.dlq",
    "migrate": "services.chassis.migrate",
}
EXIT_USAGE = 2


def main(arguments: list[str]) -> int:
    """Becomes the command; returns only if there is no such command."""
    module = COMMANDS.get(arguments[0]) if arguments else None
    if module is None:
        sys.stderr.write(f"takes a command: {', '.join(COMMANDS)}\n")
        return EXIT_USAGE
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments[1:]])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
