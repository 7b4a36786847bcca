"""What is known of catalogues: bounded by namespaces, and looked at in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from services.executor.defaults import LOOKED_AT, MAX_NAMESPACES, Defaults
from valkyr.graph.catalogue import CatalogueModule


class Catalogue:
    """Tells how new it is of every namespace that it is asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listed = 0

    async def resolve_versions(self, namespace: str, workflow_ids: list[UUID]) -> object:
        assert not workflow_ids
        self.asked.append(namespace)
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


async def test_a_look_asks_about_some_namespaces_in_turn() -> None:
    catalogue = Catalogue()
    defaults = made(catalogue)
    names = [f"n{number}" for number in range(LOOKED_AT + 5)]
    for name in names:
        await defaults.of(name)
    await defaults.look()
    assert catalogue.asked == names[:LOOKED_AT]
    await defaults.look()
    assert catalogue.asked[LOOKED_AT:] == [*names[LOOKED_AT:], *names[: LOOKED_AT - 5]]


async def test_what_is_heard_of_made_up_namespaces_is_not_kept_for_ever() -> None:
    defaults = made(Catalogue())
    for number in range(3 * MAX_NAMESPACES):
        defaults.heard(f"n{number}", 0)
    assert len(defaults._heard) == 2 * MAX_NAMESPACES


def made(catalogue: Catalogue) -> Defaults:
    session: Any = Session()
    return Defaults(session, catalogue)
