"""The command line as a process that begins with everything imported, forked from one that has imported it: to import
takes most of a second of a processor, and tests run hundreds of commands. tests/unit/cli/test_command_line.py shows
that it starts from nothing, too.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from services.local.home import PROJECT

STREAMS = ("stdin", "stdout", "stderr")


class ForkedCli:
    """Answers as `subprocess.run` does; one command at a time."""

    def __enter__(self) -> Self:
        self._turn = threading.Lock()
        self._origin = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_cli"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._origin.communicate()

    def run(
        self, *arguments: str, environment: Mapping[str, str], stdin: str = "", cwd: Path = PROJECT, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """What `valkyr ARGUMENTS` said, and how it ended. TimeoutError."""
        with self._turn, tempfile.TemporaryDirectory(prefix="valkyr-cli-") as folder:
            files = {name: Path(folder) / name for name in STREAMS}
            for file in files.values():
                file.touch()
            files["stdin"].write_text(stdin, encoding="utf-8")
            request = {
                "arguments": arguments,
                "environment": dict(environment),
                "cwd": str(cwd),
                "files": {name: str(file) for name, file in files.items()},
            }
            code = self._ask(json.dumps(request), timeout)
            said = [files[name].read_text(encoding="utf-8") for name in STREAMS[1:]]
        return subprocess.CompletedProcess(["valkyr", *arguments], code, *said)

    def _ask(self, request: str, timeout: float) -> int:
        assert self._origin.stdin is not None
        assert self._origin.stdout is not None
        watchdog = threading.Timer(timeout, os.killpg, (self._origin.pid, signal.SIGKILL))
        watchdog.start()
        try:
            print(request, file=self._origin.stdin, flush=True)
            answer = self._origin.stdout.readline()
        finally:
            watchdog.cancel()
        if not answer:
            raise TimeoutError(f"not within {timeout:.0f} s: the end of {request}")
        return int(answer)


def _serve() -> None:
    """A request a line, an exit code a line; each child goes on as the command line."""
    from valkyr.cli.main import main

    assert threading.active_count() == 1, "what has threads is not to be forked"
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
            main()
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request: dict[str, object]) -> None:
    environment, files = request["environment"], request["files"]
    assert isinstance(environment, dict)
    assert isinstance(files, dict)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for descriptor, name in enumerate(STREAMS):
        opened = os.open(files[name], os.O_RDWR)
        os.dup2(opened, descriptor)
        os.close(opened)
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding=encoding)
    for descriptor, name in enumerate(STREAMS[1:], 1):
        raw = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, line_buffering=name == "stderr"))
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    sys.argv = ["valkyr", *arguments]


if __name__ == "__main__":
    _serve()
