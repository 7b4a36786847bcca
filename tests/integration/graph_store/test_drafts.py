"""Drafts and archiving on a real PostgreSQL: races, a database that dies in the middle, and drafts that grow old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.chassis.database import Database
from services.graph_store.graphs import Graphs
from services.graph_store.model import Author, CorruptVersion, Request, SavedVersion
from services.graph_store.store import Store
from tests.builders import a_graph
from tests.integration.graph_store.conftest import Saves, saving_of
from tests.integration.graph_store.draft_lab import DRAFTS_KEPT, ID, DraftLab, lab_of
from tests.integration.graph_store.test_concurrency import before, statements
from tests.postgres import PostgresForTests
from valkyr.errors import DraftConflict, DraftNotFound, MergeConflict, Unavailable, VersionConflict, WorkflowArchived

Sql = Callable[..., Any]
ROWS = "select (select jsonb_agg(t order by t::text)::text from graph_store.{} t)"


@pytest.fixture
def lab(store: Store) -> DraftLab:
    return lab_of(store)


async def actions(sql: Sql) -> list[str]:
    return [row[0] for row in await sql("select action from graph_store.audit_event order by number")]


async def test_of_twenty_windows_that_save_one_revision_one_wins(lab: DraftLab) -> None:
    await lab.save("a")
    outcomes = await asyncio.gather(
        *(lab.save(f"a, b{number}", revision=1) for number in range(20)), return_exceptions=True
    )
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, DraftConflict)]
    assert (len(losers), {loser.current_revision for loser in losers}) == (19, {2})
    assert (await lab.get()).draft == winner.draft


async def test_twenty_windows_that_begin_a_draft_make_one(lab: DraftLab, sql: Sql) -> None:
    answers = await asyncio.gather(*(lab.save(f"a{number}") for number in range(20)))
    assert sorted(answer.draft.revision for answer in answers) == list(range(1, 21))
    assert (await sql("select count(*), max(revision) from graph_store.draft"))[0] == (1, 20)


async def test_i02_publishers_whose_changes_go_together_are_all_published(
    save: Saves, lab: DraftLab, graphs: Graphs
) -> None:
    await save("a", id=ID)
    authors = [Author(f"author {number}") for number in range(8)]
    for number, author in enumerate(authors):
        await lab.save(f"a, b{number}", author=author)
    published = await asyncio.gather(*(lab.publish(author=author) for author in authors))
    assert sorted(answer.stored.workflow.version for answer in published) == list(range(2, 10))
    nodes = {node.node_id for node in (await graphs.get("default", ID, None))[1].nodes}
    assert nodes == {"a", *(f"b{number}" for number in range(8))}


async def test_i02_of_publishers_who_change_the_same_one_wins_and_the_others_keep_their_drafts(
    save: Saves, lab: DraftLab
) -> None:
    await save("a", id=ID)
    authors = [Author(f"author {number}") for number in range(8)]
    for author in authors:
        await lab.save(a_graph("a", nodes={"a": {"label": author.principal}}), author=author)
    outcomes = await asyncio.gather(*(lab.publish(author=author) for author in authors), return_exceptions=True)
    assert sum(isinstance(outcome, SavedVersion) for outcome in outcomes) == 1
    for author, outcome in zip(authors, outcomes, strict=True):
        if isinstance(outcome, MergeConflict):
            assert outcome.current_version == 2
            assert (await lab.get(author=author)).draft.revision == 1
        else:
            assert isinstance(outcome, SavedVersion)


async def test_publishing_and_saving_at_once_lose_nothing(save: Saves, lab: DraftLab, graphs: Graphs) -> None:
    await save("a", id=ID)
    for round_ in range(10):
        version = (await graphs.get("default", ID, None))[0].workflow.version
        known = (await graphs.get("default", ID, None))[1]
        nodes = ", ".join(node.node_id for node in known.nodes)
        await lab.save(f"{nodes}, mine{round_}")
        saved, published = await asyncio.gather(
            save(f"{nodes}, theirs{round_}", id=ID, version=version), lab.publish(), return_exceptions=True
        )
        assert isinstance(published, SavedVersion)
        now = {node.node_id for node in (await graphs.get("default", ID, None))[1].nodes}
        assert f"mine{round_}" in now
        assert isinstance(saved, SavedVersion | VersionConflict)
        assert (f"theirs{round_}" in now) == isinstance(saved, SavedVersion)


async def test_a_draft_that_is_saved_while_it_is_published_is_never_lost(
    save: Saves, lab: DraftLab, graphs: Graphs
) -> None:
    await save("a", id=ID)
    for round_ in range(10):
        await lab.save(f"a, first{round_}")
        await asyncio.gather(lab.publish(), lab.save(f"a, second{round_}"))
        try:
            left = {node.node_id for node in (await lab.get()).graph.nodes}
        except DraftNotFound:
            left = {node.node_id for node in (await graphs.get("default", ID, None))[1].nodes}
        else:
            await lab.discard()
        assert f"second{round_}" in left


class _Between:
    """Saves as `Saving` does; but something else happens once it has been asked for an answer to the request."""

    def __init__(self, store: Store, act: Callable[[], Awaitable[object]]) -> None:
        self._saving = saving_of(store)
        self.save = self._saving.save
        self._act: Callable[[], Awaitable[object]] | None = act

    async def answer_to(self, namespace: str, request: Request) -> SavedVersion | None:
        answer = await self._saving.answer_to(namespace, request)
        act, self._act = self._act, None
        if act is not None:
            await act()
        return answer


def interrupted(store: Store, lab: DraftLab, act: Callable[[], Awaitable[object]]) -> DraftLab:
    """Drafts whose publishing meets `act` between the reading of the draft and the save."""
    return replace(lab, publishing=lab_of(store, saving=_Between(store, act)).publishing)  # type: ignore[arg-type]


async def test_a_draft_that_is_discarded_while_it_is_published_is_not_published(
    save: Saves, lab: DraftLab, store: Store, sql: Sql
) -> None:
    await save("a", id=ID)
    await lab.save("a, b")
    with pytest.raises(DraftNotFound):
        await interrupted(store, lab, lab.discard).publish()
    assert await actions(sql) == ["workflow.created", "draft.saved", "draft.discarded"]


async def test_a_draft_that_is_saved_while_it_is_published_is_published_as_it_is_then(
    save: Saves, lab: DraftLab, store: Store
) -> None:
    await save("a", id=ID)
    await lab.save("a, b")
    answer = await interrupted(store, lab, lambda: lab.save("a, c")).publish()
    assert {node.node_id for node in answer.graph.nodes} == {"a", "c"}
    assert answer.stored.workflow.version == 2


async def test_a_named_revision_that_is_overtaken_while_it_is_published_is_not_published(
    save: Saves, lab: DraftLab, store: Store, graphs: Graphs
) -> None:
    await save("a", id=ID)
    await lab.save("a, b")
    with pytest.raises(DraftConflict):
        await interrupted(store, lab, lambda: lab.save("a, c")).publish(revision=1)
    assert (await graphs.get("default", ID, None))[0].workflow.version == 1
    assert (await lab.get()).draft.revision == 2


@pytest.mark.parametrize("there", [True, False], ids=["changed", "created"])
async def test_what_others_save_while_it_is_published_is_merged(
    save: Saves, lab: DraftLab, store: Store, there: bool
) -> None:
    if there:
        await save("a", id=ID)
    await lab.save("a, mine")
    theirs = interrupted(store, lab, lambda: save("a, theirs", id=ID, version=1 if there else None))
    answer = await theirs.publish()
    assert {node.node_id for node in answer.graph.nodes} == {"a", "mine", "theirs"}
    assert (answer.merged, answer.stored.workflow.version) == (True, 2 + there)


async def test_a_repeat_whose_first_is_published_meanwhile_gets_its_answer(
    save: Saves, lab: DraftLab, store: Store
) -> None:
    await save("a", id=ID)
    await lab.save("a, b")
    first: list[SavedVersion] = []

    async def publish() -> None:
        first.append(await lab.publish(request_id="r"))

    assert await interrupted(store, lab, publish).publish(request_id="r") == first[0]


async def test_a_repeat_that_would_not_merge_any_more_gets_the_answer_of_the_first(
    save: Saves, lab: DraftLab, store: Store
) -> None:
    await save("a, b", id=ID)
    await lab.save("a -> b")
    await save("a, b, c", id=ID, version=1, author=Author("other"))
    first: list[SavedVersion] = []

    async def publish_and_go_on() -> None:
        first.append(await lab.publish(request_id="r"))
        await save("b -> a, c", id=ID, version=3, author=Author("other"))

    repeat = interrupted(store, lab, publish_and_go_on)
    assert await repeat.publish(request_id="r") == first[0]


async def test_i09_racing_repeats_of_a_publish_get_one_answer(save: Saves, lab: DraftLab, sql: Sql) -> None:
    await save("a", id=ID)
    await lab.save("a, b")
    answers = await asyncio.gather(*(lab.publish(request_id="r") for _ in range(10)))
    assert {answer.stored.workflow.version for answer in answers} == {2}
    assert all(answer == answers[0] for answer in answers)
    assert await actions(sql) == ["workflow.created", "draft.saved", "workflow.published"]


@pytest.mark.parametrize("stale", [False, True], ids=["current base", "merged"])
async def test_i01_a_publish_cut_off_at_any_statement_keeps_draft_and_version(
    save: Saves,
    lab: DraftLab,
    graphs: Graphs,
    database: Database,
    sql: Sql,
    postgres: PostgresForTests,
    graph_store_database_url: str,
    stale: bool,
) -> None:
    await save("a", id=ID)
    await lab.save("a -> b")
    if stale:
        await save("a, theirs", id=ID, version=1)
    tables = (
        "workflow",
        "workflow_version",
        "task",
        "connection",
        "module",
        "audit_event",
        "answered_request",
        "draft",
    )
    untouched = [await sql(ROWS.format(table)) for table in tables]

    def kill_backends() -> None:
        postgres.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'graph store under test' and datname = current_database()",
            url=postgres.admin_url_in(graph_store_database_url),
        )

    cut, refused = 1, 0
    while True:
        with statements(database, before(cut, kill_backends)) as seen:
            try:
                await lab.publish(request_id="r")
            except Unavailable:
                refused += 1
            else:
                if len(seen) <= cut:
                    break
        assert [await sql(ROWS.format(table)) for table in tables] == untouched
        cut += 1
    assert refused >= 12
    assert (await lab.publish(request_id="r")).stored.workflow.version == 2 + stale
    assert "b" in {node.node_id for node in (await graphs.get("default", ID, None))[1].nodes}
    with pytest.raises(DraftNotFound):
        await lab.get()


async def test_archiving_and_saving_at_once_leave_no_version_after_the_archiving(
    save: Saves, lab: DraftLab, sql: Sql
) -> None:
    await save("a", id=ID)
    outcomes = await asyncio.gather(
        *(save(f"a, b{number}", id=ID, version=1) for number in range(5)),
        lab.archive(),
        *(save(f"a, c{number}", id=ID, version=1) for number in range(5)),
        return_exceptions=True,
    )
    assert True in outcomes
    kinds = {type(outcome) for outcome in outcomes if not isinstance(outcome, bool)}
    assert kinds <= {SavedVersion, VersionConflict, WorkflowArchived}
    assert (await actions(sql))[-1] == "workflow.archived"


async def test_i09_racing_repeats_of_an_archiving_leave_one_event(save: Saves, lab: DraftLab, sql: Sql) -> None:
    await save("a", id=ID)
    assert await asyncio.gather(*(lab.archive(request_id="r") for _ in range(10))) == [True] * 10
    assert await actions(sql) == ["workflow.created", "workflow.archived"]


async def test_an_archiving_changes_neither_when_nor_by_whom_the_version_was_saved(
    save: Saves, lab: DraftLab, graphs: Graphs, sql: Sql
) -> None:
    await save("a", id=ID, author=Author("first"))
    before_, _ = await graphs.get("default", ID, None)
    row = "select last_modified_date, last_modified_by_name from graph_store.workflow"
    saved = await sql(row)
    await lab.archive()
    assert await sql(row) == saved
    await lab.archive(archived=False)
    assert (await graphs.get("default", ID, None))[0] == before_
    assert (await save("a", id=ID, author=Author("first"))).unchanged


async def age(sql: Sql, by: timedelta) -> None:
    await sql("update graph_store.draft set last_modified_date = last_modified_date - $1::interval", by)


async def test_a_draft_is_kept_up_to_its_age_and_saving_it_makes_it_young(lab: DraftLab, sql: Sql) -> None:
    await lab.save("a")
    await age(sql, DRAFTS_KEPT - timedelta(minutes=1))
    assert await lab.drafts.prune(10) == 0
    assert (await lab.get()).draft.revision == 1
    await lab.save("b")
    await age(sql, timedelta(minutes=2))
    assert (await lab.get()).draft.revision == 2


async def test_a_draft_over_its_age_is_none_pruned_or_not(save: Saves, lab: DraftLab, sql: Sql) -> None:
    await save("a", id=ID)
    await lab.save("b", base_version=0)
    await age(sql, DRAFTS_KEPT)
    for call in (lab.get, lab.discard, lab.publish):
        with pytest.raises(DraftNotFound):
            await call()
    again = (await lab.save("c")).draft
    assert (again.base_version, again.revision) == (1, 2)
    assert again.created_at == again.updated_at


async def test_i04_pruning_removes_old_drafts_a_few_at_a_time_and_says_so(lab: DraftLab, sql: Sql) -> None:
    for number in range(5):
        await lab.save("a", author=Author(f"author {number}"))
    await lab.discard(author=Author("author 0"))
    await age(sql, DRAFTS_KEPT)
    await lab.save("a", author=Author("author 4"))
    assert [await lab.drafts.prune(3), await lab.drafts.prune(3), await lab.drafts.prune(3)] == [3, 1, 0]
    assert [row[0] for row in await sql("select principal_name from graph_store.draft")] == ["author 4"]
    rows = await sql(
        "select message, principal_name, from_hash is not null as hash from graph_store.audit_event"
        " where action = 'draft.expired' order by message"
    )
    assert [tuple(row) for row in rows] == [(f"the draft of author {n}", "graph-store", True) for n in (1, 2, 3)]


async def test_old_drafts_are_found_by_their_index(lab: DraftLab, sql: Sql) -> None:
    await lab.save("a")
    await sql("set enable_seqscan = off")
    plan = "\n".join(
        row[0]
        for row in await sql(
            "explain select 1 from graph_store.draft where last_modified_date <= now() - interval '90 days'"
            " order by last_modified_date limit 1000"
        )
    )
    assert "draft_age_idx" in plan


async def test_nothing_of_what_a_draft_said_is_left(save: Saves, lab: DraftLab, sql: Sql) -> None:
    await save("a", id=ID, description="secret", labels={"secret": "x"}, name="secret")
    for end in (lab.discard, lab.publish):
        await lab.save("secret, a")
        await end()
        assert "secret" not in str((await sql("select * from graph_store.draft"))[0])


async def test_a_draft_that_does_not_match_its_hash_is_neither_answered_nor_published(
    save: Saves, lab: DraftLab, sql: Sql
) -> None:
    await save("a", id=ID)
    await lab.save("a -> b")
    await sql("update graph_store.draft set document = replace(document, '\"b\"', '\"c\"')")
    for call in (lab.get, lab.publish):
        with pytest.raises(CorruptVersion):
            await call()


@pytest.mark.parametrize("size", [10, 1_000])
async def test_the_number_of_statements_does_not_grow_with_the_graph(
    save: Saves, lab: DraftLab, database: Database, size: int
) -> None:
    await save("a", id=ID)
    wide = "a, " + ", ".join(f"n{number}" for number in range(size))
    with statements(database) as saved:
        await lab.save(wide)
    with statements(database) as read:
        await lab.get()
    with statements(database) as published:
        await lab.publish(request_id="r")
    assert (len(saved), len(read), len(published)) == (4, 1, 13)
