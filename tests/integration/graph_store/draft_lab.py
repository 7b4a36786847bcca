"""The use cases of drafts over a store, in few words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import uuid_utils

from services.graph_store.archiving import Archiving
from services.graph_store.drafts import Drafts
from services.graph_store.merging import Merging
from services.graph_store.model import Author, SavedVersion
from services.graph_store.model_drafts import (
    ArchiveCommand,
    DiscardDraftCommand,
    DraftKey,
    PublishCommand,
    SavedDraft,
    SaveDraftCommand,
)
from services.graph_store.publishing import Publishing
from services.graph_store.saving import Saving
from services.graph_store.store import Store
from services.graph_store.store_drafts import Drafts as Rows
from services.graph_store.store_requests import Requests
from services.graph_store.validation import Validation
from tests.builders import a_graph
from tests.integration.graph_store.conftest import AUTHOR, KEPT, saving_of
from valkyr.graph.limits import DEFAULT_LIMITS
from valkyr.graph.model import Graph

ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
DRAFTS_KEPT = timedelta(days=90)


def new_id() -> str:
    return str(uuid_utils.uuid7())


@dataclass(frozen=True, slots=True)
class DraftLab:
    """Drafts of one workflow in the namespace "default"."""

    drafts: Drafts
    publishing: Publishing
    archiving: Archiving

    async def save(self, graph: Graph | str, *, author: Author = AUTHOR, **command: Any) -> SavedDraft:
        made = a_graph(graph) if isinstance(graph, str) else graph
        return await self.drafts.save(SaveDraftCommand("default", ID, author, made, **command))

    async def get(self, *, author: Author = AUTHOR) -> SavedDraft:
        return await self.drafts.get(DraftKey("default", ID, author.principal))

    async def discard(self, *, author: Author = AUTHOR, **command: Any) -> None:
        await self.drafts.discard(DiscardDraftCommand("default", ID, author, **command))

    async def publish(self, *, author: Author = AUTHOR, **command: Any) -> SavedVersion:
        return await self.publishing.publish(PublishCommand("default", ID, author, **command))

    async def archive(self, *, archived: bool = True, **command: Any) -> bool:
        said = ArchiveCommand("default", ID, AUTHOR, archived=archived, **command)
        return (await self.archiving.set(said)).archived


def lab_of(store: Store, *, saving: Saving | None = None) -> DraftLab:
    validation = Validation(limits=DEFAULT_LIMITS, known=None)
    largest = 16 * 1024 * 1024
    rows = Rows(DRAFTS_KEPT)
    merging = Merging(store, validation, max_answer_bytes=largest)
    return DraftLab(
        Drafts(store, rows, Requests(KEPT), validation, new_id=new_id, max_answer_bytes=largest),
        Publishing(store, rows, merging, saving or saving_of(store), new_id=new_id),
        Archiving(store, Requests(KEPT), new_id=new_id),
    )
