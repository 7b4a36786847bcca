"""The client SDK: `client.graphs`, `client.executions`, `client.runs`, `client.breakers` and `client.dead_letters`,
typed, with deadlines and safe repeats.
"""

from valkyr.client.client import Client
from valkyr.client.examples import Matcher, StringMode, TimeRange
from valkyr.client.executions import Start
from valkyr.client.failures import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    DeadLetter,
    DeadLetterType,
    OnUnavailable,
    RefusedResolution,
    Resolution,
)
from valkyr.client.pages import Page, Pages
from valkyr.client.results import (
    Attempt,
    Execution,
    Quarantine,
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
    "Breaker",
    "BreakerPolicy",
    "BreakerState",
    "Client",
    "DeadLetter",
    "DeadLetterType",
    "Execution",
    "ExecutionState",
    "Finding",
    "Matcher",
    "OnUnavailable",
    "Page",
    "Pages",
    "Quarantine",
    "RefusedResolution",
    "Resolution",
    "ResolvedVersions",
    "Run",
    "RunState",
    "SavedGraph",
    "Severity",
    "Start",
    "StoredGraph",
    "StringMode",
    "TimeRange",
    "TriggerType",
    "Workflow",
    "WorkflowVersion",
]
