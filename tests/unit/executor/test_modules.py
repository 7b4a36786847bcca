"""What modules say about runs of theirs: what they call, how often they are tried again, and whose word counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.executor.modules import MAX_TARGET, Modules
from tests.builders import a_graph
from tests.unit.executor.executions import POLICY
from valkyr.flow.plan import PlannedNode
from valkyr.graph.model import Graph, Module, Retry, Settings
from valkyr.module import ModuleSpec
from valkyr.modules import builtin_modules
from valkyr.planning import compiled

NOOP = builtin_modules()["NoopModule"]


def modules(**changes: Any) -> Modules:
    """One class, `Calls`."""
    spec: ModuleSpec = replace(NOOP, class_name="Calls", **changes)
    return Modules({"Calls": spec}, POLICY)


def calling(class_name: str = "Calls", target: str = "", config: Mapping[str, Any] | None = None) -> Graph:
    return a_graph("a", modules={"a": Module("a", class_name, config=config or {}, target=target)})


def node_of(graph: Graph, known: Modules) -> PlannedNode:
    return compiled.plan_of(graph, known.target_before, known.dedupe_of).nodes[0]


def by_host(config: Mapping[str, Any]) -> str | None:
    return config.get("host")


@pytest.mark.parametrize(
    ("changes", "graph", "before", "after"),
    [
        pytest.param({}, calling(), "", "", id="nobody says anything"),
        pytest.param({"target": "own"}, calling(), "own", "own", id="the module's own"),
        pytest.param({"target": "own"}, calling(target="mine"), "mine", "mine", id="the node's counts first"),
        pytest.param({}, calling("Unknown", target="mine"), "mine", "mine", id="a class that is not known here"),
        pytest.param({"target": "own"}, calling("Unknown"), "", "", id="a class that says nothing"),
        pytest.param({"target_of": by_host}, calling(config={"host": "h"}), "h", "h", id="by a constant config"),
        pytest.param({"target_of": by_host}, calling(config={"host": "${trigger}"}), "", "x", id="by a resolved one"),
        pytest.param({"target_of": by_host}, calling(config={}), "", "x", id="a config that names none"),
        pytest.param(
            {"target_of": by_host}, calling(target="mine", config={"host": "h"}), "mine", "mine", id="the node over all"
        ),
    ],
)
def test_a_target_is_what_the_node_says_else_its_module(
    changes: dict[str, Any], graph: Graph, before: str, after: str
) -> None:
    known = modules(**changes)
    node = node_of(graph, known)
    assert node.target == before
    assert known.target_of(node, b'{"host": "x"}') == after


def _raises(_config: Mapping[str, Any]) -> str:
    raise RuntimeError("code of others")


@pytest.mark.parametrize(
    ("target_of", "config", "expected"),
    [
        pytest.param(_raises, b"{}", "", id="raises"),
        pytest.param(lambda config: None, b"{}", "", id="none"),
        pytest.param(lambda config: config["nothing"], b"{}", "", id="a key that is missing"),
        pytest.param(lambda config: "t", b"[1]", "", id="a config that is no object"),
        pytest.param(lambda config: 7, b"{}", "", id="no text"),
        pytest.param(lambda config: "a\0b", b"{}", "", id="text with NUL"),
        pytest.param(lambda config: "half \ud83d", b"{}", "", id="half of a pair"),
        pytest.param(lambda config: "x" * 9_999, b"{}", "x" * MAX_TARGET, id="too long"),
    ],
)
def test_whatever_code_of_others_does_means_at_worst_that_there_is_no_target(
    target_of: Callable[[Any], Any], config: bytes, expected: str
) -> None:
    known = modules(target_of=target_of)
    node = replace(node_of(calling(), modules()), target="")
    assert known.target_of(node, config) == expected


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("node", "graph", "module", "expected"),
    [
        (None, None, None, 3),
        (None, None, 6, 6),
        (None, 5, 6, 5),
        (4, 5, 6, 4),
        (4, None, 6, 4),
    ],
    ids=["settings", "module", "graph", "node", "node over module"],
)
def test_the_nearest_word_on_retries_counts(
    node: int | None, graph: int | None, module: int | None, expected: int
) -> None:
    def said(attempts: int | None) -> Retry | None:
        return None if attempts is None else Retry(max_attempts=attempts)

    known = modules(retry=said(module))
    planned = replace(node_of(calling(), known), retry=said(node))
    policy = known.retry_of(planned, Settings(default_retry=said(graph)))
    assert (policy.max_attempts, policy.max_lost_leases) == (expected, POLICY.max_lost_leases)


def test_each_field_of_a_retry_is_looked_for_by_itself() -> None:
    known = modules(retry=Retry(6, 3 * SECOND, 9 * SECOND))
    planned = replace(node_of(calling(), known), retry=Retry(backoff_base=2 * SECOND))
    policy = known.retry_of(planned, Settings(default_retry=Retry(max_attempts=5)))
    assert (policy.max_attempts, policy.backoff_base, policy.backoff_max) == (5, 2 * SECOND, 9 * SECOND)


def test_a_class_that_nobody_here_knows_is_tried_again_by_the_settings() -> None:
    known = modules(retry=Retry(max_attempts=6))
    node = node_of(calling("Unknown"), known)
    assert known.retry_of(node, Settings()) == POLICY
