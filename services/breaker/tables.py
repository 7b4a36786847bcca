"""The tables of the schema `breaker`, as SQLAlchemy Core knows them; a test holds them against the migrations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import UUID

SCHEMA = "breaker"

metadata = MetaData(schema=SCHEMA)


def _uuid(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, UUID(as_uuid=False), nullable=nullable, primary_key=key)


def _text(name: str, *, nullable: bool = False, key: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable, primary_key=key)


def _word(name: str, length: int) -> Column[str]:
    return Column(name, String(length), nullable=False)


def _number(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable)


def _when(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


circuit_breaker_state = Table(
    "circuit_breaker_state",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _word("target", 500),
    _word("state", 20),
    _number("failure_count"),
    _number("success_count"),
    _when("last_failure_at", nullable=True),
    _when("opened_at", nullable=True),
    _when("next_retry_at", nullable=True),
    _when("window_start_at"),
    _when("created_date"),
    _when("last_modified_date"),
    _uuid("created_by", nullable=True),
    _uuid("last_modified_by", nullable=True),
    _number("generation"),
    _uuid("episode_id", nullable=True),
    Column("forced", Boolean, nullable=False),
    _text("forced_by_name", nullable=True),
    _text("forced_reason", nullable=True),
    _when("forced_until", nullable=True),
    Column("revision", BigInteger, nullable=False),
)

permit = Table(
    "permit",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("breaker_id"),
    _number("generation"),
    _text("run_id"),
    _number("epoch"),
    _when("granted_at"),
    _when("expires_at"),
)

counted_report = Table(
    "counted_report",
    metadata,
    _text("namespace", key=True),
    _uuid("breaker_id", key=True),
    _text("report_id", key=True),
    _when("created_date"),
)

transition = Table(
    "transition",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("breaker_id"),
    _word("target", 500),
    _word("from_state", 20),
    _word("to_state", 20),
    _number("generation"),
    _word("cause", 20),
    _uuid("episode_id", nullable=True),
    _text("report_id"),
    _text("run_id"),
    _word("trace_id", 32),
    _text("principal_name"),
    _when("created_date"),
)

episode = Table(
    "episode",
    metadata,
    _text("namespace", key=True),
    _uuid("id", key=True),
    _uuid("breaker_id"),
    _word("target", 500),
    _when("opened_at"),
    _when("recovered_at", nullable=True),
    _number("opened_generation"),
    _number("recovered_generation", nullable=True),
    _word("trace_id", 32),
    _when("created_date"),
    _when("last_modified_date"),
)
