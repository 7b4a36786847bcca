"""What a catalogue says of modules: put where nodes say nothing, read from files and written again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from valkyr.errors import InvalidRequest
from valkyr.graph.catalogue import (
    CatalogueModule,
    defaults_to_document,
    module_from_defaults,
    modules_from_document,
    with_defaults,
)
from valkyr.graph.model import Dedupe, DedupeScope, Graph, Module, Node, Retry, Settings

SECOND = timedelta(seconds=1)
RETRY = Retry(max_attempts=7, backoff_base=SECOND, backoff_max=60 * SECOND)
DEDUPE = Dedupe(DedupeScope.GLOBAL, 60 * SECOND)
SAID = CatalogueModule("Mine", pool="gpu", target="http:mine", retry=RETRY, timeout=9 * SECOND, dedupe=DEDUPE)


def graph_of(node: Node, *, target: str = "", default_retry: Retry | None = None) -> Graph:
    module = Module("a", "Mine", config={}, target=target)
    return Graph((node,), modules=(module,), settings=Settings(default_retry=default_retry))


def test_a_node_that_says_nothing_gets_what_its_module_says() -> None:
    found = with_defaults(graph_of(Node("a")), {"Mine": SAID})
    assert found.nodes == (Node("a", pool="gpu", timeout=9 * SECOND, retry=RETRY),)
    assert found.modules[0].target == "http:mine"


@pytest.mark.parametrize(
    ("node", "kept"),
    [
        (Node("a", pool="mine"), {"pool": "mine"}),
        (Node("a", timeout=SECOND), {"timeout": SECOND}),
        (Node("a", retry=Retry(2)), {"retry": replace(RETRY, max_attempts=2)}),
        (Node("a", retry=Retry(2, timedelta(), timedelta())), {"retry": Retry(2, timedelta(), timedelta())}),
        (Node("a", deadline=SECOND, priority=3), {"deadline": SECOND, "priority": 3}),
    ],
    ids=["pool", "timeout", "attempts", "retry", "what modules have no say in"],
)
def test_what_a_node_says_stands(node: Node, kept: dict[str, Any]) -> None:
    expected = replace(Node("a", pool="gpu", timeout=9 * SECOND, retry=RETRY), **kept)
    assert with_defaults(graph_of(node), {"Mine": SAID}).nodes == (expected,)


def test_what_a_graph_says_of_all_its_nodes_goes_before_what_a_module_says() -> None:
    said = graph_of(Node("a", retry=Retry(backoff_base=2 * SECOND)), default_retry=Retry(3, 5 * SECOND))
    assert with_defaults(said, {"Mine": SAID}).nodes[0].retry == Retry(3, 2 * SECOND, 60 * SECOND)


def test_a_target_of_the_graph_stands() -> None:
    assert with_defaults(graph_of(Node("a"), target="http:its"), {"Mine": SAID}).modules[0].target == "http:its"


def test_where_no_module_says_anything_the_graph_is_the_same() -> None:
    graph = a_graph("a -> b", modules={"a": "Other", "b": None})
    assert with_defaults(graph, {"Mine": SAID}) is graph
    assert with_defaults(graph_of(Node("a")), {"Mine": CatalogueModule("Mine")}) == graph_of(Node("a"))


@pytest.mark.parametrize(
    "module",
    [
        SAID,
        CatalogueModule("Mine"),
        CatalogueModule("Mine", retry=Retry(backoff_max=timedelta(milliseconds=1500))),
        CatalogueModule("Mine", pool="p"),
        CatalogueModule("Mine", dedupe=Dedupe(DedupeScope.WORKFLOW)),
    ],
    ids=["all", "nothing", "a part of a second", "one", "dedupe"],
)
def test_defaults_are_read_as_they_were_written(module: CatalogueModule) -> None:
    assert module_from_defaults("Mine", defaults_to_document(module)) == module


def test_a_file_names_modules_or_is_the_list_of_them() -> None:
    said = {"className": "Mine", "pool": "gpu", "target": "http:mine", "timeout": "PT9S"}
    retry = {"maxAttempts": 7, "backoffBaseDelay": "1s", "backoffMaxDelay": "PT1M"}
    document = [{**said, "retry": retry, "dedupe": {"scope": "GLOBAL", "ttl": "PT1M"}}]
    assert modules_from_document(document) == modules_from_document({"modules": document}) == [SAID]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "modules"),
        ({"modules": []}, "modules"),
        ({"modules": ["Mine"]}, "modules[0]"),
        ({"modules": [{"className": 5}]}, "modules[0].className"),
        ({"modules": [{"className": "M", "confgSchema": {}}]}, "modules[0].confgSchema"),
        ({"modules": [{"className": "M", "timeout": "soon"}]}, "modules[0].timeout"),
        ({"modules": [{"className": "M", "retry": {"maxAttempts": 0}}]}, "modules[0].retry.maxAttempts"),
        ({"modules": [{"className": "M", "dedupe": "GLOBAL"}]}, "modules[0].dedupe"),
        ({"modules": [{"className": "M", "dedupe": {"ttl": "1s"}}]}, "modules[0].dedupe.scope"),
        ({"modules": [{"className": "M", "dedupe": {"scope": "ALL"}}]}, "modules[0].dedupe.scope"),
        ({"modules": [{"className": "M", "dedupe": {"scope": "GLOBAL", "ttl": "0s"}}]}, "modules[0].dedupe.ttl"),
        ({"modules": [{"className": "M", "dedupe": {"scope": "GLOBAL", "ttl": "P31D"}}]}, "modules[0].dedupe.ttl"),
        ({"modules": [{"className": "M", "dedupe": {"scope": "GLOBAL", "for": "1s"}}]}, "modules[0].dedupe.for"),
        ({"module": []}, "module"),
        ("Mine", "modules"),
        (None, "modules"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_read_is_refused_with_its_path(document: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        modules_from_document(document)
    assert caught.value.details.violations[0].field == path
