"""Which schemas are kept in memory, and when they are read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import uuid_utils

from services.chassis.database import Database
from services.graph_store.known_modules import ENTRY_BYTES, KnownModules
from services.graph_store.model_modules import Registration
from services.graph_store.modules import ModuleCatalogue
from services.graph_store.store import Store
from services.graph_store.store_modules import StoredModules
from services.graph_store.store_requests import Requests
from tests.builders import a_graph
from tests.integration.graph_store.conftest import AUTHOR, KEPT
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.limits import DEFAULT_LIMITS
from valkyr.graph.schemas import ConfigSchema
from valkyr.modules.described import builtin_catalogue, builtin_schemas

TEXT = {"properties": {"x": {"type": "string"}}}


class Counted(StoredModules):
    """Counts what is asked of the database."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked: list[set[str]] = []

    async def find_schemas(self, namespace: str, class_names: Sequence[str]) -> tuple[int, dict[str, str | None]]:
        self.asked.append(set(class_names))
        return await super().find_schemas(namespace, class_names)


@pytest.fixture
def stored(database: Database) -> Counted:
    return Counted(database)


@pytest.fixture
def known(stored: Counted) -> KnownModules:
    return KnownModules(stored, builtin_schemas(), limits=DEFAULT_LIMITS, room=1_000 + 2 * ENTRY_BYTES)


@pytest.fixture
def catalogue(store: Store, stored: Counted) -> ModuleCatalogue:
    return ModuleCatalogue(
        store,
        stored,
        Requests(KEPT),
        builtin_catalogue(),
        limits=DEFAULT_LIMITS,
        most=100,
        most_bytes=1_000_000,
        new_id=lambda: str(uuid_utils.uuid7()),
    )


async def register(catalogue: ModuleCatalogue, *names: str, namespace: str = "default", **more: Any) -> None:
    modules = [CatalogueModule(name, config_schema={**TEXT, **more}) for name in names]
    await catalogue.register(Registration(namespace, modules, AUTHOR, ""))


async def schemas(known: KnownModules, *names: str, namespace: str = "default") -> dict[str, ConfigSchema]:
    """Of those of the classes that are registered there."""
    graph = a_graph(", ".join(f"n{i}" for i in range(len(names))), modules={f"n{i}": n for i, n in enumerate(names)})
    found = await known.catalogue_for(namespace, graph)
    return {name: schema for name in names if isinstance(schema := found.get(name), ConfigSchema)}


async def test_what_comes_with_valkyr_needs_no_database(known: KnownModules, stored: Counted) -> None:
    assert await schemas(known, "LogModule", "HttpRequestModule")
    assert await known.catalogue_for("default", a_graph("a", modules={"a": None})) is builtin_schemas()
    assert stored.asked == []


async def test_a_schema_is_compiled_once_until_the_catalogue_changes(
    known: KnownModules, stored: Counted, catalogue: ModuleCatalogue
) -> None:
    await register(catalogue, "A", "B")
    first = await schemas(known, "A")
    assert (await schemas(known, "A", "B"))["A"] is first["A"]
    assert stored.asked == [{"A"}, {"B"}]
    await register(catalogue, "B", description="changed")
    again = await schemas(known, "A", "B")
    assert again["A"] is not first["A"]
    assert stored.asked[2:] == [set(), {"A", "B"}]


async def test_a_namespace_sees_its_own(known: KnownModules, catalogue: ModuleCatalogue) -> None:
    await register(catalogue, "A")
    await register(catalogue, "A", "B", namespace="other", title="another")
    assert (await schemas(known, "A", "B")).keys() == {"A"}
    assert (await schemas(known, "A", "B", namespace="other")).keys() == {"A", "B"}


async def test_the_least_recently_used_namespaces_are_forgotten(
    known: KnownModules, stored: Counted, catalogue: ModuleCatalogue
) -> None:
    for namespace in ("one", "two", "three"):
        await register(catalogue, "A", namespace=namespace, description="x" * 400)
    for namespace in ("one", "two", "one", "three", "one", "two"):
        assert (await schemas(known, "A", namespace=namespace)).keys() == {"A"}
    assert stored.asked == [{"A"}, {"A"}, set(), {"A"}, set(), {"A"}]


async def test_of_namespaces_that_have_nothing_nothing_is_kept(
    known: KnownModules, stored: Counted, catalogue: ModuleCatalogue
) -> None:
    """Anybody can name any number of them, and cannot push out what others have."""
    await register(catalogue, "A", namespace="one")
    assert await schemas(known, "A", namespace="one")
    for number in range(50):
        assert await schemas(known, "A", namespace=f"made up {number}") == {}
    stored.asked.clear()
    assert await schemas(known, "A", namespace="one")
    assert stored.asked == [set()]
    assert len(known._namespaces) == 1


async def test_a_stored_schema_that_is_not_taken_any_more_checks_nothing(
    known: KnownModules, catalogue: ModuleCatalogue, sql: Callable[..., Any]
) -> None:
    await register(catalogue, "A")
    await sql("""UPDATE graph_store.module_spec SET config_schema = '{"$ref": "http://gone"}'""")
    assert await schemas(known, "A") == {}
    found = await known.catalogue_for("default", a_graph("a", modules={"a": "A"}))
    assert found["A"] is None


@pytest.mark.parametrize("name", ["x" * 513, "a\x00b", ""], ids=["too long", "NUL", "empty"])
async def test_names_that_no_class_can_have_are_not_asked_about(
    known: KnownModules, stored: Counted, name: str
) -> None:
    assert await schemas(known, name) == {}
    assert stored.asked == []
