"""What modules say where nodes say nothing, kept so that it is known without the graph store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.executor import queries_defaults as queries
from valkyr.graph.catalogue import CatalogueModule, defaults_to_document, module_from_defaults


async def read_defaults(connection: Any, namespace: str) -> tuple[int, dict[str, CatalogueModule]]:
    """The revision of the catalogue, 0 if none was kept, and its modules by class name."""
    row = await connection.fetchrow(queries.READ_DEFAULTS, namespace)
    if row is None:
        return 0, {}
    said = orjson.loads(row["defaults"])
    return row["revision"], {name: module_from_defaults(name, document) for name, document in said.items()}


async def write_defaults(tx: Any, namespace: str, revision: int, modules: Mapping[str, CatalogueModule]) -> None:
    """Unless a newer revision is kept."""
    said = {name: defaults_to_document(module) for name, module in modules.items()}
    await tx.execute(queries.WRITE_DEFAULTS, namespace, revision, orjson.dumps(said).decode())
