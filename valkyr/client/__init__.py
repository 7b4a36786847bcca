"""The client SDK: `client.graphs` and `client.executions`, typed, with deadlines and safe repeats."""

from valkyr.client.client import Client
from valkyr.client.executions import Start
from valkyr.client.pages import Page, Pages
from valkyr.client.results import (
    Attempt,
    Execution,
    ResolvedVersions,
    Run,
    SavedGraph,
    StoredGraph,
    TriggerType,
    Workflow,
    WorkflowVersion,
)
from valkyr.flow.states import ExecutionState, RunState
from valkyr.graph.findings import Finding, Severity

__all__ = [
    "Attempt",
    "Client",
    "Execution",
    "ExecutionState",
    "Finding",
    "Page",
    "Pages",
    "ResolvedVersions",
    "Run",
    "RunState",
    "SavedGraph",
    "Severity",
    "Start",
    "StoredGraph",
    "TriggerType",
    "Workflow",
    "WorkflowVersion",
]
