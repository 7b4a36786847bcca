"""`valkyr runner`, as far as it gets without an executor: what is refused says what, and the mend."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

from services.local.home import PROJECT
from tests.unit.cli.conftest import environment_of
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.cli.exits import ExitCode

NOWHERE = "127.0.0.1:1"
TRIED = {
    ExitCode.OK,
    ExitCode.USAGE,
    ExitCode.BAD_INPUT,
    ExitCode.CONFLICT,
    ExitCode.FORBIDDEN,
    ExitCode.INTERNAL,
    ExitCode.INTERRUPTED,
}
"""Below, and of runners that have started in tests/chaos/test_remote_runners.py."""
FILES = {
    "broken.py": "import nothing_like_it",
    "empty.py": "x = 1",
    "quits.py": "import sys\n\nsys.exit(0)\n",
    "mine.py": "from valkyr import Context, module\n\n@module('Mine')\nasync def mine(context: Context) -> None: ...\n",
}
REFUSED = {
    "no such module": (["missing"], "there is no Python module 'missing' here", "run it in the folder that holds it"),
    "an import that fails": (["broken"], "broken fails when it is imported: ModuleNotFoundError", "import broken"),
    "a file": (["./mine.py"], "./mine.py is a file", "give the module's name: mine"),
    "no modules in it": (["empty"], "empty has no module", "@module("),
    "an import that ends": (["quits"], "quits fails when it is imported: SystemExit: 0", "import quits"),
    "no folder": (["mine", "--credentials", "gone"], "gone is no folder here", "a folder for each name"),
    "a name without a port": (["mine", "--executor", "dns:///somewhere"], "has no port", "HOST:PORT"),
    "no port": (["mine", "--executor", "somewhere"], "'somewhere' has no port", "HOST:PORT"),
}


NOT_LET_IN = {
    "a wrong port": (grpc.StatusCode.UNIMPLEMENTED, ExitCode.BAD_INPUT, "takes no runners"),
    "no rights": (grpc.StatusCode.PERMISSION_DENIED, ExitCode.FORBIDDEN, "said by the test"),
    "a bug": (grpc.StatusCode.INTERNAL, ExitCode.INTERNAL, "said by the test"),
}


class Refusing(runner_pb2_grpc.RunnerServiceServicer):
    """Lets nobody in."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def RegisterRunner(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        context.abort(self._code, "said by the test")


def runner(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "valkyr.runner", *arguments],
        cwd=folder,
        env=environment_of(NOWHERE) | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_page_of_runners_has_the_exit_codes_that_are_tried() -> None:
    table = (PROJECT / "docs" / "runners.md").read_text().partition("| It ends with |")[2].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == TRIED


@pytest.mark.parametrize(("arguments", "what", "mend"), REFUSED.values(), ids=REFUSED)
def test_what_keeps_a_runner_from_starting_is_said_with_its_mend(
    tmp_path: Path, arguments: list[str], what: str, mend: str
) -> None:
    process = runner(tmp_path, *arguments)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.BAD_INPUT
    assert what in said
    assert mend in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("code", "ends_with", "what"), NOT_LET_IN.values(), ids=NOT_LET_IN)
def test_who_is_not_let_in_ends_and_says_why(
    tmp_path: Path, code: grpc.StatusCode, ends_with: ExitCode, what: str
) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    runner_pb2_grpc.add_RunnerServiceServicer_to_server(Refusing(code), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        process = runner(tmp_path, "mine", "--executor", f"127.0.0.1:{port}")
        said, _ = process.communicate(timeout=60)
    finally:
        server.stop(None)
    assert process.returncode == ends_with
    assert what in said
    assert "Traceback" not in said


def test_a_grace_that_is_no_duration_is_2(tmp_path: Path) -> None:
    process = runner(tmp_path, "mine", "--grace", "3x")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.USAGE
    assert "'3x' is no duration" in said


def test_an_executor_that_is_away_is_waited_for_until_the_runner_is_told_to_end(tmp_path: Path) -> None:
    process = runner(tmp_path, "mine")
    assert process.stdout is not None
    try:
        assert "executor.away" in process.stdout.readline()
        process.terminate()
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == ExitCode.OK
    assert "runner.ended" in said
