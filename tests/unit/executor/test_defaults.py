"""What is known of catalogues: bounded by namespaces, and looked at some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from services.executor import defaults as under_test
from services.executor.defaults import LOOKED_AT, MAX_NAMESPACES, Defaults
from valkyr.graph.catalogue import CatalogueModule


class Catalogue:
    """Tells how new it is of every namespace that it is asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listed = self.at_once = self.most_at_once = 0
        self.meanwhile: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    async def resolve_versions(self, namespace: str, workflow_ids: list[UUID]) -> object:
        assert not workflow_ids
        self.asked.append(namespace)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.meanwhile()
        self.at_once -= 1
        return {}

    async def list_defaults(self, namespace: str) -> tuple[int, dict[str, CatalogueModule]]:
        self.listed += 1
        return 1, {}


class Session:
    """Tables without defaults."""

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        yield self

    async def fetchrow(self, _query: str, _namespace: str) -> None:
        return None


async def test_a_look_asks_about_all_namespaces_in_use_and_about_some_at_a_time() -> None:
    catalogue = Catalogue()
    defaults = made(catalogue)
    names = [f"n{number}" for number in range(2 * LOOKED_AT + 5)]
    for name in names:
        await defaults.of(name)
    await defaults.look()
    assert catalogue.asked == names
    assert catalogue.most_at_once == LOOKED_AT


async def test_a_look_goes_on_though_namespaces_go_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_NAMESPACES", 3)
    catalogue = Catalogue()
    defaults = made(catalogue)
    for number in range(3):
        await defaults.of(f"n{number}")
    catalogue.meanwhile = lambda: defaults.of("another")
    await defaults.look()
    assert catalogue.asked == ["n0", "n1", "n2"]


async def test_what_is_heard_of_made_up_namespaces_is_not_kept_for_ever() -> None:
    defaults = made(Catalogue())
    for number in range(3 * MAX_NAMESPACES):
        defaults.heard(f"n{number}", 0)
    assert len(defaults._heard) == 2 * MAX_NAMESPACES


def made(catalogue: Catalogue) -> Defaults:
    session: Any = Session()
    return Defaults(session, catalogue)
