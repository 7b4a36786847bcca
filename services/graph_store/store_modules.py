"""The catalogue of modules as the use cases see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from services.chassis.database import Database
from services.graph_store import queries_modules as queries
from services.graph_store.model import Author
from services.graph_store.store import Transaction
from valkyr.graph.catalogue import CatalogueModule, defaults_to_document, module_from_defaults

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Of what a page is read from; as messages it is larger."""


class StoredModules:
    """Reads are one statement each; what is written is written in a transaction of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_schemas(self, namespace: str, class_names: Sequence[str]) -> tuple[int, dict[str, str | None]]:
        """The revision, and the schemas, as JSON text, of those classes that are there; from one snapshot."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(queries.FIND_SCHEMAS, namespace, class_names)
        return rows[0][0], {row[1]: row[2] for row in rows if row[1] is not None}

    async def list_modules(
        self, namespace: str, *, after: str, limit: int, with_schemas: bool
    ) -> tuple[int, list[CatalogueModule], bool]:
        """The revision; modules by class name, fewer than `limit` where they are large; whether there are more."""
        statement = queries.list_modules(with_schemas=with_schemas)
        async with self._database.acquire() as connection:
            rows = await connection.fetch(statement, namespace, after, limit + 1)
        found = [row for row in rows if row["class_name"] is not None]
        small = [row for number, row in enumerate(found[:limit]) if not number or row["bytes"] <= MAX_PAGE_BYTES]
        return rows[0]["revision"], [_module(row) for row in small], len(small) < len(found)

    async def lock(self, tx: Transaction, namespace: str) -> int:
        """The revision, which nobody else changes until the end of the transaction."""
        row = (await tx.connection.execute(queries.LOCK_CATALOGUE, {"namespace": namespace})).one()
        return int(row.revision)

    async def find(self, tx: Transaction, namespace: str, class_names: Sequence[str]) -> dict[str, CatalogueModule]:
        """Those of the classes that are there."""
        result = await tx.connection.execute(queries.FIND_MODULES, {"namespace": namespace, "names": list(class_names)})
        return {row.class_name: _module(dict(row._mapping)) for row in result}

    async def measure(self, tx: Transaction, namespace: str) -> tuple[int, int]:
        """How many there are, and how many bytes of schemas they have."""
        row = (await tx.connection.execute(queries.MEASURE_MODULES, {"namespace": namespace})).one()
        return int(row.number), int(row.bytes)

    async def write(
        self, tx: Transaction, namespace: str, modules: Sequence[CatalogueModule], *, author: Author, revision: int
    ) -> dict[str, datetime]:
        """Writes them all, and the new revision of the catalogue; when each was changed."""
        arrays = {
            "names": [module.class_name for module in modules],
            "descriptions": [module.description for module in modules],
            "schemas": [schema_text(module) for module in modules],
            "defaults": [orjson.dumps(defaults_to_document(module)).decode() for module in modules],
        }
        said = {"namespace": namespace, "author_id": author.principal_id, "author": author.principal}
        rows = (await tx.connection.execute(queries.WRITE_MODULES, {**said, **arrays})).all()
        await tx.connection.execute(queries.SET_REVISION, {"namespace": namespace, "revision": revision})
        return {row.class_name: row.last_modified_date for row in rows}


def schema_text(module: CatalogueModule) -> str | None:
    """As it is stored: with sorted keys, since messages keep no order."""
    if module.config_schema is None:
        return None
    return orjson.dumps(module.config_schema, option=orjson.OPT_SORT_KEYS).decode()


def _module(row: Mapping[str, Any]) -> CatalogueModule:
    schema = row["config_schema"]
    return replace(
        module_from_defaults(row["class_name"], orjson.loads(row["defaults"])),
        description=row["description"],
        config_schema=None if schema is None else orjson.loads(schema),
        registered_by=row["author"],
        updated_at=row["modified"],
    )
