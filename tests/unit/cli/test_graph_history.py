"""valkyr graph versions, restore, archive, unarchive, audit, watch and draft, against a scripted graph store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from valkyr import errors
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.graph.model import Graph, Node, WorkflowInfo
from valkyr.rpc.graphs import graph_to_proto

W = "0198c0de-0000-7000-8000-000000000001"
AN_ERROR = common_pb2.Finding(
    severity=common_pb2.Finding.ERROR, code="BAD_MODULE_DATA", path="modules[0].config", message="url is missing"
)


def a_version(version: int, author: str = "ada", **more: Any) -> pb.Version:
    found = pb.Version(version=version, author=author, node_count=2, edge_count=1, **more)
    found.create_time.FromSeconds(1_700_000_000)
    return found


def listed(*versions: pb.Version) -> pb.ListVersionsResponse:
    return pb.ListVersionsResponse(versions=versions)


def a_graph(version: int) -> pb.Graph:
    return graph_to_proto(Graph(nodes=(Node("a"),)), WorkflowInfo(id=W, name="orders", version=version))


def a_draft(**more: Any) -> pb.Draft:
    draft = pb.Draft(workflow_id=W, graph=a_graph(0), revision=3, author="ada", **more)
    draft.expire_time.FromSeconds(1_800_000_000)
    return draft


async def test_versions_are_a_table_that_marks_layout_and_restores(script: Any, cli: Cli) -> None:
    script.answer("ListVersions", listed(a_version(3, restored_from=1, message="undo"), a_version(2, layout=True)))
    answer = await cli("graph", "versions", W)
    assert answer.returncode == 0, answer.stderr
    head, third, second = (line.split("  ") for line in answer.stdout.splitlines())
    assert head[0] == "VERSION"
    assert "restores 1" in third
    assert third[-1] == "undo"
    assert "layout" in second
    document = json.loads((await cli("graph", "versions", W, "--json")).stdout)
    assert [(entry["version"], entry["layout"], entry["restoredFrom"]) for entry in document["versions"]] == [
        (3, False, 1),
        (2, True, 0),
    ]


async def test_a_restore_goes_on_top_of_the_latest_where_that_is_ones_own(script: Any, cli: Cli) -> None:
    script.answer("ListVersions", listed(a_version(7, "ada")))
    script.answer("RestoreVersion", pb.RestoreVersionResponse(graph=a_graph(8)))
    answer = await cli("graph", "restore", W, "3", "-m", "undo")
    assert answer.stdout == (
        f"restored version 3 of orders ({W}) as version 8; on top of version 7, the latest, which is yours\n"
    )
    (request,) = script.requests("RestoreVersion")
    assert (request.version, request.current_version, request.message) == (3, 7, "undo")


async def test_a_restore_never_replaces_what_another_has_saved_unseen(script: Any, cli: Cli) -> None:
    script.answer("ListVersions", listed(a_version(7, "bob")))
    script.answer("RestoreVersion", pb.RestoreVersionResponse(graph=a_graph(8)))
    answer = await cli("graph", "restore", W, "3")
    assert answer.returncode == 5
    assert "bob saved version 7 last" in answer.stderr
    assert "--current 7" in answer.stderr
    assert not script.requests("RestoreVersion")
    for current in ("7", "latest"):
        assert (await cli("graph", "restore", W, "3", "--current", current)).returncode == 0
    assert [request.current_version for request in script.requests("RestoreVersion")] == [7, 7]


async def test_a_restore_that_changes_nothing_says_so(script: Any, cli: Cli) -> None:
    script.answer("RestoreVersion", pb.RestoreVersionResponse(graph=a_graph(7), unchanged=True))
    answer = await cli("graph", "restore", W, "3", "--current", "7")
    assert answer.stdout.startswith("unchanged: orders")
    document = json.loads((await cli("graph", "restore", W, "3", "--current", "7", "--json")).stdout)
    assert (document["unchanged"], document["workflow"]["version"], document["warnings"]) == (True, 7, [])


async def test_a_restore_of_what_is_not_right_any_more_is_3_with_the_findings(script: Any, cli: Cli) -> None:
    script.answer("RestoreVersion", errors.InvalidGraph("BAD_MODULE_DATA: url is missing; nothing was saved"))
    script.answer("GetGraph", pb.GetGraphResponse(graph=a_graph(3)))
    script.answer("ValidateGraph", pb.ValidateGraphResponse(errors=[AN_ERROR]))
    answer = await cli("graph", "restore", W, "3", "--current", "7")
    assert answer.returncode == 3
    assert f"{W}@3 modules[0].config: error BAD_MODULE_DATA: url is missing" in answer.stderr
    as_json = await cli("graph", "restore", W, "3", "--current", "7", "--json")
    (finding,) = json.loads(as_json.stderr)["error"]["findings"]
    assert (finding["line"], finding["path"]) == (None, "modules[0].config")


async def test_a_stale_restore_is_5_with_what_was_changed(script: Any, cli: Cli) -> None:
    changed = errors.Difference("ADDED", "NODE", "z")
    conflict = errors.VersionConflict("stale", metadata={"currentVersion": "9"}, differences=[changed])
    script.answer("RestoreVersion", conflict)
    answer = await cli("graph", "restore", W, "3", "--current", "7")
    assert answer.returncode == 5
    assert "@@ node z added @@" in answer.stderr
    assert "then say --current N" in answer.stderr


async def test_archiving_says_how_to_go_back(script: Any, cli: Cli) -> None:
    workflow = pb.Workflow(id=W, name="orders", version=7, archived=True)
    script.answer("ArchiveWorkflow", pb.ArchiveWorkflowResponse(workflow=workflow))
    script.answer("UnarchiveWorkflow", pb.UnarchiveWorkflowResponse(workflow=workflow))
    answer = await cli("graph", "archive", W, "--reason", "closed")
    assert answer.stdout == f"archived orders ({W}), at version 7\n"
    assert f"`valkyr graph unarchive {W}` puts it back in use" in answer.stderr
    assert script.requests("ArchiveWorkflow")[0].reason == "closed"
    back = await cli("graph", "unarchive", W, "--json")
    assert json.loads(back.stdout)["workflow"]["id"] == W


async def test_an_archived_workflow_is_5_and_says_how_to_go_on(script: Any, cli: Cli, tmp_path: Path) -> None:
    script.answer("PublishDraft", errors.WorkflowArchived("orders is archived"))
    answer = await cli("graph", "draft", "publish", W)
    assert answer.returncode == 5
    assert f"`valkyr graph unarchive {W}` puts it back in use" in answer.stderr


async def test_the_audit_is_a_table_of_who_did_what(script: Any, cli: Cli) -> None:
    event = pb.AuditEvent(
        id="e1", workflow_id=W, action="workflow.saved", principal="bob", from_version=6, to_version=7, message="why"
    )
    made = pb.AuditEvent(id="e0", action="modules.registered", principal="ada")
    script.answer("ListAuditEvents", pb.ListAuditEventsResponse(events=[event, made]))
    answer = await cli("graph", "audit", W)
    _, saved, registered = answer.stdout.splitlines()
    for cell in ("workflow.saved", "bob", "6 -> 7", W, "why"):
        assert cell in saved
    assert "modules.registered" in registered
    assert script.requests("ListAuditEvents")[0].workflow_id == W
    document = json.loads((await cli("graph", "audit", "--json")).stdout)
    assert document["events"][0]["toVersion"] == 7
    assert script.requests("ListAuditEvents")[-1].workflow_id == ""


async def test_a_watch_prints_a_line_for_each_change_and_where_it_can_be_resumed(script: Any, cli: Cli) -> None:
    change = pb.WorkflowChange(
        workflow=pb.Workflow(id=W, name="orders", version=7), action="workflow.saved", principal="bob", layout=True
    )
    told = [
        pb.WatchWorkflowsResponse(resume_token="t0"),
        pb.WatchWorkflowsResponse(changes=[change], resume_token="t1"),
    ]
    # What is no change of connections ends a watch.
    script.answer("WatchWorkflows", [*told, errors.InvalidRequest("enough")])
    answer = await cli("graph", "watch", W, "--resume", "t")
    assert answer.returncode == 3
    assert answer.stdout.split() == ["-", "workflow.saved", "orders", "version", "7", "by", "bob", "layout"]
    assert "watching; Ctrl-C ends it" in answer.stderr
    assert f"`valkyr graph watch {W} --resume t1` goes on here" in answer.stderr
    (request,) = script.requests("WatchWorkflows")
    assert (list(request.workflow_ids), request.resume_token) == ([W], "t")
    lines = [json.loads(line) for line in (await cli("graph", "watch", "--json")).stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["resumeToken", "change", "resumeToken"]
    assert lines[1]["change"]["workflow"]["version"] == 7


async def test_a_draft_is_kept_with_its_errors_at_their_lines(script: Any, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(
        f"workflow: {{id: {W}, version: 5}}\nnodes:\n  - nodeId: a\nmodules:\n  - {{nodeId: a, className: X}}\n"
    )
    draft = a_draft(base_version=5, current_version=7)
    script.answer("SaveDraft", pb.SaveDraftResponse(draft=draft, errors=[AN_ERROR]))
    answer = await cli("graph", "draft", "save", str(path), "--revision", "2")
    assert answer.returncode == 0, answer.stderr
    assert f"kept as your draft of orders ({W}), revision 3, begun as version 5; others have saved" in answer.stdout
    assert "1 error to mend before it is published" in answer.stdout
    assert f"{path}:5:5: error BAD_MODULE_DATA" in answer.stderr
    (request,) = script.requests("SaveDraft")
    assert (request.workflow_id, request.base_version, request.revision) == (W, 5, 2)
    assert not request.graph.HasField("workflow")


async def test_what_a_file_does_not_say_of_its_workflow_stays_in_the_draft(
    script: Any, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(f"workflow: {{id: {W}, version: 5, description: new}}\nnodes: []\n")
    script.answer("GetGraph", pb.GetGraphResponse(graph=a_graph(5)))
    script.answer("SaveDraft", pb.SaveDraftResponse(draft=a_draft(base_version=5, current_version=5)))
    await cli("graph", "draft", "save", str(path))
    said = script.requests("SaveDraft")[0].graph.workflow
    assert (said.name, said.description) == ("orders", "new")


async def test_a_file_without_a_version_is_a_draft_of_the_latest_only_if_that_is_yours(
    script: Any, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(f"workflow: {{id: {W}, name: orders}}\nnodes: []\n")
    script.answer("GetDraft", errors.DraftNotFound("you have no draft of it"))
    bobs = pb.ListVersionsResponse(versions=[pb.Version(version=7, author="bob")])
    script.answer("ListVersions", bobs)
    answer = await cli("graph", "draft", "save", str(path), "--principal", "alice")
    assert answer.returncode == 5, answer.stderr
    assert "bob saved version 7 last" in answer.stderr
    assert not script.requests("SaveDraft")

    script.answer("GetGraph", pb.GetGraphResponse(graph=a_graph(7)))
    script.answer("SaveDraft", pb.SaveDraftResponse(draft=a_draft(base_version=7, current_version=7)))
    assert (await cli("graph", "draft", "save", str(path), "--principal", "alice", "--version", "7")).returncode == 0
    (request,) = script.requests("SaveDraft")
    assert request.base_version == 7
    assert request.graph.workflow.description == a_graph(7).workflow.description


async def test_a_file_without_a_version_goes_on_from_where_the_draft_began(
    script: Any, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(f"workflow: {{id: {W}}}\nnodes: []\n")
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft(base_version=5, current_version=7)))
    script.answer("SaveDraft", pb.SaveDraftResponse(draft=a_draft(base_version=5, current_version=7)))
    assert (await cli("graph", "draft", "save", str(path))).returncode == 0
    assert script.requests("SaveDraft")[0].base_version == 5


async def test_a_broken_file_is_refused_before_anybody_is_asked(script: Any, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text("workflow: {name: orders}\nnodes: [{nodeId: a}, {nodeId: a}]\n")
    answer = await cli("graph", "save", str(path))
    assert answer.returncode == 3
    assert "DUPLICATE_NODE_ID" in answer.stderr
    assert not script.requests("FindWorkflows")


async def test_a_draft_of_a_new_workflow_gets_an_id_that_is_told(script: Any, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text("nodes: []\n")
    script.answer("SaveDraft", pb.SaveDraftResponse(draft=a_draft()))
    answer = await cli("graph", "draft", "save", str(path))
    assert "of a workflow that is not published yet" in answer.stdout
    assert f"put `workflow: {{id: {W}}}` into the file" in answer.stderr
    assert script.requests("SaveDraft")[0].workflow_id


async def test_a_draft_is_printed_as_a_file_that_can_be_saved(script: Any, cli: Cli) -> None:
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft(base_version=5, current_version=5)))
    answer = await cli("graph", "draft", "get", W)
    assert answer.stdout == f"workflow:\n  id: {W}\n  name: orders\n  version: 5\nnodes:\n- nodeId: a\n"
    assert "revision 3, begun as version 5, the latest; kept until 2027-01-15" in answer.stderr
    document = json.loads((await cli("graph", "draft", "get", W, "--json")).stdout)["draft"]
    assert (document["revision"], document["graph"]["workflow"]["version"]) == (3, 5)
    assert document["expireTime"].startswith("2027-01-15")


async def test_a_draft_is_thrown_away(script: Any, cli: Cli) -> None:
    script.answer("DiscardDraft", pb.DiscardDraftResponse(), errors.DraftNotFound("you have no draft of it"))
    assert (await cli("graph", "draft", "discard", W)).stdout == f"your draft of {W} is gone\n"
    answer = await cli("graph", "draft", "discard", W)
    assert answer.returncode == 4
    assert "`valkyr graph draft save FILE` keeps one" in answer.stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, f"published orders ({W}) as version 8\n"),
        ({"merged": True}, f"published orders ({W}) as version 8, put together with what others have saved since\n"),
        ({"unchanged": True}, f"unchanged: orders ({W}) says at version 8 what the draft said\n"),
    ],
    ids=["published", "merged", "unchanged"],
)
async def test_publishing_says_what_became_of_the_draft(
    answer: dict[str, bool], said: str, script: Any, cli: Cli
) -> None:
    script.answer("PublishDraft", pb.PublishDraftResponse(graph=a_graph(8), **answer))
    published = await cli("graph", "draft", "publish", W, "-m", "why")
    assert (published.returncode, published.stdout) == (0, said)
    assert script.requests("PublishDraft")[0].message == "why"


async def test_a_draft_that_does_not_go_together_is_5_with_its_conflicts(script: Any, cli: Cli) -> None:
    entry = errors.Disagreement("BOTH_CHANGED", "NODE", "a", "label", None, '"A"', '"B"')
    script.answer("PublishDraft", errors.MergeConflict("no", metadata={"currentVersion": "7"}, disagreements=[entry]))
    answer = await cli("graph", "draft", "publish", W)
    assert answer.returncode == 5
    assert "conflict: node a: both changed label" in answer.stderr
    assert f"the draft is kept: mend what `valkyr graph draft get {W}` prints" in answer.stderr
    as_json = json.loads((await cli("graph", "draft", "publish", W, "--json")).stderr)
    assert as_json["error"]["conflicts"][0]["mine"] == '"B"'


async def test_a_draft_with_errors_is_3_with_its_findings(script: Any, cli: Cli) -> None:
    script.answer("PublishDraft", errors.InvalidGraph("1 error"))
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft(base_version=5, current_version=5)))
    script.answer("ValidateGraph", pb.ValidateGraphResponse(errors=[AN_ERROR]))
    answer = await cli("graph", "draft", "publish", W)
    assert answer.returncode == 3
    assert f"{W}@draft modules[0].config: error BAD_MODULE_DATA: url is missing" in answer.stderr
