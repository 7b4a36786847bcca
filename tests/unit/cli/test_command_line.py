"""The command line as a process sees it: exit codes, what goes where, and no traceback whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.free_ports import a_port_base
from valkyr.cli.exits import MEANINGS, ExitCode, exit_code_of
from valkyr.errors import ValkyrError, all_kinds

pytestmark = pytest.mark.timeout(300)

A_CYCLE = """workflow: {name: loop}
nodes:
  - nodeId: a
  - nodeId: b
edges:
  - {edgeId: e1, source: a, target: b}
  - {edgeId: e2, source: b, target: a}
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_") and name != "COLUMNS"}
    return kept | {"PYTHONIOENCODING": "utf-8"} | more


def valkyr(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "valkyr.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**more),
        check=False,
    )


@pytest.fixture
def black_hole() -> Iterator[socket.socket]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(60)
        yield listener


def nowhere() -> str:
    return f"127.0.0.1:{a_port_base()}"


def test_help_teaches_with_examples_and_lists_the_exit_codes() -> None:
    answer = valkyr("--help")
    assert answer.returncode == 0
    for code in MEANINGS:
        assert re.search(rf"^ +{code.value}  {re.escape(MEANINGS[code])}$", answer.stdout, re.MULTILINE)
    for command in (["graph", "validate"], ["graph", "save"], ["graph", "get"], ["graph", "list"], ["run"]):
        assert "Examples:\n    valkyr " in valkyr(*command, "--help").stdout


def test_an_invalid_graph_is_3_with_every_finding_at_its_line() -> None:
    answer = valkyr("graph", "validate", "-", stdin=A_CYCLE)
    assert answer.returncode == ExitCode.BAD_INPUT
    assert "<stdin>:7:5: error CYCLE: the graph has a cycle: a -> b -> a" in answer.stdout
    assert "<stdin>: 1 error" in answer.stdout


def test_findings_as_json_carry_file_line_and_column() -> None:
    answer = valkyr("graph", "validate", "-", "--json", stdin=A_CYCLE)
    (report,) = json.loads(answer.stdout)["files"]
    assert report["valid"] is False
    finding = report["findings"][0]
    assert (finding["file"], finding["line"], finding["code"]) == ("<stdin>", 7, "CYCLE")
    assert finding["nodeIds"] == ["a", "b"]


def test_a_file_that_is_refused_is_never_sent_to_the_graph_store() -> None:
    answer = valkyr("graph", "save", "-", "--json", "--graph-store", nowhere(), stdin="nodes:\n  - nodeId: 0\n")
    assert answer.returncode == ExitCode.BAD_INPUT
    assert answer.stdout == ""
    error = json.loads(answer.stderr)["error"]
    assert error["reason"] == "INVALID_GRAPH"
    assert error["exitCode"] == 3
    assert error["findings"][0]["line"] == 2


def test_local_validation_knows_the_modules_that_come_with_it() -> None:
    file = A_CYCLE + "modules:\n  - {nodeId: a, className: DelayModule, config: {duration: []}}\n"
    answer = valkyr("graph", "validate", "-", stdin=file + "  - {nodeId: b, className: Mine}\n")
    assert answer.returncode == ExitCode.BAD_INPUT
    for code in ("error CYCLE", "error BAD_MODULE_DATA", "warning UNKNOWN_MODULE"):
        assert code in answer.stdout


def test_a_file_that_contradicts_the_command_line_is_3_before_any_call() -> None:
    file = "namespace: shop\nmessage: why\nnodes:\n  - nodeId: a\n"
    for arguments, said in (
        (["save", "-", "--namespace", "default"], "the file says 'shop'"),
        (["save", "-", "-m", "because"], "the document says 'why'"),
        (["validate", "-", "--namespace", "default"], "the file says 'shop'"),
    ):
        answer = valkyr("graph", *arguments, stdin=file, VALKYR_GRAPH_STORE=nowhere())
        assert answer.returncode == ExitCode.BAD_INPUT
        assert said in answer.stderr
    assert valkyr("graph", "validate", "-", "-n", "shop", stdin=file).returncode == ExitCode.OK


def test_a_wrong_command_line_is_2() -> None:
    for version in ("zero", "0", "-1", "9" * 20):
        assert valkyr("graph", "save", "-", f"--version={version}").returncode == ExitCode.USAGE
    assert valkyr("graph", "explode").returncode == ExitCode.USAGE
    assert valkyr("run", "x", "--timeout", "soon", "--wait").returncode == ExitCode.USAGE
    assert valkyr("run", "x", "--timeout", "5s").returncode == ExitCode.USAGE
    wrong_base = valkyr("graph", "list", VALKYR_PORT_BASE="many")
    assert wrong_base.returncode == ExitCode.USAGE
    assert "VALKYR_PORT_BASE is 'many'" in wrong_base.stderr


def test_a_payload_that_is_no_json_is_3_before_any_call(tmp_path: Path) -> None:
    bad = tmp_path / "order.json"
    bad.write_text('{"order":\n  17,}')
    for payload, said in (("{order", "is not JSON"), (f"@{bad}", f"{bad}:2:6"), ("@/nope.json", "No such file")):
        answer = valkyr("run", "x", "--payload", payload, "--graph-store", nowhere())
        assert answer.returncode == ExitCode.BAD_INPUT
        assert said in answer.stderr


def test_a_service_that_is_away_is_6_with_one_sentence_and_a_hint() -> None:
    address = nowhere()
    answer = valkyr("execution", "list", VALKYR_EXECUTOR=address)
    assert answer.returncode == ExitCode.UNAVAILABLE
    error, hint = answer.stderr.strip().split("\n")
    assert error == f"error: the executor at {address} cannot be reached"
    assert hint.startswith(" hint: is it running there? `make up`")


def test_the_port_base_finds_both_services() -> None:
    base = nowhere().split(":")[1]
    answer = valkyr("execution", "list", "--json", VALKYR_PORT_BASE=base)
    assert f"127.0.0.1:{int(base) + 1}" in json.loads(answer.stderr)["error"]["message"]


def test_ctrl_c_ends_quietly_with_130(black_hole: socket.socket) -> None:
    address = f"127.0.0.1:{black_hole.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "valkyr.cli", "execution", "list", "--executor", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    connection, _ = black_hole.accept()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    connection.close()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_error_message(tmp_path: Path) -> None:
    many = tmp_path / "many.yaml"
    nodes = "".join(f"  - nodeId: n{number}\n" for number in range(5000))
    many.write_text(f"nodes:\n{nodes}")
    script = f"{sys.executable} -m valkyr.cli graph validate {many} | head -1; echo ${{PIPESTATUS[0]}}"
    answer = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert answer.stderr == ""
    assert answer.stdout.splitlines()[-1] == str(int(ExitCode.BROKEN_PIPE))


def test_what_a_file_says_cannot_drive_the_terminal() -> None:
    text = 'nodes: [{nodeId: "a\\e[2Jb"}, {nodeId: "a\\e[2Jb"}]'
    answer = valkyr("graph", "validate", "-", stdin=text)
    assert "DUPLICATE_NODE_ID" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_a_pipe_gets_no_colours() -> None:
    assert "\x1b" not in valkyr("graph", "validate", "-", stdin=A_CYCLE, FORCE_COLOR="").stdout


def test_a_terminal_of_few_characters_gets_the_others_escaped() -> None:
    text = "nodes: [{nodeId: ü}, {nodeId: ü}]"
    answer = valkyr("graph", "validate", "-", stdin=text, PYTHONIOENCODING="ascii")
    assert answer.returncode == ExitCode.BAD_INPUT
    assert "'\\xfc'" in answer.stdout


@pytest.mark.parametrize("kind", list(all_kinds(ValkyrError)), ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code_that_help_explains(kind: type[ValkyrError]) -> None:
    code = exit_code_of(kind("wrong"))
    assert code in MEANINGS
    assert code not in (ExitCode.OK, ExitCode.WORK_FAILED, ExitCode.USAGE)
