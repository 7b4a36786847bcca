"""The findings in forty-one real graphs, held against facts that were computed by other means (index.json)."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from valkyr.graph.document import canonical_bytes, graph_from_canonical, graph_from_document, workflow_from_document
from valkyr.graph.findings import Code, Finding
from valkyr.graph.model import Graph
from valkyr.graph.validate import validate

FOLDER = Path(__file__).parents[2] / "data" / "graphs"
INDEX: list[dict[str, Any]] = orjson.loads((FOLDER / "index.json").read_bytes())["graphs"]
VERDICTS = {
    "cycle": {Code.CYCLE},
    "self-loop": {Code.SELF_LOOP},
    "dangling-edge": {Code.UNKNOWN_NODE},
    "duplicate-node-id": {Code.DUPLICATE_NODE_ID},
    "duplicate-edge-id": {Code.DUPLICATE_EDGE_ID},
    "module-mismatch": {Code.DUPLICATE_MODULE, Code.UNKNOWN_NODE, Code.MISSING_MODULE},
    "isolated-node": {Code.ORPHAN_NODE},
    "parallel-edge": {Code.PARALLEL_EDGE},
    "empty": {Code.EMPTY_GRAPH},
}


def read(entry: dict[str, Any]) -> Graph:
    return graph_from_document(orjson.loads((FOLDER / entry["file"]).read_bytes()))


def of_code(findings: list[Finding], code: Code) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


every_graph = pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"].removesuffix(".json"))


def test_the_graphs_are_there_and_unchanged() -> None:
    assert len(INDEX) == 41
    for entry in INDEX:
        assert hashlib.sha256((FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


@every_graph
def test_the_verdict_is_that_of_the_index(entry: dict[str, Any]) -> None:
    allowed = [VERDICTS[verdict] for verdict in entry["verdict"]]
    found = {finding.code for finding in validate(read(entry))}
    assert all(found & codes for codes in allowed)
    assert found <= set().union(*allowed)


@every_graph
def test_the_numbers_are_those_of_the_index(entry: dict[str, Any]) -> None:
    graph, facts = read(entry), entry["expected"]
    findings = validate(graph)
    codes = Counter(finding.code for finding in findings)
    dangling = {edge_id for finding in of_code(findings, Code.UNKNOWN_NODE) for edge_id in finding.edge_ids}
    assert (len(graph.nodes), len(graph.edges), len(graph.modules)) == (
        facts["n_nodes"],
        facts["n_edges"],
        facts["n_modules"],
    )
    assert (codes[Code.CYCLE] == 0 and codes[Code.SELF_LOOP] == 0) == facts["is_dag"]
    assert codes[Code.SELF_LOOP] == facts["self_loops"]
    assert codes[Code.PARALLEL_EDGE] == facts["parallel_edges"]
    assert len(dangling) == facts["dangling_edges"]
    assert codes[Code.DUPLICATE_NODE_ID] == facts["duplicate_node_ids"]
    assert codes[Code.DUPLICATE_EDGE_ID] == facts["duplicate_edge_ids"]
    assert codes[Code.ORPHAN_NODE] == facts["isolated"]
    assert codes[Code.MISSING_MODULE] == facts["nodes_without_module"]
    assert codes[Code.DUPLICATE_MODULE] == facts["multiple_modules_per_node"]


@every_graph
def test_orphans_and_cycles_are_real_ones(entry: dict[str, Any]) -> None:
    graph, facts = read(entry), entry["expected"]
    findings = validate(graph)
    orphans = {finding.node_ids[0] for finding in of_code(findings, Code.ORPHAN_NODE)}
    assert set(facts["isolated_sample"]) <= orphans
    edges = {edge.edge_id: edge for edge in graph.edges}
    for finding in of_code(findings, Code.CYCLE):
        steps = zip(finding.node_ids, (*finding.node_ids[1:], finding.node_ids[0]), finding.edge_ids, strict=True)
        for source, target, edge_id in steps:
            assert (edges[edge_id].source, edges[edge_id].target) == (source, target)
    if facts["cycle"]:
        assert any(set(facts["cycle"]) & set(finding.node_ids) for finding in of_code(findings, Code.CYCLE))


@every_graph
def test_the_document_says_all_that_the_file_says(entry: dict[str, Any]) -> None:
    file = orjson.loads((FOLDER / entry["file"]).read_bytes())
    graph = graph_from_document(file)
    document = orjson.loads(canonical_bytes(graph))
    assert graph_from_canonical(document) == graph_from_document(document) == graph
    assert workflow_from_document(file).name == (file["workflow"]["name"] or None)
    for kind in ("nodes", "edges", "modules"):
        for item, stored in zip(file[kind], document.get(kind, []), strict=True):
            assert {key: value for key, value in item.items() if value not in ("", None)} == {
                key: value for key, value in stored.items() if value != ""
            }
