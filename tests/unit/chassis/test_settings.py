"""Settings: where they come from, and how everything wrong with them is said at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from services.chassis.settings import (
    Duration,
    RoomSettings,
    SettingsError,
    SettingsModel,
    StringList,
    load_settings,
)

URL = "postgresql://valkyr:secret@127.0.0.1/valkyr"


class RunnerSettings(SettingsModel):
    id: str | None = None
    concurrency: int = 10
    lease: Duration = timedelta(minutes=2)
    allowed: StringList = ()


class ToySettings(RoomSettings):
    runner: RunnerSettings = RunnerSettings()


def load(yaml: str | None = None, folder: Path | None = None, **environ: str) -> ToySettings:
    file = None
    if yaml is not None and folder is not None:
        file = folder / "valkyr.yaml"
        file.write_text(yaml)
    environ.setdefault("VALKYR_DATABASE_URL", URL)
    return load_settings(ToySettings, section="executor", environ=environ, config_file=file)


def test_without_any_settings_but_the_database_everything_has_its_default() -> None:
    settings = load()
    assert settings.server.host == "127.0.0.1"
    assert settings.server.port == 50052
    assert not settings.server.insecure
    assert settings.runner.lease == timedelta(minutes=2)


def test_the_environment_wins_over_the_file_and_the_room_over_the_common_section(tmp_path: Path) -> None:
    settings = load(
        """
        database: {pool-size: 7, lock-timeout: PT3S}
        executor:
          database: {pool-size: 8}
          runner: {concurrency: 3, allowed: [a, b]}
        graph-store: {anything: goes}
        """,
        tmp_path,
        VALKYR_EXECUTOR__RUNNER__CONCURRENCY="4",
        VALKYR_EXECUTOR__RUNNER__LEASE="PT1M30S",
        VALKYR_GRAPH_STORE__ANYTHING="goes",
    )
    assert settings.database.pool_size == 8
    assert settings.database.lock_timeout == timedelta(seconds=3)
    assert settings.runner.concurrency == 4
    assert settings.runner.lease == timedelta(seconds=90)
    assert settings.runner.allowed == ("a", "b")


def test_a_list_is_comma_separated_in_the_environment() -> None:
    assert load(VALKYR_EXECUTOR__RUNNER__ALLOWED="a, b,").runner.allowed == ("a", "b")


def test_the_port_base_moves_the_port_and_home_moves_the_data() -> None:
    settings = load(VALKYR_PORT_BASE="6000", VALKYR_HOME="/data")
    assert settings.server.port == 6001
    assert settings.home == Path("/data")


@pytest.mark.parametrize(("environ", "expected"), [({"RUNNER_ID": "r1"}, "r1"), ({}, None)], ids=["set", "unset"])
def test_a_variable_named_in_the_file_is_filled_in_or_left_out(
    tmp_path: Path, environ: dict[str, str], expected: str | None
) -> None:
    assert load("executor: {runner: {id: '${RUNNER_ID}'}}", tmp_path, **environ).runner.id == expected


def test_a_variable_named_in_the_file_may_have_a_default(tmp_path: Path) -> None:
    assert load("executor: {runner: {id: '${RUNNER_ID:fallback}'}}", tmp_path).runner.id == "fallback"


def test_every_bad_key_and_every_unknown_variable_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            "executor: {runner: {concurency: 1, lease: P1M}}\nexecuter: {}\ntelemetry: 7",
            tmp_path,
            VALKYR_SERVER__PORT="many",
            VALKYR_DATABASE__LOCK_TIMEOUT="-PT1S",
            VALKYR_EXECUTOR__NO="1",
            VALKYR_EXECUTER__RUNNER__ID="1",
            VALKYR_PORTBASE="1",
            VALKYR_PORT_BASE="99999",
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "10 settings are wrong:"
    for key, hint in {
        "executor.runner.concurency:": "did you mean concurrency?",
        "executor.runner.lease:": "no duration",
        "executer:": "did you mean executor?",
        "telemetry:": "takes a mapping, not 7",
        "server.port (from VALKYR_SERVER__PORT):": "integer",
        "database.lock-timeout (from VALKYR_DATABASE__LOCK_TIMEOUT):": "no duration",
        "executor.no (from VALKYR_EXECUTOR__NO):": "unknown key",
        "VALKYR_EXECUTER__RUNNER__ID:": "unknown variable",
        "VALKYR_PORTBASE:": "did you mean VALKYR_PORT_BASE?",
        "VALKYR_PORT_BASE:": "takes a number from 1 to",
    }.items():
        assert any(key in line and hint in line for line in lines[1:]), (key, hint, lines)


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "postgresql:///d", "h:5432/d", ""])
def test_a_database_url_that_cannot_work_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"database\.url") as caught:
        load(VALKYR_DATABASE_URL=url)
    assert "secret" not in str(caught.value)


def test_a_missing_database_url_says_how_to_give_it() -> None:
    with pytest.raises(SettingsError, match="set VALKYR_DATABASE_URL"):
        load_settings(ToySettings, section="executor", environ={})


def test_a_unix_socket_will_do() -> None:
    assert load(VALKYR_DATABASE_URL="postgresql://u@/d?host=/tmp").database.url.endswith("/tmp")


@pytest.mark.parametrize("yaml", ["a: [", "- a", "a: 1\na: 2", "\x00"], ids=["open", "list", "twice", "binary"])
def test_a_file_that_is_no_yaml_mapping_is_named(tmp_path: Path, yaml: str) -> None:
    with pytest.raises(SettingsError, match=r"valkyr\.yaml"):
        load(yaml, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        load(VALKYR_CONFIG=str(tmp_path / "nowhere.yaml"))


def test_settings_shown_do_not_show_the_password() -> None:
    assert "secret" not in repr(load())


@pytest.mark.parametrize("shape", ["5", "[1]", "text"])
def test_a_section_that_is_no_mapping_hides_no_other_problem(tmp_path: Path, shape: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(f"executor: {shape}\ngraph-store: {shape}\ntelemetry: {{level: x}}", tmp_path, VALKYR_FOO="1")
    said = [problem.split(":")[0] for problem in caught.value.problems]
    assert said == ["executor", "graph-store", "VALKYR_FOO", "telemetry.level"]


def test_a_host_that_others_can_reach_needs_insecure() -> None:
    assert not load(VALKYR_SERVER__HOST="0.0.0.0", VALKYR_SERVER__INSECURE="true").server.is_loopback
    with pytest.raises(SettingsError, match=r"server\.host .*VALKYR_SERVER__HOST.*neither encrypted.*--insecure"):
        load(VALKYR_SERVER__HOST="0.0.0.0")


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("STATEMENT_TIMEOUT", "PT0S", "PT0.1S to PT1H"),
        ("LOCK_TIMEOUT", "PT2H", "PT0.1S to PT1H"),
        ("IDLE_IN_TRANSACTION_TIMEOUT", "P1D", "PT0.1S to PT1H"),
        ("ACQUIRE_TIMEOUT", "PT0.01S", "PT0.1S to PT1H"),
    ],
)
def test_timeouts_of_the_database_have_bounds(key: str, value: str, takes: str) -> None:
    with pytest.raises(SettingsError, match=takes):
        load(None, None, **{f"VALKYR_DATABASE__{key}": value})


def test_the_short_form_of_the_database_url_is_for_whoever_has_no_url_of_its_own() -> None:
    other = URL.replace("/valkyr", "/other")
    assert load(VALKYR_GRAPH_STORE__DATABASE__URL=other).database.url == URL
    assert load(VALKYR_EXECUTOR__DATABASE__URL=other).database.url == other
    assert load(VALKYR_DATABASE__URL=other).database.url == other
