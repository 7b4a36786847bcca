"""client.modules: the catalogue of module classes, which graphs are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.ids import new_request_id
from valkyr.client.pages import Page, Pages
from valkyr.graph import fields
from valkyr.graph.catalogue import CatalogueModule, module_from_document
from valkyr.graph.catalogue_checks import check_modules
from valkyr.graph.schemas import ConfigSchema, compile_schema
from valkyr.graph.validate import Catalogue
from valkyr.module import ModuleSpec
from valkyr.modules.described import builtin_schemas, described
from valkyr.rpc.modules import module_from_proto, module_to_proto

Registered = CatalogueModule | ModuleSpec | Mapping[str, Any]
"""A class as it is to be in the catalogue, the spec of a function with @module, or a document: {"className": ...}."""


class Modules:
    """Calls about the catalogue of a namespace, which the graph store keeps."""

    def __init__(self, calls: Calls, namespace: str) -> None:
        self._calls = calls
        self._namespace = namespace

    async def register(
        self, modules: Sequence[Registered], *, request_id: str | None = None, timeout: timedelta | None = None
    ) -> Sequence[CatalogueModule]:
        """Puts classes into the catalogue, all or none; those that are there already are replaced. At most 1,000.

        `valkyr.module.registered_modules().values()` are those of the Python modules that were imported. Looked at
        here before any call: InvalidRequest names every bad path, LimitExceeded.
        """
        wanted = [_module(module, f"modules[{index}]") for index, module in enumerate(modules)]
        problems = fields.Problems()
        check_modules(wanted, problems)
        problems.raise_if_any()
        request = graph_pb2.RegisterModulesRequest(
            namespace=self._namespace,
            modules=[module_to_proto(module, f"modules[{index}]") for index, module in enumerate(wanted)],
            request_id=request_id or new_request_id(),
        )
        answer = await self._calls.unary("RegisterModules", request, timeout=timeout)
        return [module_from_proto(module) for module in answer.modules]

    def list(
        self, *, with_schemas: bool = True, page_size: int = 100, timeout: timedelta | None = None
    ) -> Pages[CatalogueModule]:
        """Every class by name: what was registered, and what comes with Valkyr (`built_in`)."""

        async def fetch(token: str) -> Page[CatalogueModule]:
            request = graph_pb2.ListModulesRequest(
                namespace=self._namespace, page_size=page_size, page_token=token, without_schemas=not with_schemas
            )
            answer = await self._calls.unary("ListModules", request, timeout=timeout)
            return Page([module_from_proto(module) for module in answer.modules], answer.next_page_token)

        return Pages(fetch)

    async def catalogue(self, *, timeout: timedelta | None = None) -> Catalogue:
        """All of it as the validator takes it: `await client.graphs.validate(graph, local=True, catalogue=...)`, or
        `valkyr.graph.validate.validate(graph, catalogue=...)` without any client."""
        found: dict[str, ConfigSchema | None] = dict(builtin_schemas())
        async for module in self.list(page_size=1_000, timeout=timeout):
            if not module.built_in:
                schema = module.config_schema
                found[module.class_name] = None if schema is None else compile_schema(schema)
        return found


def _module(module: Registered, path: str) -> CatalogueModule:
    if isinstance(module, CatalogueModule):
        return module
    if isinstance(module, ModuleSpec):
        return described(module)
    return module_from_document(module, path)
