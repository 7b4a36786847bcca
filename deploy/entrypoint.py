"""The commands of the image: the four services, `migrate` and `runner`; it becomes `python -m MODULE ARGUMENT...`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

COMMANDS = {
    "graph_store": "services.graph_store",
    "executor": "services.executor",
    "breaker": "services.breaker",
    "dlq": "services.dlq",
    "migrate": "services.chassis.migrate",
    "runner": "valkyr.runner",
}
EXIT_USAGE = 2


def main(arguments: list[str]) -> NoReturn:
    """Becomes the command. SystemExit if there is no such command."""
    module = COMMANDS.get(arguments[0]) if arguments else None
    if module is None:
        sys.stderr.write(f"takes a command: {', '.join(COMMANDS)}\n")
        sys.exit(EXIT_USAGE)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments[1:]])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
