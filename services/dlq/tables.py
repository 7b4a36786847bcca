"""The tables of the schema `dlq`, as SQLAlchemy Core knows them; a test holds them against the migrations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, DateTime, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import UUID

SCHEMA = "dlq"

metadata = MetaData(schema=SCHEMA)


def _uuid(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, UUID(as_uuid=False), nullable=nullable, primary_key=key)


def _text(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable, primary_key=key)


def _short(name: str, length: int, *, nullable: bool = False) -> Column[str]:
    return Column(name, String(length), nullable=nullable)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _when(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


dead_letter_queue = Table(
    "dead_letter_queue",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("run_id"),
    _uuid("execution_id"),
    _uuid("task_id", nullable=True),
    _text("failure_reason", nullable=True),
    _short("failure_type", 50, nullable=True),
    _text("original_inputs", nullable=True),
    _text("original_config", nullable=True),
    _when("quarantined_at"),
    _uuid("reviewed_by", nullable=True),
    _short("resolution", 20),
    _when("resolved_at", nullable=True),
    _text("notes", nullable=True),
    _when("created_date"),
    _when("last_modified_date"),
    _uuid("created_by", nullable=True),
    _uuid("last_modified_by", nullable=True),
    _text("reviewed_by_name"),
    _text("created_by_name"),
    _text("last_modified_by_name"),
    _text("node_id"),
    _uuid("workflow_id", nullable=True),
    _number("version"),
    _text("class_name"),
    _number("quarantine_number"),
    _text("error_type"),
    _text("target"),
    _text("episode_id"),
    _short("trace_id", 32),
    _short("traceparent", 55),
    _text("attempts"),
    _text("stack_traces"),
    _text("idempotency_key"),
    _uuid("previous_id", nullable=True),
    _number("requeue_count"),
    _uuid("resolved_by", nullable=True),
    _text("resolved_by_name"),
    _text("resolution_reason"),
    _short("requested_resolution", 20, nullable=True),
    _uuid("intent_id", nullable=True),
)

early_resolution = Table(
    "early_resolution",
    metadata,
    _text("namespace", key=True),
    _uuid("run_id", key=True),
    Column("quarantine_number", Integer, primary_key=True),
    _uuid("execution_id"),
    _short("resolution", 20),
    _text("resolved_by_name"),
    _text("reason"),
    _when("resolved_at"),
    _when("created_date"),
)

resolution_intent = Table(
    "resolution_intent",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("dead_letter_id"),
    _short("resolution", 20),
    _short("state", 20),
    _text("content"),
    Column("request_hash", LargeBinary, nullable=False),
    _text("reason"),
    _text("problem"),
    _uuid("principal_id", nullable=True),
    _text("principal_name"),
    _short("traceparent", 55),
    _number("tries"),
    _when("next_try_at"),
    _when("created_date"),
    _when("last_modified_date"),
)

audit_event = Table(
    "audit_event",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("dead_letter_id"),
    _short("action", 40),
    _short("from_resolution", 20, nullable=True),
    _short("to_resolution", 20),
    _uuid("principal_id", nullable=True),
    _text("principal_name"),
    _text("reason"),
    _text("detail"),
    _short("trace_id", 32),
    _when("created_date"),
)

answered_request = Table(
    "answered_request",
    metadata,
    _text("namespace", key=True),
    Column("method", String(40), primary_key=True),
    _text("request_id", key=True),
    Column("request_hash", LargeBinary, nullable=False),
    _uuid("intent_id"),
    _when("created_date"),
)
