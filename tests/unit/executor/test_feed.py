"""What a stream has not taken yet: of each execution the newest state, and a bound."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.executor import feed
from services.executor.feed import Subscription
from services.executor.model import ExecutionView, new_id
from valkyr.errors import Unavailable
from valkyr.flow.states import ExecutionState

AT = datetime(2026, 1, 1, tzinfo=UTC)
SOON = timedelta(seconds=30)
VIEW = ExecutionView(
    id=new_id(),
    namespace="default",
    workflow_id=new_id(),
    version=1,
    state=ExecutionState.SUCCESS,
    revision=2,
    priority=0,
    trigger_type="MANUAL",
    trigger_payload=None,
    created_at=AT,
    started_at=AT,
    finished_at=AT,
    error_type=None,
    error_message=None,
    trace_id="0" * 32,
    created_by="tester",
    modified_at=AT,
)
GOING_ON = replace(VIEW, state=ExecutionState.RUNNING, finished_at=None)


def of_all() -> Subscription:
    return Subscription("default", frozenset(), None)


async def test_of_an_execution_only_the_newest_state_is_taken_and_that_once() -> None:
    told = of_all()
    for revision in (3, 5, 4):
        told.offer(replace(VIEW, revision=revision))
    assert [view.revision for view in await told.changed()] == [5]
    assert await told.changed_within(timedelta()) == []


@pytest.mark.parametrize(
    "view",
    [replace(VIEW, namespace="other"), replace(VIEW, workflow_id=new_id())],
    ids=["another namespace", "another workflow"],
)
async def test_what_it_is_not_about_is_not_taken(view: ExecutionView) -> None:
    told = Subscription("default", frozenset(), VIEW.workflow_id)
    told.offer(view)
    assert await told.changed_within(timedelta(milliseconds=50)) == []


async def test_an_end_is_told_at_once_and_with_it_what_has_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAUSE", 3_600.0)
    told = of_all()
    other = replace(GOING_ON, id=new_id())
    told.offer(other)
    told.offer(VIEW)
    async with asyncio.timeout(SOON.total_seconds()):
        assert await told.changed() == [other, VIEW]


async def test_what_goes_on_is_told_soon() -> None:
    told = of_all()
    told.offer(GOING_ON)
    assert await told.changed_within(SOON) == [GOING_ON]


async def test_more_than_can_be_kept_is_forgotten_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "UNTAKEN", 10)
    told = of_all()
    for _ in range(10):
        told.offer(replace(VIEW, id=new_id()))
    assert not told.overrun
    told.offer(replace(VIEW, id=new_id()))
    assert told.overrun
    assert await told.changed() == []


async def test_an_error_is_raised_whoever_waits_and_whoever_asks_later() -> None:
    told = of_all()
    waiting = asyncio.create_task(told.changed())
    told.fail(Unavailable("away"))
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await told.changed_within(timedelta())
