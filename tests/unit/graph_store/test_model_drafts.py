"""What is decided about drafts: whether a revision is stale, whether a save was sent before, what a draft begins as."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.graph_store.model import Author, CorruptVersion, StoredWorkflow
from services.graph_store.model_drafts import (
    Draft,
    DraftKey,
    DraftRow,
    SaveDraftCommand,
    base_of,
    check_in_use,
    check_revision,
    graph_of_draft,
    is_same_draft,
)
from tests.builders import a_graph
from valkyr.errors import DraftConflict, VersionNotFound, WorkflowArchived, WorkflowNotFound
from valkyr.graph.document import canonical_bytes, hash_of
from valkyr.graph.model import WorkflowInfo

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DOCUMENT = canonical_bytes(a_graph("a -> b"))
HASH = hash_of(DOCUMENT)
INFO = WorkflowInfo(name="orders", labels={"team": "x"})
DRAFT = Draft(DraftKey("default", "id", "tester"), 3, 5, INFO, DOCUMENT, HASH, NOW, NOW, NOW)
THERE, GONE = DraftRow(5, DRAFT), DraftRow(5, None)
WORKFLOW = StoredWorkflow("default", "id", "orders", "", {}, 7, HASH, NOW, NOW)
COMMAND = SaveDraftCommand("default", "id", Author("tester"), a_graph("a -> b"))


@pytest.mark.parametrize(
    ("row", "revision", "current"),
    [
        (THERE, None, None),
        (THERE, 5, None),
        (THERE, 4, 5),
        (THERE, 6, 5),
        (THERE, 0, 5),
        (GONE, None, None),
        (GONE, 0, None),
        (GONE, 5, 0),
        (None, 0, None),
        (None, 1, 0),
    ],
    ids=["any", "this", "earlier", "later", "none but one", "any, gone", "none, gone", "gone", "none", "never there"],
)
def test_the_revision_that_was_edited_is_the_one_that_is_there(
    row: DraftRow | None, revision: int | None, current: int | None
) -> None:
    if current is None:
        check_revision(row, revision)
        return
    with pytest.raises(DraftConflict) as refused:
        check_revision(row, revision)
    assert refused.value.current_revision == current
    assert refused.value.hint


@pytest.mark.parametrize(
    ("row", "command", "content_hash", "same"),
    [
        (THERE, replace(COMMAND, revision=4), HASH, True),
        (THERE, replace(COMMAND, revision=4, workflow=INFO, base_version=3), HASH, True),
        (THERE, replace(COMMAND, revision=4), "other", False),
        (THERE, replace(COMMAND, revision=3), HASH, False),
        (THERE, replace(COMMAND, revision=5), HASH, False),
        (THERE, COMMAND, HASH, False),
        (THERE, replace(COMMAND, revision=4, workflow=WorkflowInfo(name="other")), HASH, False),
        (THERE, replace(COMMAND, revision=4, base_version=4), HASH, False),
        (GONE, replace(COMMAND, revision=4), HASH, False),
        (None, replace(COMMAND, revision=0), HASH, False),
    ],
    ids=["same", "all said", "graph", "earlier", "current", "any", "described", "base", "gone", "none"],
)
def test_a_save_was_sent_before_if_it_made_the_next_revision_and_that_says_the_same(
    row: DraftRow | None, command: SaveDraftCommand, content_hash: str, same: bool
) -> None:
    assert is_same_draft(row, command, content_hash) is same


@pytest.mark.parametrize(
    ("given", "row", "workflow", "base"),
    [
        (None, THERE, WORKFLOW, 3),
        (None, GONE, WORKFLOW, 7),
        (None, None, WORKFLOW, 7),
        (None, None, None, 0),
        (5, THERE, WORKFLOW, 5),
        (7, None, WORKFLOW, 7),
        (0, THERE, WORKFLOW, 0),
        (0, None, None, 0),
    ],
)
def test_what_a_draft_begins_as(
    given: int | None, row: DraftRow | None, workflow: StoredWorkflow | None, base: int
) -> None:
    assert base_of(replace(COMMAND, base_version=given), row, workflow) == base


def test_a_draft_does_not_begin_as_what_is_not_there() -> None:
    with pytest.raises(VersionNotFound):
        base_of(replace(COMMAND, base_version=8), None, WORKFLOW)
    with pytest.raises(WorkflowNotFound):
        base_of(replace(COMMAND, base_version=1), None, None)


def test_a_document_that_does_not_match_its_hash_is_no_graph() -> None:
    assert graph_of_draft(DRAFT) == a_graph("a -> b")
    with pytest.raises(CorruptVersion):
        graph_of_draft(replace(DRAFT, document=DOCUMENT.replace(b'"b"', b'"c"')))


def test_an_archived_workflow_is_not_in_use() -> None:
    check_in_use(WORKFLOW)
    with pytest.raises(WorkflowArchived):
        check_in_use(replace(WORKFLOW, archived=True))
