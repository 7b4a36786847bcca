"""Places of pages, findings that do not fit, and the settings of the graph store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.chassis.paging import page_token
from services.chassis.settings import SettingsError, load_settings
from services.graph_store import wire
from services.graph_store.model import Author
from services.graph_store.settings import GraphStoreSettings
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest
from valkyr.graph.findings import Code, finding
from valkyr.graph.limits import DEFAULT_LIMITS

ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
URL = {"VALKYR_DATABASE_URL": "postgresql://valkyr@localhost/valkyr"}


def test_tokens_give_back_the_place_they_were_made_of() -> None:
    versions = pb.ListVersionsRequest(workflow_id=ID)
    assert wire.read_version_place(versions) is None
    versions.page_token = page_token(versions, [7])
    assert wire.read_version_place(versions) == 7


def test_a_token_of_another_list_is_refused() -> None:
    versions = pb.ListVersionsRequest(workflow_id=ID)
    versions.page_token = page_token(pb.ListVersionsRequest(workflow_id=ID.replace("a", "b")), [7])
    with pytest.raises(InvalidRequest, match="pageToken"):
        wire.read_version_place(versions)


@pytest.mark.parametrize("place", [[2**31], [2**63 - 1], [0], [-1], [True], [1.5], ["7"], [7, 7], []])
def test_places_that_are_no_version_are_refused(place: list[Any]) -> None:
    versions = pb.ListVersionsRequest(workflow_id=ID)
    versions.page_token = page_token(versions, place)
    with pytest.raises(InvalidRequest, match="pageToken"):
        wire.read_version_place(versions)


def test_every_bad_field_of_a_save_is_named_at_once() -> None:
    request = pb.SaveGraphRequest(
        workflow=pb.Workflow(name="n" * 256, description="\0", labels={"k": "v" * 256}),
        nodes=[pb.Node(node_id="a", priority=1_000)],
        edges=[pb.Edge(edge_id="\0")],
        request_id="r" * 256,
        message="\0",
    )
    with pytest.raises(InvalidRequest) as caught:
        wire.read_save(request, "default", Author("ada"))
    assert sorted(violation.field for violation in caught.value.details.violations) == [
        "edges[0].edgeId",
        "message",
        "nodes[0].priority",
        "requestId",
        "workflow.description",
        "workflow.labels.'k'",
        "workflow.name",
    ]


def test_every_bad_field_of_a_validation_is_named_at_once() -> None:
    request = pb.ValidateGraphRequest(
        workflow=pb.Workflow(name="n" * 256, labels={"": "v"}), nodes=[pb.Node(node_id="a", priority=1_000)]
    )
    with pytest.raises(InvalidRequest) as caught:
        wire.read_graph(request)
    assert [violation.field for violation in caught.value.details.violations] == [
        "nodes[0].priority",
        "workflow.name",
        "workflow.labels.''",
    ]


def test_findings_that_do_not_fit_are_counted() -> None:
    findings = [
        finding(Code.SELF_LOOP, f"edges[{number}]", "x" * 600, "mend", node_ids=("🙂" * 512,))
        for number in range(9_000)
    ]
    answer = wire.write_validation(findings)
    assert answer.ByteSize() <= wire.MAX_FINDING_BYTES + 1_000
    left_out = 9_000 - len(answer.errors) + 1
    assert answer.errors[-1].code == Code.LIMIT_EXCEEDED
    assert answer.errors[-1].message.startswith(f"{left_out:,} more findings")
    few = wire.write_validation(findings[:100])
    assert len(few.errors) == 100


def test_settings_have_the_limits_of_the_validator() -> None:
    settings = load_settings(GraphStoreSettings, section="graph-store", environ=URL)
    assert settings.limits.of_graph() == DEFAULT_LIMITS
    assert settings.server.port == 50051


def test_limits_can_be_set_by_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "valkyr.yaml"
    file.write_text("graph-store:\n  limits: {nodes: 5}\n  requests: {kept: PT1H}\n")
    environ = {**URL, "VALKYR_GRAPH_STORE__LIMITS__ID_CHARS": "7"}
    settings = load_settings(GraphStoreSettings, section="graph-store", environ=environ, config_file=file)
    assert (settings.limits.nodes, settings.limits.id_chars) == (5, 7)
    assert settings.requests.kept.total_seconds() == 3600


def test_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "valkyr.yaml"
    file.write_text("graph-store:\n  limits: {nodes: 0, id-chars: 513}\n  request: {}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(GraphStoreSettings, section="graph-store", environ=URL, config_file=file)
    for part in ("nodes", "id-chars", "request"):
        assert part in str(caught.value)
