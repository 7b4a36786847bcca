"""For tests of those who write modules and graphs: no services, no waiting.

`run_module` runs one attempt of one module, `run_graph` a whole graph in memory with time that skips.
"""

from __future__ import annotations

from valkyr.flow.states import ExecutionState, RunState
from valkyr.testing.one_module import ModuleRun, run_module
from valkyr.testing.play import Moment
from valkyr.testing.scripts import LOST, Discard, Fix, Requeue, Returns, Takes
from valkyr.testing.whole_graph import GraphRun, NodeRun, run_graph

__all__ = [
    "LOST",
    "Discard",
    "ExecutionState",
    "Fix",
    "GraphRun",
    "ModuleRun",
    "Moment",
    "NodeRun",
    "Requeue",
    "Returns",
    "RunState",
    "Takes",
    "run_graph",
    "run_module",
]
