"""A project that `valkyr new` makes, run as its README says."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.local.stack import LocalStack
from tests.e2e.page import Block, a_shell, blocks, follow_block
from tests.free_ports import a_port_base
from tests.waiting import wait_until
from valkyr.cli.exits import ExitCode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

INSTALL = "pip install -e '.[dev]'\n"
PATIENCE = 60.0


def test_a_new_project_runs_as_its_readme_says(tmp_path: Path) -> None:
    port_base, folder = a_port_base(), tmp_path / "my-payments"
    with LocalStack(tmp_path / "home", port_base), a_shell(tmp_path, port_base) as shell:
        code, printed = shell.run(f"cd {shlex.quote(str(tmp_path))} && valkyr new my-payments && cd my-payments")
        assert code == ExitCode.OK, printed
        tested, served, used = blocks((folder / "README.md").read_text())
        assert tested.commands.startswith(INSTALL)
        follow_block(shell, tested, "README.md", tested.commands.removeprefix(INSTALL))  # what it needs is here
        with another_terminal(served, folder, port_base) as runner:
            assert used.shown is not None
            follow_block(shell, used, "README.md", used.commands)
            runner.send_signal(signal.SIGINT)
            assert runner.wait(PATIENCE) == ExitCode.OK, "Ctrl-C drains it"


@contextmanager
def another_terminal(block: Block, folder: Path, port_base: int) -> Iterator[subprocess.Popen[bytes]]:
    """The runner that the block starts, once the executor knows it."""
    log = folder / "runner.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VALKYR_", "RUNNER_"))}
    environment = kept | {"VALKYR_PORT_BASE": str(port_base)}
    program, *arguments = shlex.split(block.commands)
    assert program == "valkyr"
    with log.open("wb") as output:
        runner = subprocess.Popen(
            [sys.executable, "-m", "valkyr.cli", *arguments], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: b"runner.started" in log.read_bytes() or runner.poll() is not None, "it starts", PATIENCE)
        assert runner.returncode is None, log.read_text()
        yield runner
    finally:
        runner.kill()
        runner.wait()
