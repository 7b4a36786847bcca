"""A user at a prompt, with a stack: `shell.run("graph", "list")`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.local.home import PROJECT
from tests.forked_cli import ForkedCli

GREETING = """workflow:
  name: {name}
nodes:
  - nodeId: greet
  - nodeId: pause
  - nodeId: last
edges:
  - {{edgeId: e1, source: greet, target: pause}}
  - {{edgeId: e2, source: pause, target: last}}
modules:
  - {{nodeId: greet, className: TransformModule, config: {{output: "Hello, ${{trigger.name}}!"}}}}
  - {{nodeId: pause, className: DelayModule, config: {{duration: {pause}}}}}
  - nodeId: last
    className: TransformModule
    config: {{output: {{said: '${{nodes["greet"].outputs}}'}}}}
"""


class Shell:
    """A user at a prompt, with a stack."""

    def __init__(self, folder: Path, port_base: int, cli: ForkedCli) -> None:
        self.folder = folder
        self._cli = cli
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_")}
        self.environment = kept | {
            "VALKYR_PORT_BASE": str(port_base),
            "VALKYR_PRINCIPAL": "ada",
            "NO_COLOR": "1",
            "PYTHONPATH": str(PROJECT),
        }

    def run(self, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return self._cli.run(*arguments, stdin=stdin, cwd=self.folder, environment=self.environment | more)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """In the background; what it says goes to the file `out`."""
        with (self.folder / "out").open("w") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "valkyr.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=self.environment,
            )

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def json(self, *arguments: str, **more: Any) -> Any:
        answer = self.run(*arguments, "--json", **more)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    def save_greeting(self, name: str, pause: str = "PT0.1S") -> str:
        """The id of a new workflow of this name."""
        file = self.write(f"{name}.yaml", GREETING.format(name=name, pause=pause))
        identifier: str = self.json("graph", "save", file)["workflow"]["id"]
        return identifier


def error_of(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answer.stderr)["error"]
    assert error["exitCode"] == answer.returncode
    return error
