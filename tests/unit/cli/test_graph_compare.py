"""valkyr graph show, diff and merge: files without any service, versions and drafts as the graph store answers them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from valkyr import errors
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.cli.diff_view import conflicts_text, diff_text
from valkyr.cli.graph_sides import Reference, is_file, reference_of
from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.diff import diff_graphs
from valkyr.graph.model import Graph, Node, WorkflowInfo
from valkyr.graph.parts import Part
from valkyr.rpc.graphs import graph_to_proto

W = "0198c0de-0000-7000-8000-000000000001"
OLD = "workflow: {name: orders, version: 3}\nnodes:\n  - {nodeId: a, label: Old}\n  - {nodeId: b}\n"
NEW = OLD.replace("Old", "New").replace("{nodeId: b}", "{nodeId: c, label: C}")
ADDED_AND_CHANGED = ["@@ node a @@", '-label: "Old"', '+label: "New"', "@@ node b removed @@", "@@ node c added @@"]


def stored(version: int, *labels: str) -> pb.GetGraphResponse:
    nodes = tuple(Node(f"n{number}", label) for number, label in enumerate(labels))
    info = WorkflowInfo(id=W, name="orders", description="what it does", version=version)
    return pb.GetGraphResponse(graph=graph_to_proto(Graph(nodes=nodes), info))


def found_by_name(script: Any) -> None:
    workflow = pb.Workflow(id=W, name="orders", version=7)
    script.answer("FindWorkflows", pb.FindWorkflowsResponse(workflows=[workflow]))


def versions_asked(script: Any) -> list[int]:
    return [request.version for request in script.requests("GetGraph")]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    paths = (tmp_path / "old.yaml", tmp_path / "new.yaml")
    for path, text in zip(paths, (OLD, NEW), strict=True):
        path.write_text(text)
    return str(paths[0]), str(paths[1])


def has_in_order(text: str, lines: Sequence[str]) -> bool:
    rest = iter(text.splitlines())
    return all(any(line == said for said in rest) for line in lines)


async def test_two_files_are_compared_without_any_service(cli: Cli, files: tuple[str, str]) -> None:
    answer = await cli("graph", "diff", *files, VALKYR_GRAPH_STORE="127.0.0.1:1")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[:2] == [f"--- {files[0]}", f"+++ {files[1]}"]
    assert has_in_order(answer.stdout, ADDED_AND_CHANGED)
    assert "\x1b" not in answer.stdout


@pytest.mark.parametrize(
    ("environment", "is_red"),
    [
        ({"FORCE_COLOR": ""}, False),
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}, False),
    ],
    ids=["pipe", "terminal", "NO_COLOR"],
)
async def test_a_diff_has_colours_on_a_terminal_and_none_with_no_color(
    environment: dict[str, str], is_red: bool, cli: Cli, files: tuple[str, str]
) -> None:
    answer = await cli("graph", "diff", *files, **environment)
    assert ("\x1b[31m" in answer.stdout) == is_red
    assert ("\x1b[32m" in answer.stdout) == is_red
    assert '-label: "Old"' in re.sub("\x1b\\[[0-9;]*m", "", answer.stdout).splitlines()


async def test_what_does_not_differ_prints_nothing(cli: Cli, files: tuple[str, str]) -> None:
    answer = await cli("graph", "diff", files[0], files[0])
    assert (answer.returncode, answer.stdout) == (0, "")
    assert answer.stderr.startswith("no difference between ")


async def test_a_diff_as_json_has_every_entry(cli: Cli, files: tuple[str, str]) -> None:
    document = json.loads((await cli("graph", "diff", *files, "--json")).stdout)
    assert [(entry["kind"], entry["part"], entry["id"]) for entry in document["differences"]] == [
        ("CHANGED", "NODE", "a"),
        ("REMOVED", "NODE", "b"),
        ("ADDED", "NODE", "c"),
    ]
    assert document["differences"][0] | {"old": '"Old"', "new": '"New"'} == document["differences"][0]
    assert (document["reordered"], document["layout"]) == ([], False)


async def test_a_workflow_alone_shows_what_its_last_save_has_changed(script: Any, cli: Cli) -> None:
    found_by_name(script)
    script.answer("GetGraph", stored(7, "New"), stored(6, "Old"))
    answer = await cli("graph", "diff", "orders")
    assert answer.stdout.splitlines() == [
        "--- orders@6",
        "+++ orders@7",
        "@@ node n0 @@",
        '-label: "Old"',
        '+label: "New"',
    ]
    assert versions_asked(script) == [0, 6]


async def test_two_versions_are_compared_as_they_are_named(script: Any, cli: Cli) -> None:
    script.answer("GetGraph", stored(3, "Old"), stored(5, "New"))
    answer = await cli("graph", "diff", f"{W}@3", f"{W}@5")
    assert answer.stdout.splitlines()[:2] == ["--- orders@3", "+++ orders@5"]
    assert versions_asked(script) == [3, 5]


async def test_a_first_version_alone_is_all_added(script: Any, cli: Cli) -> None:
    script.answer("GetGraph", stored(1, "A"))
    answer = await cli("graph", "diff", W)
    assert has_in_order(answer.stdout, ["--- nothing", "+++ orders@1", "@@ node n0 added @@"])
    assert versions_asked(script) == [0]


async def test_a_file_alone_is_compared_with_the_version_that_it_was_edited_from(
    script: Any, cli: Cli, files: tuple[str, str]
) -> None:
    found_by_name(script)
    script.answer("GetGraph", stored(3, "Old"))
    answer = await cli("graph", "diff", files[1])
    assert answer.stdout.splitlines()[:2] == ["--- orders@3", f"+++ {files[1]}"]
    assert versions_asked(script) == [3]


async def test_a_draft_alone_is_compared_with_the_version_that_it_began_as(script: Any, cli: Cli) -> None:
    draft = pb.Draft(workflow_id=W, graph=stored(4, "New").graph, base_version=4, current_version=7)
    script.answer("GetDraft", pb.GetDraftResponse(draft=draft))
    script.answer("GetGraph", stored(4, "Old"))
    answer = await cli("graph", "diff", f"{W}@draft")
    assert answer.stdout.splitlines()[:2] == ["--- orders@4", "+++ orders@draft"]
    assert versions_asked(script) == [4]


async def test_a_version_that_is_not_there_is_4_and_says_where_they_are_listed(script: Any, cli: Cli) -> None:
    script.answer("GetGraph", errors.VersionNotFound("workflow orders has no version 9"))
    answer = await cli("graph", "diff", f"{W}@9")
    assert answer.returncode == 4
    assert "`valkyr graph versions" in answer.stderr


async def test_a_file_that_is_no_graph_is_3_with_the_place(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("nodes:\n  - nodeId: 0\n")
    for command in ("show", "diff", "merge"):
        answer = await cli("graph", command, str(bad))
        assert answer.returncode == 3, command
        assert f"{bad}:2:5: error INVALID_FIELD" in answer.stderr


async def test_files_of_two_namespaces_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    names = []
    for namespace in ("shop", "bank"):
        path = tmp_path / f"{namespace}.yaml"
        path.write_text(f"namespace: {namespace}\nnodes: []\n")
        names.append(str(path))
    answer = await cli("graph", "diff", *names)
    assert answer.returncode == 3
    assert "different namespaces: bank, shop" in answer.stderr


async def test_a_graph_is_drawn_from_a_file_and_from_the_store(script: Any, cli: Cli, files: tuple[str, str]) -> None:
    script.answer("GetGraph", stored(3, "Old"))
    of_file = await cli("graph", "show", files[0], VALKYR_GRAPH_STORE="127.0.0.1:1")
    assert "2 nodes" in of_file.stdout
    assert '○ a  "Old"' in of_file.stdout
    of_version = await cli("graph", "show", f"{W}@3")
    assert '○ n0  "Old"' in of_version.stdout
    document = json.loads((await cli("graph", "show", f"{W}@3", "--json")).stdout)
    assert document == {"graph": "orders@3", "lines": of_version.stdout.splitlines()}


async def test_a_graph_that_holds_errors_is_drawn_too(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "loop.json"
    edges = [{"edgeId": "e1", "source": "a", "target": "b"}, {"edgeId": "e2", "source": "b", "target": "a"}]
    path.write_text(json.dumps({"nodes": [{"nodeId": "a"}, {"nodeId": "b"}], "edges": edges}))
    answer = await cli("graph", "show", str(path), "--width", "40")
    assert answer.returncode == 0
    assert "(in a cycle)" in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 40


async def test_a_merge_is_printed_as_a_file_of_the_current_version(
    script: Any, cli: Cli, files: tuple[str, str]
) -> None:
    found_by_name(script)
    script.answer("GetGraph", stored(3, "Old"))
    graph = stored(7, "Old", "Theirs").graph
    script.answer("MergeGraph", pb.MergeGraphResponse(graph=graph, current_version=7, both_moved=["n0"]))
    answer = await cli("graph", "merge", files[1])
    assert answer.returncode == 0, answer.stderr
    assert "version: 7\n" in answer.stdout
    assert "label: Theirs\n" in answer.stdout
    assert "both have moved n0" in answer.stderr
    assert "put together with version 7" in answer.stderr
    (request,) = script.requests("MergeGraph")
    assert (request.workflow_id, request.base_version) == (W, 3)
    assert (request.mine.workflow.name, request.mine.workflow.description) == ("orders", "what it does")


async def test_a_merge_is_written_where_it_is_to_go(script: Any, cli: Cli, files: tuple[str, str]) -> None:
    found_by_name(script)
    script.answer("GetGraph", stored(3, "Old"))
    script.answer("MergeGraph", pb.MergeGraphResponse(graph=stored(7, "Theirs").graph, current_version=7))
    answer = await cli("graph", "merge", files[1], "-o", files[1])
    assert (answer.returncode, answer.stdout) == (0, "")
    assert f"written to {files[1]}: put together with version 7" in answer.stderr
    assert '"Theirs"' in (await cli("graph", "show", files[1])).stdout
    refused = await cli("graph", "merge", files[0], "-o", "/nowhere/at/all.yaml")
    assert refused.returncode == 3
    assert "cannot be written" in refused.stderr


async def test_a_merge_that_makes_an_error_is_3_and_points_into_what_it_printed(
    script: Any, cli: Cli, files: tuple[str, str]
) -> None:
    found_by_name(script)
    script.answer("GetGraph", stored(3, "Old"))
    finding = common_pb2.Finding(
        severity=common_pb2.Finding.ERROR, code="CYCLE", path="nodes[1]", message="a -> b -> a"
    )
    graph = stored(7, "Old", "Theirs").graph
    script.answer("MergeGraph", pb.MergeGraphResponse(graph=graph, errors=[finding], current_version=7))
    answer = await cli("graph", "merge", files[1])
    assert answer.returncode == 3
    line = next(number for number, text in enumerate(answer.stdout.splitlines(), 1) if "nodeId: n1" in text)
    assert f"<merged>:{line}:3: error CYCLE: a -> b -> a" in answer.stderr


async def test_a_merge_with_conflicts_is_5_and_prints_them_all(script: Any, cli: Cli, files: tuple[str, str]) -> None:
    found_by_name(script)
    script.answer("GetGraph", stored(3, "Old"))
    kinds = common_pb2.Conflict
    entry = kinds(
        kind=kinds.BOTH_CHANGED, part=common_pb2.Difference.NODE, id="a", path="label", current='"A"', mine='"B"'
    )
    script.answer("MergeGraph", pb.MergeGraphResponse(conflicts=[entry], total_conflicts=1, current_version=7))
    answer = await cli("graph", "merge", files[1])
    assert (answer.returncode, answer.stdout) == (5, "")
    assert answer.stderr.splitlines()[:4] == [
        "conflict: node a: both changed label",
        "  base     (none)",
        '  current  "A"',
        '  mine     "B"',
    ]
    as_json = await cli("graph", "merge", files[1], "--json")
    assert as_json.returncode == 5
    document = json.loads(as_json.stdout)
    assert (document["graph"], document["totalConflicts"], document["currentVersion"]) == (None, 1, 7)
    assert document["conflicts"][0]["mine"] == '"B"'


async def test_a_merge_of_a_file_that_names_no_version_is_3(script: Any, cli: Cli, tmp_path: Path) -> None:
    found_by_name(script)
    path = tmp_path / "orders.yaml"
    path.write_text("workflow: {name: orders}\nnodes: []\n")
    answer = await cli("graph", "merge", str(path))
    assert answer.returncode == 3
    assert "--base N" in answer.stderr


async def test_a_stale_save_shows_the_diff_and_the_command_that_merges(
    script: Any, cli: Cli, files: tuple[str, str]
) -> None:
    found_by_name(script)
    metadata = {"currentVersion": "7", "editedVersion": "3"}
    changed = errors.Difference("CHANGED", "NODE", "a", "label", '"Old"', '"Theirs"')
    script.answer("SaveGraph", errors.VersionConflict("stale", metadata=metadata, differences=[changed]))
    answer = await cli("graph", "save", files[1])
    assert answer.returncode == 5
    assert has_in_order(
        answer.stderr,
        ["error: stale", "what was changed meanwhile:", "  @@ node a @@", '  -label: "Old"', '  +label: "Theirs"'],
    )
    assert f"`valkyr graph merge {files[1]}` puts both together" in answer.stderr


async def test_a_save_says_that_it_is_tried_again(script: Any, cli: Cli, files: tuple[str, str]) -> None:
    found_by_name(script)
    saved = pb.SaveGraphResponse(workflow=pb.Workflow(id=W, name="orders", version=4))
    script.answer("SaveGraph", errors.Unavailable("the database is away"), saved)
    answer = await cli("graph", "save", files[1])
    assert answer.returncode == 0, answer.stderr
    assert "not saved yet: the database is away; once more in" in answer.stderr
    assert "(try 1 of 3)" in answer.stderr
    first, again = script.requests("SaveGraph")
    assert first == again


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("orders", Reference("orders", "latest")),
        ("orders@3", Reference("orders", "3")),
        ("orders@latest", Reference("orders", "latest")),
        ("orders@draft", Reference("orders", "draft")),
        ("ada@home", Reference("ada@home", "latest")),
        ("ada@home@12", Reference("ada@home", "12")),
        ("orders@0", Reference("orders@0", "latest")),
        ("orders@99999999999", Reference("orders@99999999999", "latest")),
        ("@3", Reference("@3", "latest")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_stands_behind_an_at_is_a_version_only_if_it_looks_like_one(text: str, reference: Reference) -> None:
    assert reference_of(text) == reference


def test_a_side_is_a_file_by_its_suffix_or_its_path(tmp_path: Path) -> None:
    (tmp_path / "orders").write_text("nodes: []\n")
    assert [is_file(text) for text in ("-", "a.yaml", "A.YML", "x/y.json", str(tmp_path / "orders"))] == [True] * 5
    assert [is_file(text) for text in ("orders", "team/orders", "orders@3", "v1.2")] == [False] * 4


def test_a_diff_is_red_and_green_where_there_are_colours() -> None:
    one, other = (Graph(nodes=(Node("a", label),)) for label in ("Old", "New"))
    lines = diff_text(diff_graphs(one, other), old="old", new="new")
    assert [(line.plain, str(line.style)) for line in lines] == [
        ("--- old", "bold"),
        ("+++ new", "bold"),
        ("@@ node a @@", "cyan"),
        ('-label: "Old"', "red"),
        ('+label: "New"', "green"),
    ]


def test_the_sides_of_a_conflict_are_told_apart_by_colour() -> None:
    conflict = Conflict(ConflictKind.BOTH_CHANGED, Part.NODE, "a", "label", "A", "B", "C")
    assert [str(line.style) for line in conflicts_text([conflict])] == ["bold", "dim", "yellow", "green"]
