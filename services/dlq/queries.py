"""One function, one statement. Values are parameters, batches are arrays, identifiers are constants of tables.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Integer,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    null,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL, UUID, insert
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.selectable import FromClause

from services.dlq.tables import answered_request, audit_event, dead_letter_queue, early_resolution, resolution_intent

_ID = UUID(as_uuid=False)
LOCKS = 64
"""Advisory locks that runs share; few, so that a batch never fills PostgreSQL's table of locks."""
_LOCK_CLASS = 0x444C51
HEAVY = ("original_inputs", "original_config", "stack_traces")
"""Columns that lists leave out."""

letter = dead_letter_queue.c
intent = resolution_intent.c


def take_locks(numbers: Sequence[int]) -> Select[Any]:
    """Advisory locks until the transaction's end, in the order given."""
    given = func.unnest(bindparam("numbers", list(numbers), type_=ARRAY(BigInteger))).table_valued(
        Column("number", BigInteger), name="given"
    )
    given = given.render_derived()
    rows = select(given.c.number).cte("rows").prefix_with("MATERIALIZED", dialect="postgresql")
    return select(func.pg_advisory_xact_lock(_LOCK_CLASS, cast(rows.c.number, Integer)))


def lock_letters_of_runs(namespaces: Sequence[str], run_ids: Sequence[str]) -> Select[Any]:
    """What a batch of events needs of the letters of some runs, locked in the order of their ids."""
    open_intent = and_(
        resolution_intent.c.namespace == letter.namespace,
        resolution_intent.c.id == letter.intent_id,
        resolution_intent.c.state == "OPEN",
    )
    return (
        select(
            letter.namespace,
            letter.run_id,
            letter.quarantine_number,
            letter.id,
            letter.resolution,
            letter.previous_id,
            intent.id.label("intent_id"),
            intent.resolution.label("intent_resolution"),
            intent.principal_name.label("intent_principal"),
            intent.reason.label("intent_reason"),
        )
        .select_from(dead_letter_queue.outerjoin(resolution_intent, open_intent))
        .where(tuple_(letter.namespace, letter.run_id).in_(_runs(namespaces, run_ids)))
        .order_by(letter.namespace, letter.id)
        .with_for_update(of=dead_letter_queue)
    )


def select_early_resolutions(namespaces: Sequence[str], run_ids: Sequence[str]) -> Select[Any]:
    early = early_resolution.c
    return select(early_resolution).where(tuple_(early.namespace, early.run_id).in_(_runs(namespaces, run_ids)))


def row_arrays(table: Table, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The parameters of `insert_rows`: an array for each column; all rows have the columns of the first."""
    return {f"all_{name}": [row[name] for row in rows] for name in rows[0]}


@cache
def insert_rows(table: Table, names: tuple[str, ...]) -> Insert:
    """All rows in one statement, whatever their number; those that are there already stay as they are."""
    given = _given(table, names)
    values = [_value(table, given, name) for name in names]
    return insert(table).from_select(list(names), select(*values)).on_conflict_do_nothing()


SETTLEMENT = (
    "namespace",
    "id",
    "resolution",
    "resolved_by",
    "resolved_by_name",
    "resolution_reason",
    "resolved_at",
    "intent_id",
)


@cache
def settle_letters() -> Update:
    """Resolves every letter given that is PENDING still; takes `row_arrays` of SETTLEMENT. The ids of those it did."""
    given = _given(dead_letter_queue, SETTLEMENT)
    value = {name: _value(dead_letter_queue, given, name) for name in SETTLEMENT}
    unreviewed = letter.reviewed_by_name == ""
    return (
        update(dead_letter_queue)
        .values(
            resolution=value["resolution"],
            resolved_by=value["resolved_by"],
            resolved_by_name=value["resolved_by_name"],
            resolution_reason=value["resolution_reason"],
            resolved_at=func.coalesce(value["resolved_at"], func.now()),
            intent_id=value["intent_id"],
            requested_resolution=null(),
            reviewed_by=case((unreviewed, value["resolved_by"]), else_=letter.reviewed_by),
            reviewed_by_name=case((unreviewed, value["resolved_by_name"]), else_=letter.reviewed_by_name),
            last_modified_by=value["resolved_by"],
            last_modified_by_name=value["resolved_by_name"],
            last_modified_date=func.now(),
        )
        .where(letter.namespace == value["namespace"], letter.id == value["id"], letter.resolution == "PENDING")
        .returning(letter.id)
    )


@cache
def link_letters() -> Update:
    """Takes `row_arrays` of namespace, id and previous_id."""
    given = _given(dead_letter_queue, ("namespace", "id", "previous_id"))
    return (
        update(dead_letter_queue)
        .values(previous_id=_value(dead_letter_queue, given, "previous_id"))
        .where(letter.namespace == given.c.namespace, letter.id == _value(dead_letter_queue, given, "id"))
    )


@cache
def end_intents() -> Update:
    """Takes `row_arrays` of namespace, id, state and problem."""
    given = _given(resolution_intent, ("namespace", "id", "state", "problem"))
    return (
        update(resolution_intent)
        .values(state=given.c.state, problem=given.c.problem, last_modified_date=func.now())
        .where(intent.namespace == given.c.namespace, intent.id == _value(resolution_intent, given, "id"))
    )


@cache
def delete_early_resolutions() -> Delete:
    """Takes `row_arrays` of namespace, run_id and quarantine_number."""
    names = ("namespace", "run_id", "quarantine_number")
    given = _given(early_resolution, names)
    met = [early_resolution.c[name] == _value(early_resolution, given, name) for name in names]
    return delete(early_resolution).where(*met)


def select_letter(namespace: str, letter_id: str) -> Select[Any]:
    """Whole, with the last of its intents that was refused."""
    refused = (
        select(
            intent.resolution.label("refused_resolution"),
            intent.principal_name.label("refused_to"),
            intent.problem.label("refused_because"),
            intent.last_modified_date.label("refused_at"),
        )
        .where(intent.namespace == letter.namespace, intent.dead_letter_id == letter.id, intent.state == "REFUSED")
        .order_by(intent.id.desc())
        .limit(1)
        .lateral("refused")
    )
    statement = select(dead_letter_queue, refused).select_from(dead_letter_queue.outerjoin(refused, true()))
    return statement.where(letter.namespace == namespace, letter.id == letter_id)


def select_now() -> Select[Any]:
    return select(func.now())


def lock_letter(namespace: str, letter_id: str) -> Select[Any]:
    return _light().where(letter.namespace == namespace, letter.id == letter_id).with_for_update()


def request_resolution(namespace: str, letter_id: str, resolution: str, intent_id: str) -> Update:
    """The guard of every resolution: only where it is PENDING and nobody else's intent is open."""
    return (
        update(dead_letter_queue)
        .values(requested_resolution=resolution, intent_id=intent_id, last_modified_date=func.now())
        .where(
            letter.namespace == namespace,
            letter.id == letter_id,
            letter.resolution == "PENDING",
            letter.intent_id.is_(None),
        )
        .returning(letter.id)
    )


def withdraw_intent(namespace: str, letter_id: str, intent_id: str) -> Update:
    """The letter is open to others again."""
    return (
        update(dead_letter_queue)
        .values(requested_resolution=null(), intent_id=null(), last_modified_date=func.now())
        .where(letter.namespace == namespace, letter.id == letter_id, letter.intent_id == intent_id)
    )


def insert_intent(values: dict[str, Any], *, due_in: timedelta) -> Insert:
    return insert(resolution_intent).values(**values, next_try_at=_in(due_in))


def select_intent(namespace: str, intent_id: str) -> Select[Any]:
    return _intents().where(intent.namespace == namespace, intent.id == intent_id)


def postpone_intent(namespace: str, intent_id: str, delay: timedelta) -> Update:
    return (
        update(resolution_intent)
        .values(next_try_at=_in(delay), last_modified_date=func.now())
        .where(intent.namespace == namespace, intent.id == intent_id, intent.state == "OPEN")
    )


def claim_due_intents(limit: int, lease: timedelta) -> Update:
    """Counts a try for each and puts the next off by `lease`, so that one replica at a time tries it."""
    due = (
        select(intent.namespace, intent.id)
        .where(intent.state == "OPEN", intent.next_try_at <= func.now())
        .order_by(intent.next_try_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return (
        update(resolution_intent)
        .values(tries=intent.tries + 1, next_try_at=_in(lease), last_modified_date=func.now())
        .where(tuple_(intent.namespace, intent.id).in_(select(due)))
        .returning(intent.namespace, intent.id)
    )


def select_intents(namespaces: Sequence[str], ids: Sequence[str]) -> Select[Any]:
    return _intents().where(tuple_(intent.namespace, intent.id).in_(_runs(namespaces, ids)))


def select_next_due() -> Select[Any]:
    """How long until the next open intent is due, null if there is none."""
    return select(func.min(intent.next_try_at) - func.now()).where(intent.state == "OPEN")


def select_request(namespace: str, method: str, request_id: str, kept: timedelta) -> Select[Any]:
    """A request that was answered at most `kept` ago, or is not answered yet."""
    answered = answered_request.c
    same = and_(intent.namespace == answered.namespace, intent.id == answered.intent_id)
    return (
        select(answered.request_hash, answered.intent_id)
        .select_from(answered_request.join(resolution_intent, same))
        .where(
            answered.namespace == namespace,
            answered.method == method,
            answered.request_id == request_id,
            (answered.created_date > _ago(kept)) | (intent.state == "OPEN"),
        )
    )


def insert_request(values: dict[str, Any], kept: timedelta) -> Insert:
    """Takes the place of one that is older than `kept`. No row comes back if another transaction was first."""
    statement = insert(answered_request).values(values)
    key = [answered_request.c.namespace, answered_request.c.method, answered_request.c.request_id]
    return statement.on_conflict_do_update(
        index_elements=key,
        set_={
            "request_hash": statement.excluded.request_hash,
            "intent_id": statement.excluded.intent_id,
            "created_date": func.now(),
        },
        where=answered_request.c.created_date <= _ago(kept),
    ).returning(answered_request.c.request_id)


def forget_request(namespace: str, intent_id: str) -> Delete:
    return delete(answered_request).where(
        answered_request.c.namespace == namespace, answered_request.c.intent_id == intent_id
    )


def delete_old_requests(kept: timedelta, limit: int) -> Delete:
    """At most `limit`, oldest first, of those that are answered; rows that somebody else prunes are passed over."""
    answered = answered_request.c
    key = tuple_(answered.namespace, answered.method, answered.request_id)
    is_open = (
        select(intent.id)
        .where(intent.namespace == answered.namespace, intent.id == answered.intent_id, intent.state == "OPEN")
        .exists()
    )
    old = (
        select(answered.namespace, answered.method, answered.request_id)
        .where(answered.created_date <= _ago(kept), ~is_open)
        .order_by(answered.created_date)
        .limit(limit)
        .with_for_update(skip_locked=True, of=answered_request)
        .cte("old")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return delete(answered_request).where(key.in_(select(old)))


def insert_audit_events(names: tuple[str, ...]) -> Insert:
    return insert_rows(audit_event, names)


def _light() -> Select[Any]:
    return select(*(column for column in dead_letter_queue.c if column.name not in HEAVY))


def _intents() -> Select[Any]:
    same = and_(letter.namespace == intent.namespace, letter.id == intent.dead_letter_id)
    return select(
        resolution_intent,
        letter.run_id,
        letter.execution_id,
        letter.quarantine_number,
        letter.traceparent.label("letter_traceparent"),
        letter.target,
    ).select_from(resolution_intent.join(dead_letter_queue, same))


def _runs(namespaces: Sequence[str], ids: Sequence[str]) -> Any:
    """Pairs of a namespace and an id, as rows."""
    arrays = [
        bindparam("namespaces", list(namespaces), type_=ARRAY(Text)),
        bindparam("ids", list(ids), type_=ARRAY(Text)),
    ]
    given = func.unnest(*arrays).table_valued(Column("namespace", Text), Column("id", Text), name="named")
    given = given.render_derived()
    return select(given.c.namespace, cast(given.c.id, _ID))


def _given(table: Table, names: Sequence[str]) -> FromClause:
    arrays = [bindparam(f"all_{name}", type_=ARRAY(_travels_as(table, name))) for name in names]
    columns: list[Column[Any]] = [Column(name, _travels_as(table, name)) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _travels_as(table: Table, name: str) -> Any:
    """UUIDs travel as text: the driver would otherwise convert each by itself."""
    kind = table.c[name].type
    return Text() if isinstance(kind, UUID | String) else kind


def _value(table: Table, given: FromClause, name: str) -> Any:
    column, target = given.c[name], table.c[name]
    if isinstance(target.type, UUID):
        return cast(column, _ID)
    # A time that is not given is the present one.
    return func.coalesce(column, func.now()) if _is_time(target) and not target.nullable else column


def _is_time(column: Column[Any]) -> bool:
    return column.type.python_type is datetime


def _in(delay: timedelta) -> Any:
    return func.now() + bindparam("delay", delay, type_=INTERVAL, unique=True)


def _ago(age: timedelta) -> Any:
    return func.now() - bindparam("kept", age, type_=INTERVAL, unique=True)
