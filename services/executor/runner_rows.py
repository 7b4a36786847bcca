"""Runners that call over the network, as plain values, and the one decision about them: whose an id is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

REMEMBERED = 16
"""Incarnations of one runner that are known to have been replaced, the latest."""


@dataclass(frozen=True, slots=True)
class RunnerSaid:
    """What a runner says of itself when it registers. `serves_all`: it takes every class, whatever `class_names`."""

    namespace: str
    runner_id: str
    incarnation: UUID
    pool: str
    class_names: Sequence[str]
    capacity: int
    host: str = ""
    version: str = ""
    serves_all: bool = False


@dataclass(frozen=True, slots=True)
class RunnerRow:
    """A runner as it is stored; `leases` only where it was asked for. `now` is the database's clock."""

    said: RunnerSaid
    registered_at: datetime
    last_seen_at: datetime
    draining: bool
    replaced: tuple[UUID, ...]
    lease_request_id: str | None
    leased_at: datetime | None
    now: datetime
    leases: int = 0

    @property
    def holder(self) -> str:
        """What stands in `leased_by` of what it holds."""
        return holder_of(self.said.runner_id, self.said.incarnation)

    def is_lost(self, lease_duration: timedelta) -> bool:
        """Not heard of for longer than its leases last."""
        return self.is_silent(lease_duration)

    def is_silent(self, patience: timedelta) -> bool:
        """Not heard of for so long."""
        return self.now - self.last_seen_at > patience

    def has_given(self, request_id: str, within: timedelta) -> bool:
        """Whether what that call asks was answered with runs. It is not remembered for ever: whoever uses one id for
        all calls would be given nothing any more."""
        if not request_id or request_id != self.lease_request_id or self.leased_at is None:
            return False
        return self.now - self.leased_at <= within


def holder_of(runner_id: str, incarnation: UUID) -> str:
    """What stands in `leased_by`."""
    return f"{runner_id}/{incarnation}"


def replaced_by(row: RunnerRow | None, incarnation: UUID) -> tuple[UUID, ...] | None:
    """The incarnations that may never come back once this one has registered; None if it is itself one of them.

    Who registers last has the id. An older process that only repeats its registration must not take it back from the
    newer one, or two processes would throw each other out in turn.
    """
    if row is None:
        return ()
    if incarnation == row.said.incarnation:
        return row.replaced
    if incarnation in row.replaced:
        return None
    return (*row.replaced, row.said.incarnation)[-REMEMBERED:]
