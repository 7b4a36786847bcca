"""The latest versions of workflows: asked of the graph store for many callers at once, and answered to each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from services.executor.plans import RESOLVED_AT_ONCE, Plans
from valkyr.errors import WorkflowNotFound


class GraphStore:
    """Knows the workflows of even numbers, in version 3."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def resolve_versions(self, namespace: str, workflow_ids: Sequence[UUID]) -> dict[UUID, int]:
        self.asked.append((namespace, len(workflow_ids)))
        await asyncio.sleep(0)
        return {workflow_id: 3 for workflow_id in workflow_ids if workflow_id.int % 2 == 0}


@pytest.fixture
def graph_store() -> GraphStore:
    return GraphStore()


@pytest.fixture
def plans(graph_store: GraphStore) -> Plans:
    unused: Any = None
    return Plans(unused, graph_store, target_of=unused)  # type: ignore[arg-type]


def even(count: int) -> list[tuple[str, UUID]]:
    return [("default", UUID(int=2 * number)) for number in range(count)]


async def test_who_asks_at_the_same_time_is_answered_by_one_call_for_each_namespace(
    plans: Plans, graph_store: GraphStore
) -> None:
    other = ("other", UUID(int=2))
    answers = await asyncio.gather(*(plans.latest_versions([*even(2), *even(1), other]) for _ in range(10)))
    assert all(answer[key] == 3 for answer in answers for key in (*even(2), other))
    assert sorted(graph_store.asked) == [("default", 2), ("other", 1)]


async def test_who_asks_for_a_workflow_that_is_not_there_is_told_so_and_nobody_else(plans: Plans) -> None:
    missing = UUID(int=7)
    good, bad, again = await asyncio.gather(
        plans.latest_versions(even(1)),
        plans.latest_versions([*even(1), ("default", missing)]),
        plans.latest_versions(even(2)),
        return_exceptions=True,
    )
    assert isinstance(bad, WorkflowNotFound)
    assert str(missing) in bad.message
    assert not isinstance(good, BaseException)
    assert not isinstance(again, BaseException)
    assert again[even(2)[1]] == 3


async def test_more_workflows_than_the_graph_store_takes_are_asked_for_in_several_calls(
    plans: Plans, graph_store: GraphStore
) -> None:
    wanted = even(RESOLVED_AT_ONCE + 1)
    versions = await plans.latest_versions(wanted)
    assert {versions[key] for key in wanted} == {3}
    assert sorted(graph_store.asked) == [("default", 1), ("default", RESOLVED_AT_ONCE)]
