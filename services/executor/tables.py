"""The tables of the schema `executor`, as SQLAlchemy Core knows them; a test holds them against the migrations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import UUID

SCHEMA = "executor"

metadata = MetaData(schema=SCHEMA)


def _uuid(name: str, *, nullable: bool = False, key: bool = False) -> Column[Any]:
    return Column(name, UUID(), nullable=nullable, primary_key=key)


def _text(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable, primary_key=key)


def _short(name: str, length: int, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, String(length), nullable=nullable, primary_key=key)


def _integer(name: str, *, nullable: bool = False, key: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable, primary_key=key, autoincrement=False)


def _when(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


pinned_graph = Table(
    "pinned_graph",
    metadata,
    _text("namespace", key=True),
    _uuid("workflow_id", key=True),
    _integer("version", key=True),
    _text("content_hash"),
    _text("document"),
    _text("task_ids"),
    _when("created_date"),
)

module_defaults = Table(
    "module_defaults",
    metadata,
    _text("namespace", key=True),
    _integer("revision"),
    _text("defaults"),
    _when("last_modified_date"),
)

workflow_execution = Table(
    "workflow_execution",
    metadata,
    _uuid("id", key=True),
    _text("namespace"),
    _uuid("workflow_id"),
    _integer("version"),
    _short("state", 20),
    _integer("revision"),
    _integer("open_runs"),
    _integer("bad_runs"),
    Column("priority", SmallInteger, nullable=False),
    _when("started_at", nullable=True),
    _when("finished_at", nullable=True),
    _when("deadline", nullable=True),
    Column("cancel_requested", Boolean, nullable=False),
    _uuid("parent_execution_id", nullable=True),
    _uuid("restarted_from_id", nullable=True),
    _short("trigger_type", 20),
    _text("trigger_payload", nullable=True),
    _text("context_data", nullable=True),
    _short("error_type", 50, nullable=True),
    _text("error_message", nullable=True),
    _text("error_stack_trace", nullable=True),
    _text("metrics_snapshot", nullable=True),
    _short("trace_id", 32),
    _short("traceparent", 64),
    _text("request_id", nullable=True),
    Column("request_hash", LargeBinary, nullable=True),
    _when("created_date"),
    _when("last_modified_date"),
    Column("changed_in", BigInteger, nullable=False),
    _uuid("created_by", nullable=True),
    _text("created_by_name"),
    _uuid("last_modified_by", nullable=True),
    _short("ending", 20, nullable=True),
    _text("ended_by", nullable=True),
    _text("ended_reason", nullable=True),
    _text("cancel_request_id", nullable=True),
    Column("cancel_request_hash", LargeBinary, nullable=True),
)

run = Table(
    "run",
    metadata,
    _uuid("execution_id", key=True),
    _uuid("id", key=True),
    _text("namespace"),
    _integer("node_index"),
    _integer("map_index"),
    _text("node_id"),
    _uuid("task_id", nullable=True),
    _uuid("exec_module_id", nullable=True),
    _text("class_name"),
    Column("is_control", Boolean, nullable=False),
    _text("pool"),
    Column("rank", SmallInteger, nullable=False),
    _short("target", 500, nullable=True),
    _short("state", 20),
    _short("parked_by", 20, nullable=True),
    _integer("unmet"),
    _integer("taken"),
    Column("dead", Boolean, nullable=False),
    Column("excluded_edges", ARRAY(Integer), nullable=True),
    Column("chosen_edges", ARRAY(Integer), nullable=True),
    _text("broken_edge", nullable=True),
    _when("ready_at", nullable=True),
    _integer("ready_revision", nullable=True),
    _integer("settled_revision", nullable=True),
    _integer("epoch"),
    _integer("attempt"),
    _integer("failures"),
    _integer("lost_leases"),
    _integer("quarantine_number"),
    _short("leased_by", 255, nullable=True),
    _short("runner_id", 255, nullable=True),
    _when("lease_until", nullable=True),
    _when("heartbeat_at", nullable=True),
    _when("retry_after", nullable=True),
    _when("started_at", nullable=True),
    _when("finished_at", nullable=True),
    _integer("duration_ms", nullable=True),
    _short("idempotency_key", 128, nullable=True),
    _short("inputs_hash", 64, nullable=True),
    _short("config_hash", 64, nullable=True),
    Column("dedupes", Boolean, nullable=False),
    _uuid("reused_execution_id", nullable=True),
    _uuid("reused_run_id", nullable=True),
    _text("outputs", nullable=True),
    _text("progress", nullable=True),
    _text("error", nullable=True),
    _short("error_type", 20, nullable=True),
    Column("cost_tokens", Numeric, nullable=True),
    _uuid("episode_id", nullable=True),
    _when("created_date"),
    _when("deadline", nullable=True),
    _short("stop_reason", 20, nullable=True),
    _when("trusted_until", nullable=True),
    Column("always_decided", Boolean, nullable=False),
    _text("inputs", nullable=True),
    _integer("key_number"),
    _short("replay_traceparent", 64, nullable=True),
    _integer("replay_attempt"),
    _uuid("permit_id", nullable=True),
    _when("parked_at", nullable=True),
    Column("parked_ms", BigInteger, nullable=False),
)

run_attempt = Table(
    "run_attempt",
    metadata,
    _uuid("execution_id", key=True),
    _uuid("run_id", key=True),
    _integer("epoch", key=True),
    _integer("attempt"),
    _short("outcome", 20),
    _short("runner_id", 255, nullable=True),
    _when("started_at", nullable=True),
    _when("finished_at"),
    _text("error", nullable=True),
    _text("error_stack_trace", nullable=True),
)

runner = Table(
    "runner",
    metadata,
    _text("namespace", key=True),
    _short("runner_id", 255, key=True),
    _uuid("incarnation"),
    _text("pool"),
    Column("class_names", ARRAY(Text), nullable=False),
    _integer("capacity"),
    _when("registered_at"),
    _when("last_seen_at"),
    Column("draining", Boolean, nullable=False),
    _text("host"),
    _text("version"),
    Column("serves_all", Boolean, nullable=False),
    Column("replaced", ARRAY(UUID()), nullable=False),
    _text("lease_request_id", nullable=True),
    _when("leased_at", nullable=True),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("namespace"),
    _uuid("execution_id"),
    _uuid("run_id"),
    _integer("quarantine_number"),
    _short("kind", 20),
    _when("created_date"),
    _when("refused_at", nullable=True),
    _text("problem", nullable=True),
)

# Pauses and resumes.
execution_intervention = Table(
    "execution_intervention",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("namespace"),
    _uuid("execution_id"),
    _short("kind", 20),
    _text("principal"),
    _text("reason", nullable=True),
    _text("request_id", nullable=True),
    Column("request_hash", LargeBinary, nullable=True),
    Column("took_effect", Boolean, nullable=False),
    _when("created_date"),
)

run_quarantine = Table(
    "run_quarantine",
    metadata,
    _uuid("execution_id", key=True),
    _uuid("run_id", key=True),
    _integer("quarantine_number", key=True),
    _text("namespace"),
    _short("failure_type", 50),
    _short("error_type", 20),
    _text("error", nullable=True),
    _integer("revision"),
    _integer("attempt"),
    _short("target", 500, nullable=True),
    _uuid("episode_id", nullable=True),
    _short("idempotency_key", 128, nullable=True),
    _text("inputs", nullable=True),
    _short("traceparent", 64, nullable=True),
    _when("quarantined_at"),
    _short("resolution", 20),
    _text("resolved_by", nullable=True),
    _when("resolved_at", nullable=True),
    _text("reason", nullable=True),
    _text("request_id", nullable=True),
    Column("request_hash", LargeBinary, nullable=True),
    _short("resolution_traceparent", 64, nullable=True),
)
