"""Reading graph files: every problem at its line, whatever it is."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from valkyr.cli.graph_files import BadGraphFile, place, read_graph_file
from valkyr.graph.validate import validate

GOOD = """workflow:
  name: orders
  version: 3
nodes:
  - nodeId: a
  - nodeId: b
edges:
  - {edgeId: e, source: a, target: nowhere}
"""


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def problems_of(name: str) -> list[tuple[int, int, str]]:
    with pytest.raises(BadGraphFile) as caught:
        read_graph_file(name)
    return [(*found.position, found.finding.code) for found in caught.value.problems]


def test_a_file_gives_workflow_and_graph(tmp_path: Path) -> None:
    graph_file = read_graph_file(written(tmp_path, "orders.yaml", GOOD))
    assert graph_file.workflow.name == "orders"
    assert graph_file.workflow.version == 3
    assert [node.node_id for node in graph_file.graph.nodes] == ["a", "b"]


def test_a_finding_is_put_at_its_line(tmp_path: Path) -> None:
    graph_file = read_graph_file(written(tmp_path, "orders.yaml", GOOD))
    (finding,) = [finding for finding in validate(graph_file.graph) if finding.is_error]
    placed = place(graph_file.document, finding)
    assert finding.path == "edges[0].target"
    assert (placed.source, *placed.position) == (str(tmp_path / "orders.yaml"), 8, 28)


def test_every_bad_field_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = "nodes:\n  - nodeId: 0\n  - nodeId: b\n    colour: red\nedgs: []\n"
    assert sorted(problems_of(written(tmp_path, "bad.yaml", text))) == [
        (2, 5, "INVALID_FIELD"),
        (4, 5, "INVALID_FIELD"),
        (5, 1, "INVALID_FIELD"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("list.yaml", "- a\n", (1, 1, "SYNTAX")),
        ("empty.yaml", "", (1, 1, "SYNTAX")),
        ("comment.yaml", "# nothing\n", (1, 1, "SYNTAX")),
        ("latin1.yaml", "a: 1\nb: é\n".encode("latin-1"), (2, 1, "SYNTAX")),
        ("text.json", '"just text"', (1, 1, "SYNTAX")),
        ("broken.json", "{", (1, 2, "SYNTAX")),
    ],
)
def test_what_is_no_graph_file_says_so(
    name: str, content: str | bytes, problem: tuple[int, int, str], tmp_path: Path
) -> None:
    assert problems_of(written(tmp_path, name, content)) == [problem]


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadGraphFile) as caught:
        read_graph_file(str(tmp_path / "none.yaml"))
    assert "No such file" in caught.value.problems[0].finding.message


def test_a_file_beyond_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    assert problems_of(written(tmp_path, "big.yaml", b"#" * (17 * 2**20))) == [(1, 1, "LIMIT_EXCEEDED")]


@pytest.mark.parametrize("content", ['{"nodes": [{"nodeId": "a"}]}', "nodes: [{nodeId: a}]"], ids=["json", "yaml"])
def test_standard_input_is_json_or_yaml_by_its_look(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + content.encode())))
    assert read_graph_file("-").graph.nodes[0].node_id == "a"
