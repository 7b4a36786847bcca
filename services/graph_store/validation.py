"""Whether a graph may be saved: the findings of the validator, and the errors that they make."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.graph_store.known_modules import KnownModules
from valkyr.errors import InvalidGraph, Violation
from valkyr.graph.findings import Finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Graph
from valkyr.graph.validate import validate


class Validation:
    """The validator, with the limits of this service and the modules that a namespace knows."""

    def __init__(self, *, limits: Limits, known: KnownModules | None) -> None:
        """Without `known` no module is unknown, and no config wrong."""
        self._limits = limits
        self._known = known

    async def findings(self, namespace: str, graph: Graph) -> list[Finding]:
        """Every finding, errors first. In a thread, so that other calls go on beside ten thousand expressions."""
        catalogue = await self._known.catalogue_for(namespace, graph) if self._known else None
        return await asyncio.to_thread(validate, graph, catalogue=catalogue, limits=self._limits)

    async def warnings(self, namespace: str, graph: Graph) -> list[Finding]:
        """The findings of a graph that may be saved. InvalidGraph if it may not."""
        findings = await self.findings(namespace, graph)
        errors = [finding for finding in findings if finding.is_error]
        if errors:
            raise invalid_graph(errors)
        return findings


def invalid_graph(errors: Sequence[Finding]) -> InvalidGraph:
    """The error of a save whose graph has ERROR findings."""
    first = errors[0]
    return InvalidGraph(
        f"{summary_of(errors)}; nothing was saved",
        hint=f"{first.hint}; ValidateGraph answers with every finding",
        metadata={"total": str(len(errors))},
        violations=violations_of(errors),
    )


def summary_of(errors: Sequence[Finding]) -> str:
    """The first of the findings in words, and how many there are."""
    first = f"{errors[0].code}: {errors[0].message}"
    return first if len(errors) == 1 else f"the graph has {len(errors):,} errors, the first of them {first}"


def violations_of(errors: Sequence[Finding]) -> list[Violation]:
    """As they travel in an error."""
    return [Violation(found.path, f"{found.code}: {found.message}") for found in errors]
