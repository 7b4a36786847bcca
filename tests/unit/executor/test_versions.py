"""The versions of starts: asked of the graph store for many at once, and whether their workflows are in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from services.executor import versions as under_test
from services.executor.gateways import LatestVersion
from services.executor.model import StartRequest
from services.executor.versions import CALLS_AT_ONCE, RESOLVED_AT_ONCE, Versions
from valkyr.errors import Internal, Unavailable, WorkflowArchived, WorkflowNotFound

ARCHIVED = UUID(int=4)


class GraphStore:
    """Knows the workflows of even numbers, in version 3."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.archived = {ARCHIVED}
        self.away = False
        self.is_wrong = False
        self.metadata: dict[str, str] = {}
        self.at_once = self.most_at_once = 0

    async def resolve_versions(self, namespace: str, workflow_ids: Sequence[UUID]) -> dict[UUID, LatestVersion]:
        self.asked.append((namespace, len(workflow_ids)))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.away:
            raise Unavailable("away")
        if self.is_wrong:
            raise Internal("a bug", metadata=self.metadata)
        return {each: LatestVersion(3, each in self.archived) for each in workflow_ids if each.int % 2 == 0}


class Connection:
    """Knows which request ids have started something."""

    def __init__(self, used: set[str]) -> None:
        self._used = used

    async def fetch(self, _query: str, namespaces: Sequence[str], ids: Sequence[str]) -> list[tuple[Any, ...]]:
        pairs = zip(namespaces, ids, strict=True)
        return [(namespace, id_, UUID(int=1), b"") for namespace, id_ in pairs if id_ in self._used]


class Session:
    def __init__(self) -> None:
        self.used: set[str] = set()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        yield Connection(self.used)


@pytest.fixture
def graph_store() -> GraphStore:
    return GraphStore()


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
async def versions(session: Session, graph_store: GraphStore) -> AsyncIterator[Versions]:
    made = Versions(session, graph_store)  # type: ignore[arg-type]
    yield made
    await made.close()


def a_start(
    workflow: int, *, version: int | None = None, request_id: str | None = None, namespace: str = "default"
) -> StartRequest:
    return StartRequest(namespace, UUID(int=workflow), version, "MANUAL", None, request_id, b"", 0, "tester", "")


def even(count: int) -> list[StartRequest]:
    """Starts of workflows that are there and in use."""
    return [a_start(2 * number) for number in (0, *range(3, count + 2))][:count]


async def test_who_asks_at_the_same_time_is_answered_by_one_call_for_each_namespace(
    versions: Versions, graph_store: GraphStore
) -> None:
    starts = [*even(2), *even(1), a_start(2, namespace="other")]
    answers = await asyncio.gather(*(versions.pin(starts) for _ in range(10)))
    assert answers == [[3, 3, 3, 3]] * 10
    assert sorted(graph_store.asked) == [("default", 2), ("other", 1)]


async def test_who_asks_for_a_workflow_that_is_not_there_is_told_so_and_nobody_else(versions: Versions) -> None:
    good, bad, again = await asyncio.gather(
        versions.pin(even(1)), versions.pin([*even(1), a_start(7)]), versions.pin(even(2)), return_exceptions=True
    )
    assert isinstance(bad, WorkflowNotFound)
    assert str(UUID(int=7)) in bad.message
    assert (good, again) == ([3], [3, 3])


async def test_more_workflows_than_the_graph_store_takes_are_asked_for_in_several_calls(
    versions: Versions, graph_store: GraphStore
) -> None:
    assert set(await versions.pin(even(RESOLVED_AT_ONCE + 1))) == {3}
    assert sorted(graph_store.asked) == [("default", 1), ("default", RESOLVED_AT_ONCE)]


async def test_namespaces_do_not_wait_for_each_other(versions: Versions, graph_store: GraphStore) -> None:
    assert await versions.pin([a_start(0, namespace=f"n{number}") for number in range(40)]) == [3] * 40
    assert 1 < graph_store.most_at_once <= CALLS_AT_ONCE


async def test_an_answer_that_is_wrong_is_not_taken_for_an_outage(versions: Versions, graph_store: GraphStore) -> None:
    graph_store.is_wrong = True
    with pytest.raises(Internal):
        await versions.pin([a_start(0, version=1)])
    graph_store.is_wrong, graph_store.away = False, True
    assert await versions.pin([a_start(0, version=1)]) == [1]
    graph_store.is_wrong, graph_store.away = True, False
    assert await versions.pin([a_start(0, version=1)]) == [1], "who finds it away does not wait for the look"
    assert versions._look is not None
    await versions._look
    with pytest.raises(Internal):
        await versions.pin([a_start(0, version=1)])


async def test_i16_a_connection_that_breaks_is_an_outage_whatever_grpc_calls_it(
    versions: Versions, graph_store: GraphStore
) -> None:
    graph_store.is_wrong, graph_store.metadata = True, {"grpcCode": "UNKNOWN"}
    assert await versions.pin([a_start(0, version=1)]) == [1]


async def test_a_named_version_is_kept_also_of_a_workflow_that_the_graph_store_does_not_know(
    versions: Versions,
) -> None:
    assert await versions.pin([a_start(0, version=1), a_start(7, version=2), a_start(0)]) == [1, 2, 3]


@pytest.mark.parametrize("version", [None, 1], ids=["latest", "named"])
async def test_an_archived_workflow_is_refused_and_no_other(versions: Versions, version: int | None) -> None:
    refused, others = await asyncio.gather(
        versions.pin([*even(1), a_start(4, version=version)]), versions.pin(even(2)), return_exceptions=True
    )
    assert isinstance(refused, WorkflowArchived)
    assert refused.details.metadata["workflowId"] == str(ARCHIVED)
    assert others == [3, 3]


@pytest.mark.parametrize("version", [None, 1], ids=["latest", "named"])
async def test_one_that_is_back_in_use_is_started(
    versions: Versions, graph_store: GraphStore, version: int | None
) -> None:
    with pytest.raises(WorkflowArchived):
        await versions.pin([a_start(4, version=version)])
    graph_store.archived.clear()
    assert await versions.pin([a_start(4, version=version)]) == [version or 3]


async def test_i09_what_a_request_id_has_started_before_is_no_new_start(versions: Versions, session: Session) -> None:
    session.used = {"before"}
    assert await versions.pin([a_start(4, request_id="before")]) == [3]
    with pytest.raises(WorkflowArchived):
        await versions.pin([a_start(4, request_id="before"), a_start(4, request_id="new")])
    with pytest.raises(WorkflowArchived):
        await versions.pin([a_start(4)])


async def test_i16_with_the_graph_store_away_a_named_version_goes_on_and_a_latest_one_does_not(
    versions: Versions, graph_store: GraphStore
) -> None:
    graph_store.away = True
    assert await versions.pin([a_start(4, version=1)]) == [1]
    with pytest.raises(Unavailable):
        await versions.pin([a_start(4, version=1), a_start(0)])


async def test_i16_with_the_graph_store_away_it_goes_by_what_was_known_last(
    versions: Versions, graph_store: GraphStore
) -> None:
    with pytest.raises(WorkflowArchived):
        await versions.pin([a_start(4)])
    graph_store.away = True
    for _ in range(2):
        with pytest.raises(WorkflowArchived):
            await versions.pin([a_start(4, version=1)])
        assert await versions.pin([a_start(0, version=1)]) == [1]


async def test_while_it_is_away_nobody_waits_for_it_and_its_return_is_noticed(
    versions: Versions, graph_store: GraphStore
) -> None:
    graph_store.away = True
    await versions.pin([a_start(4, version=1)])
    asked = len(graph_store.asked)
    assert await versions.pin([a_start(4, version=1)]) == [1]
    assert len(graph_store.asked) == asked, "it was asked before the start went on"
    graph_store.away = False
    async with asyncio.timeout(60):
        with pytest.raises(WorkflowArchived):
            while await versions.pin([a_start(4, version=1)]):
                await asyncio.sleep(0)


async def test_what_is_remembered_of_archived_workflows_is_bounded(
    versions: Versions, graph_store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "MAX_REMEMBERED", 2)
    graph_store.archived = {UUID(int=2 * number) for number in range(10)}
    for number in range(10):
        with pytest.raises(WorkflowArchived):
            await versions.pin([a_start(2 * number)])
    graph_store.away = True
    assert await versions.pin([a_start(0, version=1)]) == [1]
    with pytest.raises(WorkflowArchived):
        await versions.pin([a_start(18, version=1)])
