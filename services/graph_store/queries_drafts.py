"""Statements of drafts and of archiving: one function, one statement."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, func, null, select, tuple_, update
from sqlalchemy.dialects.postgresql import INTERVAL, insert
from sqlalchemy.sql.dml import Insert, ReturningDelete, Update

from services.graph_store.tables import draft, workflow

_KEY = (draft.c.namespace, draft.c.workflow_id, draft.c.principal_name)
Key = tuple[str, str, str]
"""Namespace, workflow, principal."""


def lock_draft(key: Key, kept: timedelta) -> Select[Any]:
    """With `is_live`: whether there is a draft in its row, not older than `kept`."""
    return _draft(key, kept).with_for_update()


def select_draft(key: Key, kept: timedelta) -> Select[Any]:
    """As `lock_draft`, beside the published version of its workflow, null if there is none."""
    of_workflow = and_(workflow.c.namespace == draft.c.namespace, workflow.c.id == draft.c.workflow_id)
    return (
        _draft(key, kept)
        .add_columns(workflow.c.version.label("current_version"))
        .outerjoin_from(draft, workflow, of_workflow)
    )


def insert_draft(values: dict[str, Any], kept: timedelta) -> Insert:
    """No row comes back if another transaction was first."""
    return insert(draft).values(values).on_conflict_do_nothing(index_elements=_KEY).returning(draft, *_age(kept))


def update_draft(key: Key, values: dict[str, Any], kept: timedelta, *, anew: bool) -> Update:
    """`anew` where the one before is gone."""
    created = {"created_date": func.now()} if anew else {}
    return (
        update(draft)
        .where(*_is(key))
        .values(**values, **created, last_modified_date=func.now())
        .returning(draft, *_age(kept))
    )


def empty_draft(key: Key, revision: int) -> Update:
    """Takes all that it says out of a draft that is still at that revision; no row comes back if it is not."""
    return (
        update(draft)
        .where(*_is(key), draft.c.revision == revision, draft.c.document.is_not(None))
        .values(
            document=null(),
            content_hash=null(),
            name=null(),
            description="",
            labels={},
            last_modified_date=func.now(),
        )
        .returning(draft.c.revision)
    )


def delete_old_drafts(kept: timedelta, limit: int) -> ReturningDelete[Any]:
    """At most `limit`, oldest first; rows that somebody else holds are passed over."""
    old = (
        select(*_KEY)
        .where(draft.c.last_modified_date <= _ago(kept))
        .order_by(draft.c.last_modified_date)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return delete(draft).where(tuple_(*_KEY).in_(select(old))).returning(*_KEY, draft.c.content_hash)


def update_archived(namespace: str, workflow_id: str, archived: bool) -> Update:
    """Leaves `last_modified_date` and by whom alone: they are those of the version."""
    return (
        update(workflow)
        .where(workflow.c.namespace == namespace, workflow.c.id == workflow_id)
        .values(archived=archived)
        .returning(workflow)
    )


def _draft(key: Key, kept: timedelta) -> Select[Any]:
    return select(draft, *_age(kept)).where(*_is(key))


def _age(kept: timedelta) -> tuple[Any, Any]:
    is_live = and_(draft.c.document.is_not(None), draft.c.last_modified_date > _ago(kept))
    expires = draft.c.last_modified_date + bindparam("kept", kept, type_=INTERVAL, unique=True)
    return is_live.label("is_live"), expires.label("expire_date")


def _is(key: Key) -> list[Any]:
    return [column == value for column, value in zip(_KEY, key, strict=True)]


def _ago(age: timedelta) -> Any:
    return func.now() - bindparam("kept", age, type_=INTERVAL, unique=True)
