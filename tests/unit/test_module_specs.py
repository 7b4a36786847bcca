"""What @module takes of equal runs, and what it refuses where the module is defined."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from valkyr.graph.catalogue import defaults_to_document
from valkyr.graph.model import Dedupe, DedupeScope
from valkyr.module import Context, spec_of
from valkyr.modules.described import described


async def work(context: Context) -> None:
    """Nothing to do."""


@pytest.mark.parametrize(
    ("said", "dedupe"),
    [
        ({}, None),
        ({"dedupe": "workflow"}, Dedupe(DedupeScope.WORKFLOW, timedelta(hours=24))),
        ({"dedupe": "global", "dedupe_ttl": timedelta(days=30)}, Dedupe(DedupeScope.GLOBAL, timedelta(days=30))),
    ],
    ids=["nothing", "a day", "as long as executions are kept"],
)
def test_a_module_says_whether_equal_runs_are_reused_and_for_how_long(
    said: dict[str, Any], dedupe: Dedupe | None
) -> None:
    spec = spec_of("Work", work, **said)
    assert spec.dedupe == dedupe
    assert described(spec).dedupe == dedupe
    assert ("dedupe" in defaults_to_document(described(spec))) is (dedupe is not None)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"dedupe": "node"}, ValueError, "dedupe may be"),
        ({"dedupe_ttl": timedelta(hours=1)}, TypeError, "dedupe_ttl is for modules with dedupe"),
        ({"dedupe": "global", "dedupe_ttl": timedelta()}, ValueError, "dedupe_ttl has to be more than nothing"),
        ({"dedupe": "global", "dedupe_ttl": -timedelta(seconds=1)}, ValueError, "dedupe_ttl has to be more"),
        ({"dedupe": "global", "dedupe_ttl": timedelta(days=30, seconds=1)}, ValueError, "at most 30 days"),
        ({"dedupe": "workflow", "control": True}, TypeError, "not for control nodes"),
    ],
    ids=["a scope that is none", "a time alone", "no time", "less than none", "too long", "a control node"],
)
def test_what_cannot_be_is_refused_where_the_module_is_defined(
    said: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        spec_of("Work", work, **said)
