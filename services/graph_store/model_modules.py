"""What travels about the catalogue of modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.graph_store.model import Author
from valkyr.graph.catalogue import CatalogueModule


@dataclass(frozen=True, slots=True)
class Registration:
    """One RegisterModules."""

    namespace: str
    modules: Sequence[CatalogueModule]
    author: Author
    request_id: str


@dataclass(frozen=True, slots=True)
class ModulePage:
    """`more`: there are others after the last."""

    revision: int
    modules: Sequence[CatalogueModule]
    more: bool
