"""WatchExecution's decision what is news, over executions that a script tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from services.executor.model import ExecutionView
from services.executor.watch_one import WatchedOne, changes_of_one
from valkyr.errors import ExecutionNotFound
from valkyr.flow.states import ExecutionState

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXECUTION = UUID(int=1)


def seen_as(revision: int, state: str = "RUNNING") -> ExecutionView:
    return ExecutionView(
        id=EXECUTION,
        namespace="default",
        workflow_id=UUID(int=2),
        version=1,
        state=ExecutionState(state),
        revision=revision,
        priority=0,
        trigger_type="MANUAL",
        trigger_payload=None,
        created_at=NOW,
        started_at=NOW,
        finished_at=None,
        error_type=None,
        error_message=None,
        trace_id="",
        created_by="ada",
        modified_at=NOW,
    )


class Told:
    """Executions as each look finds them; the last one from then on."""

    def __init__(self, looks: Sequence[ExecutionView]) -> None:
        self._looks = list(looks)

    async def get_many(self, _namespace: str, _ids: Sequence[UUID]) -> Sequence[ExecutionView]:
        return [self._looks.pop(0)] if self._looks else []

    async def with_counts(self, view: ExecutionView) -> ExecutionView:
        return replace(view, run_counts={"LEASED": 1})

    async def fill(self, views: Sequence[ExecutionView]) -> Sequence[ExecutionView]:
        return [replace(view, outputs={"a": "1"}) for view in views]


class Still:
    """A feed that tells nothing, so that it is looked again and again."""

    @asynccontextmanager
    async def subscription(self, _namespace: str, *, ids: Sequence[UUID]) -> AsyncIterator[Any]:
        async def changed_within(_timeout: object) -> Sequence[ExecutionView]:
            return []

        yield SimpleNamespace(changed_within=changed_within)


async def told(*looks: ExecutionView, after: int | None = None) -> list[ExecutionView]:
    watched = WatchedOne("default", EXECUTION, after)
    changes = changes_of_one(Told(looks), Still(), watched)  # type: ignore[arg-type]
    return [view async for view in changes]


async def test_what_looks_the_same_is_told_once() -> None:
    first, second, last = seen_as(1), seen_as(4), seen_as(5, "SUCCESS")
    views = await told(first, first, first, second, second, last)
    assert [view.revision for view in views] == [1, 4, 5]
    assert [(view.outputs, bool(view.run_counts)) for view in views] == [
        (None, True),
        (None, True),
        ({"a": "1"}, False),
    ]


async def test_that_it_has_begun_to_run_is_told_without_a_revision() -> None:
    views = await told(seen_as(0, "PENDING"), seen_as(0), seen_as(0), seen_as(1, "CANCELLED"))
    assert [view.state.value for view in views] == ["PENDING", "RUNNING", "CANCELLED"]


@pytest.mark.parametrize(
    ("after", "revisions"),
    [
        pytest.param(None, [3, 4, 5], id="from the present state"),
        pytest.param(2, [3, 4, 5], id="behind an older one"),
        pytest.param(3, [4, 5], id="behind the present one"),
        pytest.param(9, [4, 5], id="behind one that never was"),
    ],
)
async def test_a_stream_begins_behind_the_revision_that_was_seen(after: int | None, revisions: list[int]) -> None:
    views = await told(seen_as(3), seen_as(3), seen_as(4), seen_as(5, "FAILED"), after=after)
    assert [view.revision for view in views] == revisions


async def test_a_stream_behind_the_settled_state_ends_at_once() -> None:
    assert await told(seen_as(5, "SUCCESS"), after=5) == []


async def test_one_that_is_not_there_or_goes_away_is_not_found() -> None:
    with pytest.raises(ExecutionNotFound):
        await told()
    with pytest.raises(ExecutionNotFound):
        await told(seen_as(1), seen_as(1))
