"""The rendered overlays, built once per worker; each test that changes one has a copy of its own."""

from __future__ import annotations

import copy
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest

from deploy.checks.rendered import OVERLAYS, Rendered, render


@cache
def _built(overlay: str) -> Rendered:
    if not (Path(sys.executable).parent / "kubectl").exists() and shutil.which("kubectl") is None:
        pytest.skip("there is no wheel of kubectl for this system, and none on the PATH")
    return render(overlay)


def a_copy(overlay: str) -> Rendered:
    """To be broken."""
    return copy.deepcopy(_built(overlay))


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Every overlay in turn."""
    return a_copy(request.param)


@pytest.fixture
def prod() -> Rendered:
    return a_copy("prod")


@pytest.fixture
def dev() -> Rendered:
    return a_copy("dev")
