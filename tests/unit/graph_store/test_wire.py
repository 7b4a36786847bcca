"""Pages, tokens, findings that do not fit, and the settings of the graph store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.settings import SettingsError, load_settings
from services.graph_store import pages, wire
from services.graph_store.settings import GraphStoreSettings
from valkyr.errors import InvalidRequest
from valkyr.graph.findings import Code, finding
from valkyr.graph.limits import DEFAULT_LIMITS

ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
URL = {"VALKYR_DATABASE_URL": "postgresql://valkyr@localhost/valkyr"}


@pytest.mark.parametrize(("given_", "size"), [(0, 100), (1, 1), (1_000, 1_000)])
def test_page_sizes_within_bounds(given_: int, size: int) -> None:
    assert pages.page_size_of(given_) == size


@pytest.mark.parametrize("size", [-1, 1_001, 2**31 - 1])
def test_page_sizes_out_of_bounds(size: int) -> None:
    with pytest.raises(InvalidRequest, match="pageSize"):
        pages.page_size_of(size)


def test_tokens_give_back_the_place_they_were_made_of() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert pages.read_version_token(pages.version_token(7)) == 7
    assert pages.read_workflow_token(pages.workflow_token(moment, ID)) == (moment, ID)
    assert pages.read_version_token("") is None
    assert pages.read_workflow_token("") is None
    with pytest.raises(InvalidRequest, match="pageToken"):
        pages.read_version_token(pages.workflow_token(moment, ID))


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda data: pages._encode([data.hex()])))
def test_tokens_from_elsewhere_are_refused_and_crash_nothing(token: str) -> None:
    for read in (pages.read_version_token, pages.read_workflow_token):
        if token:
            with pytest.raises(InvalidRequest, match="pageToken"):
                read(token)


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
