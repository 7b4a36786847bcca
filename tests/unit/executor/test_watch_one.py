"""WatchExecution's decision what is news, over executions that a script tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.executor.model import ExecutionView
from services.executor.watch_one import COUNTED_PER_SECOND, WatchedOne, changes_of_one
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
    """Executions as each look finds them; none where there are no more. Counts say one run, or as many as there are."""

    def __init__(self, looks: Sequence[ExecutionView], runs: int = 1) -> None:
        self.looks = list(looks)
        self._runs = runs

    async def get_many(self, _namespace: str, _ids: Sequence[UUID]) -> Sequence[ExecutionView]:
        return [self.looks.pop(0)] if self.looks else []

    async def with_counts(self, view: ExecutionView) -> ExecutionView:
        return replace(view, run_counts={"LEASED": self._runs})

    async def fill(self, views: Sequence[ExecutionView]) -> Sequence[ExecutionView]:
        return [replace(view, outputs={"a": "1"}) for view in views]


class Fed:
    """A feed that tells one after the other, and then nothing, so that it is looked again and again."""

    def __init__(self, *fed: ExecutionView) -> None:
        self._fed = list(fed)
        self.waits: list[float] = []

    @asynccontextmanager
    async def subscription(self, _namespace: str, *, ids: Sequence[UUID]) -> AsyncIterator[Any]:
        yield self

    async def changed_within(self, timeout: timedelta) -> Sequence[ExecutionView]:
        self.waits.append(timeout.total_seconds())
        return [self._fed.pop(0)] if self._fed else []


async def told(*looks: ExecutionView, after: int | None = None) -> list[ExecutionView]:
    return await told_of(Told(looks), Fed(), after=after)


async def told_of(executions: Told, feed: Fed, *, after: int | None = None) -> list[ExecutionView]:
    changes = changes_of_one(executions, feed, WatchedOne("default", EXECUTION, after))  # type: ignore[arg-type]
    return [view async for view in changes]


async def test_what_the_feed_tells_is_not_looked_for_again() -> None:
    executions = Told([seen_as(1), seen_as(9)], runs=0)
    views = await told_of(executions, Fed(seen_as(2), seen_as(3), seen_as(4, "SUCCESS")))
    assert [view.revision for view in views] == [1, 2, 3, 4]
    assert len(executions.looks) == 1


async def test_what_the_feed_tells_late_is_not_news() -> None:
    views = await told_of(Told([seen_as(3), seen_as(3), seen_as(4, "SUCCESS")]), Fed(seen_as(2), seen_as(3, "PENDING")))
    assert [(view.revision, view.state.value) for view in views] == [(3, "RUNNING"), (4, "SUCCESS")]


async def test_of_a_large_execution_the_runs_are_counted_seldom_and_its_end_is_told_at_once() -> None:
    runs = 3_600 * COUNTED_PER_SECOND
    executions = Told([seen_as(1)], runs)
    feed = Fed(seen_as(2), seen_as(3), seen_as(4), seen_as(5, "SUCCESS"))
    views = await told_of(executions, feed)
    assert [(view.revision, view.run_counts) for view in views] == [(1, {"LEASED": runs}), (5, {})]
    assert [round(seconds, -2) for seconds in feed.waits[1:]] == [3_600] * 3


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
