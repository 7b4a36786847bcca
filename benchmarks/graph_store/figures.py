"""What is measured of the graph store, with its budgets, and what was projected for the first version of Valkyr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.figures import Figure

SIZES = {"G1": 10, "G2": 100, "G3": 1_000, "G4": 10_000}
"""Nodes, by the workload that measures them; edges are twice as many."""
SAVE_BUDGETS = {10: 10.0, 100: 20.0, 1_000: 120.0, 10_000: 1_500.0}
GET_BUDGETS = {1_000: 30.0}
VALIDATE_BUDGETS = {10_000: (60.0, 250.0)}
"""Without configs, and with them."""
V1_SAVES = {10: 1_200.0, 100: 5_000.0, 1_000: 30_000.0}
"""Milliseconds of a save by nodes, as they were projected for v1, which saved row by row."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often each call is made, by size; `in_process`: each way of the validator alone."""

    nodes_10: int = 200
    nodes_100: int = 100
    nodes_1000: int = 25
    nodes_10000: int = 7
    in_process: int = 9

    def of(self, nodes: int) -> int:
        """Of one size."""
        return {10: self.nodes_10, 100: self.nodes_100, 1_000: self.nodes_1000, 10_000: self.nodes_10000}[nodes]


FULL = Repeats()
QUICK = Repeats(nodes_10=3, nodes_100=2, nodes_1000=1, nodes_10000=1, in_process=1)
QUICK_SIZES = ("G1", "G3")
"""Shows that all of it works, and no more than that; without what takes long."""


def _figures() -> Iterator[Figure]:
    for workload, nodes in SIZES.items():
        without, with_configs = VALIDATE_BUDGETS.get(nodes, (None, None))
        size = f"{nodes:,} nodes"
        yield Figure(f"{workload}.save", f"{size}: saved for the first time, at the client", "ms", SAVE_BUDGETS[nodes])
        yield Figure(f"{workload}.changed", f"{size}: saved with a tenth of them changed", "ms", SAVE_BUDGETS[nodes])
        yield Figure(f"{workload}.one", f"{size}: saved with one of them changed", "ms", SAVE_BUDGETS[nodes])
        yield Figure(f"{workload}.unchanged", f"{size}: saved as they are", "ms")
        yield Figure(f"{workload}.sdk", f"{size}: saved by the SDK, which validates before", "ms")
        yield Figure(f"{workload}.get", f"{size}: read, at the client", "ms", GET_BUDGETS.get(nodes))
        yield Figure(f"{workload}.validate_rpc", f"{size}: validated by the service, at the client", "ms")
        yield Figure(f"{workload}.validate", f"{size}: validated in process, without configs", "ms", without)
        yield Figure(f"{workload}.configs", f"{size}: validated in process, with configs", "ms", with_configs)
        yield Figure(f"{workload}.expressions", f"{size}: the same, an expression of its own in each config", "ms")


FIGURES: Mapping[str, Figure] = {figure.key: figure for figure in _figures()}
V1: Mapping[str, float] = {f"{name}.save": V1_SAVES[nodes] for name, nodes in SIZES.items() if nodes in V1_SAVES}
"""By the key of the figure that does the same."""
