"""The command line against a running stack: save, run, look, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.local.stack import LocalStack
from tests.forked_cli import ForkedCli
from tests.free_ports import a_port_base
from tests.shell import GREETING, Shell, error_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("home"), a_port_base()) as stack:
        yield stack


@pytest.fixture
def shell(stack: LocalStack, tmp_path: Path, forked_cli: ForkedCli) -> Shell:
    return Shell(tmp_path, stack.port_base, forked_cli)


def test_a_workflow_is_saved_by_file_and_run_by_name(shell: Shell) -> None:
    file = shell.write("hello.yaml", GREETING.format(name="by_name", pause="PT0.1S"))
    saved = shell.run("graph", "save", file, "-m", "first")
    assert saved.returncode == 0, saved.stderr
    assert re.match(
        r"saved by_name \([0-9a-f-]{36}\) as version 1 \(3 nodes, 2 edges\); a new workflow\n", saved.stdout
    )
    ran = shell.run("run", "by_name", "--payload", '{"name": "Ada"}', "--wait")
    assert ran.returncode == 0
    assert "SUCCESS" in ran.stdout
    assert '"said": "Hello, Ada!"' in ran.stdout


def test_watching_shows_every_run_and_then_the_end(shell: Shell) -> None:
    shell.save_greeting("watched")
    answer = shell.run("run", "watched", "--payload", '{"name": "Ada"}', "--watch")
    assert answer.returncode == 0
    for line in (r"SUCCESS  greet", r"SUCCESS  pause", r"SUCCESS  last", r"SUCCESS  in "):
        assert re.search(line, answer.stdout), answer.stdout


def test_watching_as_json_is_a_line_per_change_and_the_execution_last(shell: Shell) -> None:
    shell.save_greeting("streamed")
    answer = shell.run("run", "streamed", "--payload", '{"name": "Ada"}', "--watch", "--json")
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {line["run"]["nodeId"] for line in lines[:-1]} == {"greet", "pause", "last"}
    assert lines[-1]["execution"]["state"] == "SUCCESS"
    assert lines[-1]["execution"]["outputs"] == {"last": {"said": "Hello, Ada!"}}


def test_work_that_fails_is_1_and_says_which_run_and_why(shell: Shell) -> None:
    shell.save_greeting("failing")
    answer = shell.run("run", "failing", "--payload", "{}", "--wait")
    assert answer.returncode == 1
    assert re.search(r"greet  QUARANTINED  PERMANENT: .*trigger\.name", answer.stdout), answer.stdout


def test_a_timeout_is_6_and_the_execution_goes_on(shell: Shell) -> None:
    shell.save_greeting("slow", pause="PT4S")
    answer = shell.run("run", "slow", "--payload", '{"name": "Ada"}', "--wait", "--timeout", "0.3s", "--json")
    assert answer.returncode == 6
    execution = json.loads(answer.stdout)["execution"]
    assert execution["state"] == "RUNNING"
    wait_until(lambda: shell.json("execution", "get", execution["id"])["execution"]["state"] == "SUCCESS", "it goes on")


def test_the_same_request_id_starts_it_once(shell: Shell) -> None:
    shell.save_greeting("once")
    start = ("run", "once", "--payload", '{"name": "Ada"}', "--request-id", "order-17")
    first, second = shell.run(*start), shell.run(*start)
    assert first.stdout == second.stdout
    other = shell.run("run", "once", "--payload", "{}", "--request-id", "order-17", "--json")
    assert error_of(other)["reason"] == "REQUEST_ID_REUSED"
    assert other.returncode == 5


def test_a_payload_comes_from_a_file_or_from_standard_input(shell: Shell) -> None:
    shell.save_greeting("fed")
    shell.write("ada.yaml", "name: Ada\n")
    by_file = shell.json("run", "fed", "--payload", "@ada.yaml", "--wait")
    by_pipe = shell.json("run", "fed", "--payload", "-", "--wait", stdin='{"name": "Bob"}')
    assert by_file["execution"]["outputs"]["last"]["said"] == "Hello, Ada!"
    assert by_pipe["execution"]["outputs"]["last"]["said"] == "Hello, Bob!"


def test_what_get_prints_can_be_edited_and_saved_and_knows_its_version(shell: Shell) -> None:
    shell.save_greeting("edited")
    text = shell.run("graph", "get", "edited").stdout
    shell.write("edited.yaml", text.replace("Hello", "Good day"))
    assert "as version 2" in shell.run("graph", "save", "edited.yaml").stdout
    again = shell.run("graph", "save", "edited.yaml", "--json")
    stale = shell.run("graph", "save", "-", "--json", stdin=text)
    assert (again.returncode, json.loads(again.stdout)["unchanged"]) == (0, True)
    assert stale.returncode == 5
    assert error_of(stale)["reason"] == "VERSION_CONFLICT"
    assert error_of(stale)["metadata"]["currentVersion"] == "2"
    assert shell.json("graph", "get", "edited", "--version", "1")["workflow"]["version"] == 1


def test_a_file_without_a_version_never_overwrites_the_work_of_another(shell: Shell) -> None:
    shell.save_greeting("shared")
    mine = shell.write("mine.yaml", GREETING.format(name="shared", pause="PT0.2S"))
    assert "the latest, which is yours" in shell.run("graph", "save", mine).stdout
    theirs = shell.write("theirs.yaml", GREETING.format(name="shared", pause="PT0.3S"))
    refused = shell.run("graph", "save", theirs, "--json", VALKYR_PRINCIPAL="bob")
    assert refused.returncode == 5
    assert error_of(refused)["reason"] == "VERSION_REQUIRED"
    assert "ada saved version 2 last" in error_of(refused)["message"]
    taken = shell.run("graph", "save", theirs, "--version", "latest", VALKYR_PRINCIPAL="bob")
    assert "as version 3" in taken.stdout


def test_saving_the_same_again_changes_nothing(shell: Shell) -> None:
    shell.save_greeting("same")
    answer = shell.run("graph", "save", "same.yaml")
    assert answer.returncode == 0
    assert "unchanged" in answer.stdout
    assert shell.json("graph", "save", "same.yaml")["unchanged"] is True


def test_a_dry_run_checks_all_and_saves_nothing(shell: Shell) -> None:
    file = shell.write("dry.yaml", GREETING.format(name="dry", pause="PT1S"))
    assert "would save dry" in shell.run("graph", "save", file, "--dry-run").stdout
    assert shell.run("graph", "get", "dry").returncode == 4


def test_what_only_the_graph_store_knows_is_found_with_its_line(shell: Shell) -> None:
    file = shell.write("bad.yaml", GREETING.format(name="bad", pause="PT1S").replace("duration:", "seconds:"))
    answer = shell.run("graph", "save", file)
    assert answer.returncode == 3
    assert re.search(r"^bad\.yaml:12:\d+: error BAD_MODULE_DATA: ", answer.stderr, re.MULTILINE), answer.stderr
    remote = shell.run("graph", "validate", file, "--remote", "--json")
    (report,) = json.loads(remote.stdout)["files"]
    assert {finding["code"] for finding in report["findings"] if finding["severity"] == "ERROR"} == {"BAD_MODULE_DATA"}


def test_lists_show_what_there_is(shell: Shell) -> None:
    identifier = shell.save_greeting("listed")
    execution = shell.json("run", "listed", "--payload", '{"name": "Ada"}', "--wait")["execution"]
    workflows = shell.json("graph", "list", "listed")["workflows"]
    assert [(found["id"], found["name"]) for found in workflows] == [(identifier, "listed")]
    assert identifier in shell.run("graph", "list", "--limit", "1000").stdout
    executions = shell.json("execution", "list", "--workflow", "listed", "--state", "success")["executions"]
    assert [found["id"] for found in executions] == [execution["id"]]
    shown = shell.run("execution", "get", execution["id"]).stdout
    assert re.search(r"^greet +SUCCESS +1 ", shown, re.MULTILINE)
    assert f"trace {execution['traceId']}" in shown


def test_namespaces_do_not_see_each_other(shell: Shell) -> None:
    shell.save_greeting("private")
    answer = shell.run("graph", "get", "private", "--namespace", "other", "--json")
    assert answer.returncode == 4
    assert error_of(answer)["reason"] == "WORKFLOW_NOT_FOUND"


def test_a_file_goes_into_the_namespace_that_it_names_with_its_message(shell: Shell) -> None:
    (shell.folder / "named.yaml").write_text(
        "namespace: shop\nmessage: why\n" + GREETING.format(name="named", pause="PT0S")
    )
    saved = shell.json("graph", "save", "named.yaml")["workflow"]
    assert saved["namespace"] == "shop"
    assert shell.run("graph", "get", "named").returncode == 4
    read = shell.run("graph", "get", "named", "-n", "shop")
    assert "namespace: shop" in read.stdout
    (shell.folder / "read.yaml").write_text(read.stdout)
    again = shell.json("graph", "save", "read.yaml")
    assert (again["workflow"]["id"], again["unchanged"]) == (saved["id"], True)


def test_a_file_without_description_and_labels_keeps_those_that_are_stored(shell: Shell) -> None:
    file = shell.folder / "labelled.yaml"
    plain = GREETING.format(name="labelled", pause="PT0S")
    file.write_text(plain.replace("labelled", "labelled\n  description: about\n  labels: {team: a}"))
    shell.json("graph", "save", "labelled.yaml")
    file.write_text(plain)
    kept = shell.json("graph", "save", "labelled.yaml")
    assert (kept["unchanged"], kept["workflow"]["labels"]) == (True, {"team": "a"})
    file.write_text(plain.replace("labelled", "labelled\n  labels: {}"))
    emptied = shell.json("graph", "save", "labelled.yaml")["workflow"]
    assert (emptied["version"], emptied["labels"], emptied["description"]) == (2, {}, "about")


def test_what_failed_is_found_mended_and_requeued(shell: Shell) -> None:
    shell.save_greeting("mended")
    execution = json.loads(shell.run("run", "mended", "--payload", "{}", "--wait", "--json").stdout)["execution"]
    letters = ("dlq", "list", "--execution", execution["id"])
    wait_until(lambda: shell.json(*letters)["deadLetters"], "the letter arrives")
    (listed,) = shell.json(*letters)["deadLetters"]
    assert (listed["nodeId"], listed["failureType"], listed["resolution"]) == ("greet", "PERMANENT_ERROR", "PENDING")
    letter = shell.run("dlq", "get", listed["id"]).stdout
    assert f"valkyr dlq requeue {listed['id']} --inputs @inputs.json" in letter
    inputs = json.loads(shell.run("dlq", "get", listed["id"], "--inputs").stdout)
    shell.write("inputs.json", json.dumps(inputs | {"trigger": {"name": "Ada"}}))
    requeued = shell.json("dlq", "requeue", listed["id"], "--inputs", "@inputs.json", "--reason", "named")
    assert requeued["deadLetter"]["resolution"] == "REQUEUED"
    again = shell.run("dlq", "discard", listed["id"], "--reason", "too late", "--json", VALKYR_PRINCIPAL="bob")
    assert (again.returncode, error_of(again)["reason"]) == (5, "DEAD_LETTER_RESOLVED")
    assert error_of(again)["metadata"]["resolvedBy"] == "ada"
    get = ("execution", "get", execution["id"])
    wait_until(lambda: shell.json(*get)["execution"]["state"] in ("SUCCESS", "FAILED"), "it goes on")
    trace = shell.run("trace", execution["id"]).stdout
    for said in ("[graph_store] version 1", "quarantine 1", f"[dlq] {listed['id']}", "[dlq] by ada after"):
        assert said in trace, trace


def test_a_run_is_discarded_at_the_executor_and_its_letter_follows(shell: Shell) -> None:
    shell.save_greeting("discarded")
    execution = json.loads(shell.run("run", "discarded", "--payload", "{}", "--wait", "--json").stdout)["execution"]
    run = shell.json("run", "discard", execution["id"], "greet", "--reason", "nobody to greet")["run"]
    assert run["state"] == "FAILED"
    letters = ("dlq", "list", "--execution", execution["id"], "--resolution", "discarded")
    wait_until(lambda: shell.json(*letters)["deadLetters"], "the letter follows")
    assert shell.json(*letters)["deadLetters"][0]["resolutionReason"] == "nobody to greet"


def test_an_execution_is_cancelled_once_and_one_that_has_ended_not_at_all(shell: Shell) -> None:
    shell.save_greeting("cancelled", pause="PT60S")
    started = shell.run("run", "cancelled", "--payload", '{"name": "Ada"}').stdout.strip()
    cancel = ("execution", "cancel", started, "--reason", "wrong", "--wait")
    assert [shell.json(*cancel)["execution"]["state"] for _ in range(2)] == ["CANCELLED", "CANCELLED"]
    shell.save_greeting("ended")
    ended = shell.json("run", "ended", "--payload", '{"name": "Ada"}', "--wait")["execution"]
    refused = shell.run("execution", "cancel", ended["id"], "--json")
    assert (refused.returncode, error_of(refused)["reason"]) == (5, "EXECUTION_SETTLED")


def test_a_target_nobody_called_has_a_closed_breaker(shell: Shell) -> None:
    breaker = shell.json("breaker", "get", "http:nobody.example")["breaker"]
    assert (breaker["state"], breaker["generation"]) == ("CLOSED", 0)
    assert shell.json("breaker", "list", "--state", "open")["breakers"] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nobody"], 4),
        (["run", "01920000-0000-7000-8000-000000000000"], 4),
        (["graph", "get", "01920000-0000-7000-8000-000000000000"], 4),
        (["execution", "get", "01920000-0000-7000-8000-000000000000"], 4),
        (["execution", "get", "nonsense"], 3),
        (["execution", "cancel", "01920000-0000-7000-8000-000000000000"], 4),
        (["run", "requeue", "01920000-0000-7000-8000-000000000000", "a"], 4),
        (["dlq", "get", "01920000-0000-7000-8000-000000000000"], 4),
        (["trace", "01920000-0000-7000-8000-000000000000"], 4),
        (["graph", "list", "--namespace", "a b"], 3),
        (["graph", "save", "none.yaml"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_every_refusal_has_its_exit_code_and_a_sentence(arguments: list[str], code: int, shell: Shell) -> None:
    answer = shell.run(*arguments)
    assert answer.returncode == code
    assert "error" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_ctrl_c_while_watching_is_quiet_and_the_execution_goes_on(shell: Shell) -> None:
    shell.save_greeting("interrupted", pause="PT1H")
    process = shell.start("run", "interrupted", "--payload", '{"name": "Ada"}', "--watch")
    wait_until(lambda: "WAITING  pause" in shell.read("out"), "the pause is shown", 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert shell.read("out").rstrip().endswith("WAITING  pause")
    (execution,) = shell.json("execution", "list", "--workflow", "interrupted")["executions"]
    assert execution["state"] == "RUNNING"


def test_an_execution_is_paused_watched_and_resumed(shell: Shell) -> None:
    # Beside `last`, what keeps it RUNNING for a while once it is resumed.
    text = GREETING.format(name="held", pause="PT12S").replace("nodes:\n", "nodes:\n  - nodeId: after\n")
    text = text.replace("edges:\n", "edges:\n  - {edgeId: e3, source: pause, target: after}\n")
    file = shell.write(
        "held.yaml", f"{text}  - {{nodeId: after, className: DelayModule, config: {{duration: PT3S}}}}\n"
    )
    assert shell.run("graph", "save", file).returncode == 0
    identifier = shell.json("run", "held", "--payload", '{"name": "Ada"}')["execution"]["id"]
    paused = shell.run("execution", "pause", identifier, "--reason", "to look")
    assert paused.returncode == 0, paused.stderr
    assert paused.stdout.startswith(f"{identifier}  PAUSED\npaused by ada at ")
    process = shell.start("execution", "watch", identifier)
    wait_until(lambda: "PARKED  last  its execution is paused" in shell.read("out"), "the pause holds it", 60)
    assert "PAUSED  paused by ada at " in shell.read("out")
    shown = shell.run("run", "get", identifier, "last").stdout
    assert f"its execution is paused; `valkyr execution resume {identifier}` lets it go on" in shown
    assert shell.run("execution", "resume", identifier).returncode == 0
    assert process.wait(60) == 0, shell.read("out")
    assert "RUNNING  resumed" in shell.read("out")
    assert '"said": "Hello, Ada!"' in shell.read("out")
    shown = shell.run("run", "get", identifier, "last").stdout
    assert re.search(r"timeline\n .* parked     waited: its execution was paused\n .* attempt 1  SUCCESS  on ", shown)


def test_a_watch_survives_the_death_of_the_executor(shell: Shell, stack: LocalStack) -> None:
    shell.save_greeting("hardy", pause="PT4S")
    process = shell.start("run", "hardy", "--payload", '{"name": "Ada"}', "--watch")
    wait_until(lambda: "WAITING  pause" in shell.read("out"), "the pause is shown", 60)
    os.kill(stack.pids["executor"], signal.SIGKILL)
    assert process.wait(60) == 0, shell.read("out")
    assert '"said": "Hello, Ada!"' in shell.read("out")
