"""Every finding about a graph at once. Pure: clients run it before any call, the graph store before any save.

Linear in the size of the graph, apart from references between nodes; nothing recurses along edges.
"""

from __future__ import annotations

from valkyr.graph.depths import check_depths
from valkyr.graph.findings import Code, Finding, Severity, finding, has_errors
from valkyr.graph.limits import DEFAULT_LIMITS, Limits
from valkyr.graph.model import Graph
from valkyr.graph.module_checks import Catalogue, ModuleCheck
from valkyr.graph.references import ReferenceCheck
from valkyr.graph.shape import shape_of
from valkyr.graph.structure import check_counts, check_cycles, check_edges, check_nodes, check_orphans

__all__ = ["Catalogue", "Code", "Finding", "Severity", "finding", "has_errors", "validate"]


def validate(graph: Graph, *, catalogue: Catalogue | None = None, limits: Limits = DEFAULT_LIMITS) -> list[Finding]:
    """All findings, errors first, each group from nodes over edges to modules.

    `catalogue` maps the class names of known modules to the schemas of their configs, None for any object. Without one
    neither UNKNOWN_MODULE nor schemas are checked.
    """
    findings = check_counts(graph, limits)
    if findings:
        return findings
    shape = shape_of(graph.nodes, graph.edges)
    references = ReferenceCheck(shape, limits)
    findings.extend(check_nodes(graph, limits))
    findings.extend(check_edges(graph, shape, limits))
    findings.extend(check_cycles(graph, shape))
    for index, edge in enumerate(graph.edges):
        if edge.condition:
            findings.extend(references.of_condition(edge, index))
    too_deep = check_depths(graph.modules, limits)
    deep_paths = {found.path for found in too_deep}
    findings.extend(too_deep)
    of_modules = ModuleCheck(shape, references, limits, catalogue).of_graph(graph)
    findings.extend(found for found in of_modules if found.path not in deep_paths)
    findings.extend(check_orphans(graph))
    findings.sort(key=lambda found: not found.is_error)
    return findings
