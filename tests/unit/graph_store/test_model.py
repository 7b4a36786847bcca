"""Which version a save may follow, and which rows it changes."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.graph_store.model import (
    Author,
    RowIds,
    StoredWorkflow,
    check_edited_version,
    is_repeated,
    is_unchanged,
    row_changes,
)
from valkyr.errors import VersionConflict, VersionRequired
from valkyr.graph.model import WorkflowInfo

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORED = StoredWorkflow("default", "id", "name", "about", {"k": "v"}, 3, "hash", NOW, NOW, saved_by="ada")


def test_only_the_stored_version_may_be_followed() -> None:
    check_edited_version(STORED, 3)
    with pytest.raises(VersionRequired):
        check_edited_version(STORED, None)
    for stale in (1, 2, 4):
        with pytest.raises(VersionConflict) as conflict:
            check_edited_version(STORED, stale)
        assert conflict.value.current_version == 3


@pytest.mark.parametrize(
    ("wanted", "content_hash", "unchanged"),
    [
        (WorkflowInfo(None, "name", "about", {"k": "v"}), "hash", True),
        (WorkflowInfo(None, None, "about", {"k": "v"}), "hash", True),
        (WorkflowInfo(None, "name", "about", {"k": "v"}), "other", False),
        (WorkflowInfo(None, "other", "about", {"k": "v"}), "hash", False),
        (WorkflowInfo(None, "name", "", {"k": "v"}), "hash", False),
        (WorkflowInfo(None, "name", "about", {}), "hash", False),
    ],
)
def test_unchanged_is_what_says_nothing_new(wanted: WorkflowInfo, content_hash: str, unchanged: bool) -> None:
    assert is_unchanged(STORED, wanted, content_hash) is unchanged


@pytest.mark.parametrize(
    ("edited", "principal", "repeated"),
    [(2, "ada", True), (2, "bob", False), (3, "ada", False), (1, "ada", False), (None, "ada", False)],
)
def test_a_repeated_save_edited_the_version_before_and_comes_from_the_same_author(
    edited: int | None, principal: str, repeated: bool
) -> None:
    assert is_repeated(STORED, WorkflowInfo(None, "name", version=edited), Author(principal)) is repeated


def document(nodes: dict[str, Any], edges: dict[str, Any], modules: dict[str, Any]) -> dict[str, Any]:
    return {
        "nodes": [{"nodeId": key, "label": value} for key, value in nodes.items()],
        "edges": [{"edgeId": key, "source": value, "target": value} for key, value in edges.items()],
        "modules": [{"nodeId": key, "className": "M", "config": {"x": value}} for key, value in modules.items()],
    }


KEYS = st.sampled_from("abcdef")
PARTS = st.dictionaries(KEYS, st.sampled_from("xyz"), max_size=6)
CONFIGS = st.dictionaries(KEYS, st.sampled_from([0, 1, True, False, 1.5, None]), max_size=6)


@settings(max_examples=200, deadline=None)
@given(*[st.tuples(PARTS, PARTS, CONFIGS)] * 2)
def test_applying_the_changes_to_the_old_rows_gives_the_new_ones(old: Any, new: Any) -> None:
    numbers = itertools.count()
    before = row_changes({}, RowIds(), document(*old), new_id=lambda: f"id{next(numbers)}")
    after = row_changes(document(*old), before.ids, document(*new), new_id=lambda: f"id{next(numbers)}")
    for kind, key, old_ids, new_ids in (
        ("nodes", "nodeId", before.ids.tasks, after.ids.tasks),
        ("edges", "edgeId", before.ids.connections, after.ids.connections),
        ("modules", "nodeId", before.ids.modules, after.ids.modules),
    ):
        changes = {"nodes": after.tasks, "edges": after.connections, "modules": after.modules}[kind]
        rows = dict(zip(old_ids, document(*old)[kind], strict=True))
        by_key = {item[key]: row_id for row_id, item in rows.items()}
        for row_id in changes.deleted:
            del rows[row_id]
        assert rows.keys().isdisjoint(row_id for row_id, _ in changes.inserted)
        assert all(repr(rows[row_id]) != repr(item) for row_id, item in changes.updated)
        rows.update(changes.inserted)
        rows.update(changes.updated)
        expected = dict(zip(new_ids, document(*new)[kind], strict=True))
        assert {row_id: repr(item) for row_id, item in rows.items()} == {
            row_id: repr(item) for row_id, item in expected.items()
        }
        assert all(by_key.get(item[key], row_id) == row_id for row_id, item in expected.items())
