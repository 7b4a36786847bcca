"""The client SDK: `client.graphs`, `client.modules`, `client.executions`, `client.runs`, `client.runners`,
`client.breakers` and `client.dead_letters`, typed, with deadlines and safe repeats.
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
from valkyr.client.graph_results import (
    AuditEvent,
    Draft,
    MergedGraph,
    PublishedDraft,
    RestoredGraph,
    SavedDraft,
    VersionDiff,
    WorkflowChange,
)
from valkyr.client.graph_saves import SaveProgress, SaveRetry, SaveStage
from valkyr.client.pages import Page, Pages
from valkyr.client.results import (
    Attempt,
    Execution,
    Quarantine,
    ResolvedVersions,
    ReusedRun,
    Run,
    SavedGraph,
    StoredGraph,
    TriggerType,
    Workflow,
    WorkflowVersion,
)
from valkyr.client.runners import Runner, RunnerState
from valkyr.flow.states import ExecutionState, RunState
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.findings import Finding, Severity

__all__ = [
    "Attempt",
    "AuditEvent",
    "Breaker",
    "BreakerPolicy",
    "BreakerState",
    "CatalogueModule",
    "Client",
    "DeadLetter",
    "DeadLetterType",
    "Draft",
    "Execution",
    "ExecutionState",
    "Finding",
    "Matcher",
    "MergedGraph",
    "OnUnavailable",
    "Page",
    "Pages",
    "PublishedDraft",
    "Quarantine",
    "RefusedResolution",
    "Resolution",
    "ResolvedVersions",
    "RestoredGraph",
    "ReusedRun",
    "Run",
    "RunState",
    "Runner",
    "RunnerState",
    "SaveProgress",
    "SaveRetry",
    "SaveStage",
    "SavedDraft",
    "SavedGraph",
    "Severity",
    "Start",
    "StoredGraph",
    "StringMode",
    "TimeRange",
    "TriggerType",
    "VersionDiff",
    "Workflow",
    "WorkflowChange",
    "WorkflowVersion",
]
