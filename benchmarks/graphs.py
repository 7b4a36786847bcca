"""The graphs of the workloads, and what their executions must answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from benchmarks.modules import STEP

NOOP = "NoopModule"


@dataclass(frozen=True, slots=True)
class Shape:
    """Nodes by id with their predecessors, all of one class, ending in one leaf."""

    name: str
    before: Mapping[str, Sequence[str]]
    leaf: str
    class_name: str = STEP

    def document(self, name: str) -> dict[str, Any]:
        """As it is saved, under `name`."""
        edges = [(source, target) for target, sources in self.before.items() for source in sources]
        return {
            "workflow": {"name": name},
            "nodes": [{"nodeId": node} for node in self.before],
            "edges": [{"edgeId": f"{source}-{target}", "source": source, "target": target} for source, target in edges],
            "modules": [{"nodeId": node, "className": self.class_name} for node in self.before],
        }

    def answer(self) -> Answer:
        """What its leaf must answer."""
        if self.class_name == NOOP:
            return Answer(self.leaf, 0, 0)
        depth: dict[str, int] = {}
        paths: dict[str, int] = {}
        for node in TopologicalSorter(self.before).static_order():
            sources = self.before[node]
            depth[node] = 1 + max((depth[source] for source in sources), default=0)
            paths[node] = sum(paths[source] for source in sources) if sources else 1
        return Answer(self.leaf, depth[self.leaf], paths[self.leaf])


@dataclass(frozen=True, slots=True)
class Answer:
    """Of an execution started with `{"n": n}`: its leaf's depth, and n times the leaf's paths. Depth 0: no outputs."""

    leaf: str
    depth: int
    paths: int

    def expected(self, n: int) -> dict[str, Any]:
        """The execution's `outputs`."""
        return {self.leaf: {"depth": self.depth, "paths": n * self.paths} if self.depth else {}}


def single(class_name: str = STEP) -> Shape:
    return Shape("single", {"only": ()}, "only", class_name)


def chain(length: int) -> Shape:
    """`s0 -> s1 -> ...`"""
    return Shape(f"chain of {length}", {f"s{i}": (f"s{i - 1}",) if i else () for i in range(length)}, f"s{length - 1}")


def fan(width: int) -> Shape:
    """`first -> m0..m{width-1} -> last`"""
    middle = {f"m{i}": ("first",) for i in range(width)}
    return Shape(f"fan of {width}", {"first": (), **middle, "last": tuple(middle)}, "last")


def mosaic() -> Shape:
    """300 nodes in the shape of an astronomer's mosaic: 100 images are projected, neighbours compared, one model is
    fitted to all differences (fan-in 100), every image is corrected by it (fan-out 100), all are added (fan-in 100)."""
    images = range(100)
    project = {f"project{i}": ("stage",) for i in images}
    differ = {f"differ{i}": (f"project{i}", f"project{i + 1}") for i in range(96)}
    fit = {"fit": (*differ, *(f"project{i}" for i in range(96, 100)))}
    correct = {f"correct{i}": ("fit", f"project{i}") for i in images}
    return Shape(
        "mosaic",
        {"stage": (), **project, **differ, **fit, **correct, "add": tuple(correct), "publish": ("add",)},
        "publish",
    )
