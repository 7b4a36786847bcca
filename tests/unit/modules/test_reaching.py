"""Where calls may go, from an operator's settings to what the modules read."""

from __future__ import annotations

import pytest

from services.executor.parts import _module_settings
from services.executor.settings import RunnerSettings
from valkyr.modules import EmailRules, GrpcRules, HttpRules, reaching


def test_each_kind_of_call_has_settings_of_its_own() -> None:
    said = {
        "http": {"allow-hosts": "A.test"},
        "grpc": {"allow-hosts": "B.test:443, c.test", "allow-networks": ["10.1.0.0/16"]},
        "email": {"credentials-folder": "/etc/mail"},
    }
    assert _module_settings(RunnerSettings.model_validate(said)) == {
        "http": HttpRules(frozenset({"a.test"})),
        "grpc": GrpcRules(frozenset({"b.test:443", "c.test"}), ("10.1.0.0/16",)),
        "email": EmailRules(credentials_folder="/etc/mail"),
    }


def test_a_runner_says_it_once_for_all() -> None:
    settings = reaching(["A.test"], ["10.1.0.0/16"], "/etc/mail")
    assert {(rules.allow_hosts, rules.allow_networks) for rules in settings.values()} == {
        (frozenset({"a.test"}), ("10.1.0.0/16",))
    }
    assert settings["email"].credentials_folder == "/etc/mail"
    with pytest.raises(ValueError, match="nonsense"):
        reaching(allow_networks=["nonsense"])
