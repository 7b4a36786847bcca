"""The executor's settings, as its operators write them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from services.chassis.settings import SettingsError, load_settings
from services.executor.settings import ExecutorSettings
from services.graph_store.settings import GraphStoreSettings

DOCUMENTED = """
executor:
  execution: {enabled: true, track-metrics: true}
  runner:
    id: ${RUNNER_ID}          # unset: made once and kept in VALKYR_HOME (own pool); a fresh UUID (other runners)
    concurrency: 10
    poll-interval: PT5S       # upper bound on noticing work; normally a wake-up comes first
    lease: {duration: PT2M, heartbeat-interval: PT2S}
    retry: {max-attempts: 3, backoff-base-ms: 1000, backoff-max-ms: 30000}
    zombie-reaper: {enabled: true, scan-interval: PT30S}
breaker: {enabled: true, failure-threshold: 5, timeout-duration: PT30S, half-open-success-threshold: 2}
"""


def load(yaml: str, folder: Path, **environ: str) -> ExecutorSettings:
    file = folder / "valkyr.yaml"
    file.write_text(yaml)
    environ.setdefault("VALKYR_DATABASE_URL", "postgresql://valkyr@127.0.0.1/valkyr")
    return load_settings(ExecutorSettings, section="executor", environ=environ, config_file=file)


def test_the_documented_settings_are_the_defaults_and_read_by_every_service(tmp_path: Path) -> None:
    settings = load(DOCUMENTED, tmp_path)
    assert settings == load("", tmp_path)
    assert settings.runner.lease.duration == timedelta(minutes=2)
    environ = {"VALKYR_DATABASE_URL": settings.database.url, "VALKYR_CONFIG": str(tmp_path / "valkyr.yaml")}
    (tmp_path / "valkyr.yaml").write_text(DOCUMENTED)
    assert load_settings(GraphStoreSettings, section="graph-store", environ=environ).server.port == 50051


def test_networks_intervals_and_modules_that_cannot_work_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "valkyr_broken_module.py").write_text("1 / 0")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(SettingsError) as caught:
            load(
                "executor: {runner: {poll-interval: PT0S, zombie-reaper: {scan-interval: PT0.01S}}}",
                tmp_path,
                VALKYR_EXECUTOR__RUNNER__HTTP__ALLOW_NETWORKS="10.0.0.0/8, 10.1.0.5/16",
                VALKYR_EXECUTOR__RUNNER__MODULES="json, valkyr_broken_module",
            )
    said = str(caught.value)
    for words in (
        "4 settings are wrong",
        "poll-interval: 'PT0S' - takes at least PT0.1S",
        "scan-interval: 'PT0.01S' - takes at least PT0.1S",
        "10.1.0.5/16 has host bits set",
        "valkyr_broken_module cannot be imported: ZeroDivisionError",
        "beside the Makefile, or its folder on PYTHONPATH",
    ):
        assert words in said


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere_at_all cannot be imported: No module named 'nowhere_at_all'"):
        load("executor: {runner: {modules: [nowhere_at_all]}}", tmp_path)


def test_requests_are_remembered_for_an_hour_at_least(tmp_path: Path) -> None:
    assert load("executor: {requests: {kept: PT1H}}", tmp_path).requests.kept == timedelta(hours=1)
    with pytest.raises(SettingsError, match=r"requests\.kept: 'PT59M59S' - takes at least PT1H: .* carried out twice"):
        load("executor: {requests: {kept: PT59M59S}}", tmp_path)
