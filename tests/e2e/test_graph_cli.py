"""The history of workflows from the command line, against a running stack: two people, their versions and drafts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.local.home import PROJECT
from services.local.stack import LocalStack
from tests.builders import a_graph
from tests.forked_cli import ForkedCli
from tests.free_ports import a_port_base
from tests.shell import Shell, error_of
from tests.waiting import wait_until
from valkyr.client import Client, SaveProgress, SaveRetry, SaveStage
from valkyr.errors import MergeConflict, VersionConflict
from valkyr.graph.model import WorkflowInfo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ORDERS = """workflow:
  name: {name}
  description: From the order to the parcel.
nodes:
  - {{nodeId: take, label: Take the order}}
  - {{nodeId: charge, label: Charge the card}}
edges:
  - {{edgeId: e1, source: take, target: charge}}
modules:
  - {{nodeId: take, className: NoopModule}}
  - {{nodeId: charge, className: NoopModule}}
"""
SHIP = "  - {nodeId: charge, label: Charge the card}\n  - {nodeId: ship, label: Order the van}\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("home"), a_port_base()) as stack:
        yield stack


@pytest.fixture
def shell(stack: LocalStack, tmp_path: Path, forked_cli: ForkedCli) -> Shell:
    return Shell(tmp_path, stack.port_base, forked_cli)


def saved(shell: Shell, name: str) -> str:
    """The id of a workflow whose file is NAME.yaml, as version 1 has it."""
    shell.write(f"{name}.yaml", ORDERS.format(name=name))
    identifier: str = shell.json("graph", "save", f"{name}.yaml", "-m", "first")["workflow"]["id"]
    shell.write(f"{name}.yaml", shell.run("graph", "get", name).stdout)
    return identifier


def edit(shell: Shell, name: str, old: str, new: str) -> None:
    text = shell.read(name)
    assert old in text
    shell.write(name, text.replace(old, new))


def save_as_bob(shell: Shell, name: str, old: str, new: str) -> None:
    """Bob reads the latest, edits and saves it."""
    shell.write("bob.yaml", shell.run("graph", "get", name).stdout)
    edit(shell, "bob.yaml", old, new)
    answer = shell.run("graph", "save", "bob.yaml", "-m", "bob was here", VALKYR_PRINCIPAL="bob")
    assert answer.returncode == 0, answer.stderr


def ok(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_a_version_is_looked_at_compared_and_restored(shell: Shell) -> None:
    saved(shell, "history")
    edit(shell, "history.yaml", "Charge the card", "Charge it twice")
    assert '-label: "Charge the card"\n+label: "Charge it twice"\n' in ok(shell.run("graph", "diff", "history.yaml"))
    ok(shell.run("graph", "save", "history.yaml", "-m", "a mistake"))
    assert ok(shell.run("graph", "diff", "history")).startswith("--- history@1\n+++ history@2\n@@ node charge @@\n")
    restored = ok(shell.run("graph", "restore", "history", "1"))
    assert restored.startswith("restored version 1 of history (")
    assert ok(shell.run("graph", "diff", "history@1", "history@3")) == ""
    versions = shell.json("graph", "versions", "history")["versions"]
    assert [(entry["version"], entry["restoredFrom"]) for entry in versions] == [(3, 1), (2, 0), (1, 0)]
    assert [entry["message"] for entry in versions][1:] == ["a mistake", "first"]
    events = shell.json("graph", "audit", "history")["events"]
    assert [event["action"] for event in events] == ["workflow.restored", "workflow.saved", "workflow.created"]
    assert {event["principal"] for event in events} == {"ada"}
    assert '"Charge the card"' in ok(shell.run("graph", "show", "history"))


def test_nodes_that_are_only_moved_make_a_layout(shell: Shell) -> None:
    saved(shell, "moved")
    edit(shell, "moved.yaml", "label: Charge the card", "label: Charge the card\n  position: {x: 10, y: 20}")
    ok(shell.run("graph", "save", "moved.yaml"))
    assert shell.json("graph", "versions", "moved")["versions"][0]["layout"]
    assert "@@ layout: 1 node moved @@" in ok(shell.run("graph", "diff", "moved"))


def test_i02_who_was_overtaken_sees_the_diff_merges_and_saves(shell: Shell) -> None:
    saved(shell, "both")
    save_as_bob(shell, "both", "Take the order", "Take it")
    edit(shell, "both.yaml", "Charge the card", "Charge it")
    refused = shell.run("graph", "save", "both.yaml")
    assert refused.returncode == 5
    assert '  -label: "Take the order"\n  +label: "Take it"\n' in refused.stderr
    assert "`valkyr graph merge both.yaml`" in refused.stderr
    shell.write("merged.yaml", ok(shell.run("graph", "merge", "both.yaml")))
    assert ok(shell.run("graph", "save", "merged.yaml")).startswith("saved both (")
    diff = ok(shell.run("graph", "diff", "both@1", "both"))
    assert '+label: "Take it"' in diff
    assert '+label: "Charge it"' in diff


def test_what_two_have_changed_differently_is_a_conflict(shell: Shell) -> None:
    saved(shell, "clash")
    save_as_bob(shell, "clash", "Charge the card", "Charge it")
    edit(shell, "clash.yaml", "Charge the card", "Debit the card")
    answer = shell.run("graph", "merge", "clash.yaml")
    assert (answer.returncode, answer.stdout) == (5, "")
    assert "conflict: node charge: both changed label" in answer.stderr
    restored = shell.run("graph", "restore", "clash", "1", "--json")
    assert restored.returncode == 5
    assert error_of(restored)["metadata"]["currentVersion"] == "2"


def test_a_draft_is_kept_with_errors_and_published_beside_the_work_of_others(shell: Shell) -> None:
    saved(shell, "drafted")
    text = shell.read("drafted.yaml")
    edit(shell, "drafted.yaml", "target: charge", "target: nowhere")
    kept = shell.run("graph", "draft", "save", "drafted.yaml")
    assert "1 error to mend before it is published" in ok(kept)
    assert "drafted.yaml:" in kept.stderr
    assert "error UNKNOWN_NODE" in kept.stderr
    refused = shell.run("graph", "draft", "publish", "drafted")
    assert refused.returncode == 3
    assert "drafted@draft edges[0].target: error UNKNOWN_NODE" in refused.stderr
    shell.write("drafted.yaml", text)
    edit(shell, "drafted.yaml", "Charge the card", "Charge it")
    assert "revision 2" in ok(shell.run("graph", "draft", "save", "drafted.yaml"))
    save_as_bob(shell, "drafted", "Take the order", "Take it")
    assert "others have saved up to version 2" in shell.run("graph", "draft", "get", "drafted").stderr
    published = ok(shell.run("graph", "draft", "publish", "drafted", "-m", "mine"))
    assert published.endswith("as version 3, put together with what others have saved since\n")
    assert shell.run("graph", "draft", "get", "drafted").returncode == 4


def test_a_draft_that_clashes_is_kept_and_can_be_mended(shell: Shell) -> None:
    saved(shell, "mended")
    edit(shell, "mended.yaml", "Charge the card", "Mine")
    ok(shell.run("graph", "draft", "save", "mended.yaml"))
    save_as_bob(shell, "mended", "Charge the card", "Theirs")
    refused = shell.run("graph", "draft", "publish", "mended")
    assert refused.returncode == 5
    assert "conflict: node charge: both changed label" in refused.stderr
    shell.write("mended.yaml", ok(shell.run("graph", "draft", "get", "mended")))
    edit(shell, "mended.yaml", "version: 1", "version: 2")
    ok(shell.run("graph", "draft", "save", "mended.yaml"))
    assert "as version 3" in ok(shell.run("graph", "draft", "publish", "mended"))
    assert '+label: "Mine"' in ok(shell.run("graph", "diff", "mended"))


def test_an_archived_workflow_is_saved_no_more_until_it_is_back(shell: Shell) -> None:
    saved(shell, "shop")
    ok(shell.run("graph", "archive", "shop", "--reason", "closed"))
    edit(shell, "shop.yaml", "Charge the card", "Charge it")
    refused = shell.run("graph", "save", "shop.yaml")
    assert refused.returncode == 5
    assert "`valkyr graph unarchive" in refused.stderr
    started = shell.run("run", "shop")
    assert started.returncode == 5
    assert "`valkyr graph unarchive shop` puts it back in use" in started.stderr
    ok(shell.run("graph", "unarchive", "shop"))
    ok(shell.run("run", "shop", "--wait"))
    ok(shell.run("graph", "save", "shop.yaml"))
    actions = [event["action"] for event in shell.json("graph", "audit", "shop")["events"]]
    assert actions == ["workflow.saved", "workflow.unarchived", "workflow.archived", "workflow.created"]


def test_a_watch_tells_each_change_once_also_when_it_is_resumed(shell: Shell) -> None:
    workflow = saved(shell, "watched_graph")

    def lines() -> list[dict[str, Any]]:
        whole = shell.read("out").split("\n")[:-1]
        return [json.loads(line) for line in whole if line.startswith("{")]

    def told() -> list[tuple[int, str]]:
        changes = [line["change"] for line in lines() if "change" in line]
        return [(change["workflow"]["version"], change["action"]) for change in changes]

    watching = shell.start("graph", "watch", workflow, "--json")
    wait_until(lambda: "resumeToken" in shell.read("out"), "the watch has begun", 60)
    save_as_bob(shell, "watched_graph", "Take the order", "Take it")
    wait_until(lambda: told() == [(2, "workflow.saved")] and "resumeToken" in lines()[-1], "the save is told", 60)
    token = lines()[-1]["resumeToken"]
    watching.send_signal(signal.SIGINT)
    assert watching.wait(timeout=60) == 130
    save_as_bob(shell, "watched_graph", "Take it", "Take it all")
    ok(shell.run("graph", "archive", "watched_graph"))
    watching = shell.start("graph", "watch", workflow, "--json", "--resume", token)
    wait_until(lambda: (3, "workflow.archived") in told(), "the archiving is told", 60)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(timeout=60) == 130
    assert all(version == 3 for version, _ in told())


def test_the_program_that_the_docs_show_runs_as_written(shell: Shell) -> None:
    page = (PROJECT / "docs" / "graphs_in_programs.md").read_text()
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    ports = int(shell.environment["VALKYR_PORT_BASE"])
    addresses = f'"127.0.0.1:{ports}", "127.0.0.1:{ports + 1}", '
    shell.write("program.py", program.replace("Client(", f"Client({addresses}"))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.split() == ["VALIDATING", "SENDING", "DONE"]
    assert done.stdout.splitlines() == [
        "saved as version 1",
        'CHANGED NODE charge label "Charge the card"',
        "3 ada merged",
        "2 ada ",
        "1 ada first",
        "draft 1: 0 findings",
        "published as version 5",
    ]


async def test_a_diff_and_conflicts_that_fit_no_status_come_whole(stack: LocalStack) -> None:
    names = [f"n{number}" for number in range(300)]
    addresses = [f"127.0.0.1:{stack.port_base + offset}" for offset in range(2)]
    before, mine, theirs = (
        a_graph(", ".join(names), nodes={name: {"label": f"{label} {name}"} for name in names})
        for label in ("before", "mine", "theirs")
    )
    async with Client(*addresses, principal="ada", timeout=timedelta(seconds=60)) as client:
        first = await client.graphs.save(before, workflow=WorkflowInfo(name="large"))
        workflow = WorkflowInfo(id=first.workflow.id, name="large", version=1)
        await client.graphs.drafts.save(first.workflow.id, mine, base_version=1)
        await client.graphs.save(theirs, workflow=workflow)
        with pytest.raises(VersionConflict) as stale:
            await client.graphs.save(mine, workflow=workflow)
        assert {difference.id for difference in stale.value.differences} == set(names)
        assert not stale.value.is_truncated
        with pytest.raises(MergeConflict) as clash:
            await client.graphs.drafts.publish(first.workflow.id)
        assert {conflict.id for conflict in clash.value.disagreements} == set(names)
        assert not clash.value.is_truncated


async def test_i01_saves_and_a_watch_go_on_while_the_graph_store_is_killed(stack: LocalStack) -> None:
    killed: set[int] = set()

    def started_again() -> None:
        wait_until(lambda: stack.pids["graph_store"] not in killed, "it was started again", 60)

    def kill(progress: SaveProgress) -> None:
        if (progress.stage, progress.attempt) == (SaveStage.SENDING, 1):
            killed.add(stack.pids["graph_store"])
            os.kill(stack.pids["graph_store"], signal.SIGKILL)

    told: list[int] = []
    retries: list[SaveRetry] = []
    begun = asyncio.Event()
    async with Client(f"127.0.0.1:{stack.port_base}", principal="ada") as client:

        async def listen(workflow_id: str) -> None:
            async with aclosing(client.graphs.watch([workflow_id], on_token=lambda _: begun.set())) as watch:
                async for change in watch:
                    told.append(change.workflow.version)
                    if told[-1] == 4:
                        return

        workflow = (await client.graphs.save(a_graph("a"), workflow=WorkflowInfo(name="killed"))).workflow
        listening = asyncio.create_task(listen(workflow.id))
        await asyncio.wait_for(begun.wait(), 60)
        for number in range(3):
            await asyncio.to_thread(started_again)
            saved = await client.graphs.save(
                a_graph(f"a -> b{number}"),
                workflow=workflow.edited,
                max_retries=30,
                initial_delay=0.2,
                on_retry=retries.append,
                on_progress=kill,
            )
            workflow = saved.workflow
        await asyncio.wait_for(listening, 60)
        versions = [version.version async for version in client.graphs.versions(workflow.id)]
    assert versions == [4, 3, 2, 1]
    assert told == sorted(set(told))
    assert len(retries) >= 3
