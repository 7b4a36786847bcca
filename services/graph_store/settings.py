"""Settings of the graph store: YAML section `graph-store`, variables VALKYR_GRAPH_STORE__..."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from services.chassis.settings import Duration, Interval, RoomSettings, SettingsModel
from valkyr.graph.limits import DEFAULT_LIMITS, Limits


class LimitSettings(SettingsModel):
    """How large a graph may be."""

    nodes: int = Field(default=DEFAULT_LIMITS.nodes, ge=1, le=100_000)
    edges: int = Field(default=DEFAULT_LIMITS.edges, ge=0, le=1_000_000)
    config_bytes: int = Field(default=DEFAULT_LIMITS.config_bytes, ge=2, le=16 * 1024 * 1024, description="per module")
    json_depth: int = Field(default=DEFAULT_LIMITS.json_depth, ge=1, le=64)
    label_chars: int = Field(default=DEFAULT_LIMITS.label_chars, ge=0, le=100_000)
    id_chars: int = Field(default=DEFAULT_LIMITS.id_chars, ge=1, le=512, description="what an index entry can hold")
    expression_bytes: int = Field(default=DEFAULT_LIMITS.expression_bytes, ge=1, le=4096)
    expressions: int = Field(default=DEFAULT_LIMITS.expressions, ge=0, le=1_000_000, description="distinct, per graph")

    def of_graph(self) -> Limits:
        """As the validator takes them."""
        return Limits(**self.model_dump(by_alias=False))


class RequestSettings(SettingsModel):
    """How long answered requests are remembered, so that a repeated one gets the first answer."""

    kept: Duration = timedelta(hours=24)
    prune_interval: Interval = timedelta(minutes=10)


class DraftSettings(SettingsModel):
    """How long a draft is kept after it was saved last."""

    kept: Duration = timedelta(days=90)
    prune_interval: Interval = timedelta(hours=1)


class CatalogueSettings(SettingsModel):
    """How many module classes a namespace may register, and how large their schemas may be together."""

    modules: int = Field(default=10_000, ge=0, le=100_000)
    schema_bytes: int = Field(default=8 * 1024 * 1024, ge=0, le=64 * 1024 * 1024, description="as JSON, in all")


class GraphStoreSettings(RoomSettings):
    """What the graph store needs to start."""

    section: ClassVar[str] = "graph-store"
    limits: LimitSettings = LimitSettings()
    requests: RequestSettings = RequestSettings()
    drafts: DraftSettings = DraftSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
