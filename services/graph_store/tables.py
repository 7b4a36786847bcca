"""The tables of the schema `graph_store`, as SQLAlchemy Core knows them; a test holds them against the migrations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

SCHEMA = "graph_store"

metadata = MetaData(schema=SCHEMA)


def _uuid(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, UUID(as_uuid=False), nullable=nullable, primary_key=key)


def _text(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable, primary_key=key)


def _when(name: str) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=False)


workflow = Table(
    "workflow",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _text("name", nullable=True),
    _text("description"),
    Column("labels", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("archived", Boolean, nullable=False),
    _when("created_date"),
    _when("last_modified_date"),
    _uuid("created_by", nullable=True),
    _text("created_by_name"),
    _uuid("last_modified_by", nullable=True),
    _text("last_modified_by_name"),
)

workflow_version = Table(
    "workflow_version",
    metadata,
    _text("namespace", key=True),
    _uuid("workflow_id", key=True),
    Column("version", Integer, primary_key=True),
    _text("name", nullable=True),
    _text("description"),
    Column("labels", JSONB, nullable=False),
    _text("document"),
    Column("content_hash", String(64), nullable=False),
    _text("row_ids"),
    Column("node_count", Integer, nullable=False),
    Column("edge_count", Integer, nullable=False),
    Column("layout", Boolean, nullable=False),
    Column("restored_from", Integer),
    _text("message"),
    _when("created_date"),
    _uuid("created_by", nullable=True),
    _text("created_by_name"),
)

task = Table(
    "task",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("workflow_id"),
    _text("node_id"),
    _text("label"),
    Column("position_x", Double),
    Column("position_y", Double),
    Column("options", JSONB, nullable=False),
    _when("created_date"),
    _when("last_modified_date"),
)

connection = Table(
    "connection",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("workflow_id"),
    _text("edge_id"),
    _uuid("source_task_id"),
    _uuid("target_task_id"),
    Column("kind", String(20), nullable=False),
    _text("condition"),
    _when("created_date"),
    _when("last_modified_date"),
)

module = Table(
    "module",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("workflow_id"),
    _uuid("task_id"),
    _text("class_name"),
    _text("module_data", nullable=True),
    _text("config", nullable=True),
    _text("target"),
    _when("created_date"),
    _when("last_modified_date"),
)

audit_event = Table(
    "audit_event",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("workflow_id", nullable=True),
    Column("action", String(40), nullable=False),
    _uuid("principal_id", nullable=True),
    _text("principal_name"),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("from_hash", String(64)),
    Column("to_hash", String(64)),
    _text("message"),
    Column("trace_id", String(32), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("written_in", BigInteger, nullable=False),
    _when("created_date"),
)

draft = Table(
    "draft",
    metadata,
    _text("namespace", key=True),
    _uuid("workflow_id", key=True),
    _text("principal_name", key=True),
    _uuid("principal_id", nullable=True),
    Column("base_version", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    _text("name", nullable=True),
    _text("description"),
    Column("labels", JSONB, nullable=False),
    _text("document", nullable=True),
    Column("content_hash", String(64)),
    _when("created_date"),
    _when("last_modified_date"),
)

answered_request = Table(
    "answered_request",
    metadata,
    _text("namespace", key=True),
    Column("method", String(40), primary_key=True),
    _text("request_id", key=True),
    Column("request_hash", LargeBinary, nullable=False),
    _text("answer"),
    _when("created_date"),
)

catalogue = Table(
    "catalogue",
    metadata,
    _text("namespace", key=True),
    Column("revision", Integer, nullable=False),
    _when("last_modified_date"),
)

module_spec = Table(
    "module_spec",
    metadata,
    _text("namespace", key=True),
    _text("class_name", key=True),
    _text("description"),
    _text("config_schema", nullable=True),
    _text("defaults"),
    _when("last_modified_date"),
    _uuid("last_modified_by", nullable=True),
    _text("last_modified_by_name"),
)
