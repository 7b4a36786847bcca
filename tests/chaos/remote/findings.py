"""What the campaign has found, and what of it must not be. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.remote.live import Lived

MARGIN = 1.0
"""Seconds for which two attempts of one run may be live at once, as docs/runners.md says: after a thaw."""

BEYOND_THE_LEASE = 3.0
"""Seconds from when the lease of a dead runner runs out until another has begun, at the 99th percentile."""

DRAINED_WITHIN = 1.0
"""Seconds from SIGTERM to the end of a process that runs nothing."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the tables say of the runs of one part. `unreported`: ends of leases that no runner has reported, `lost`
    those of them that count as lost; `twice`: runs with more than one end; `misreported`: whose outputs are of another
    attempt than the last."""

    executions: int
    succeeded: int
    unreported: int
    lost: int
    twice: int
    misreported: int


@dataclass(frozen=True, slots=True)
class Load:
    """Of the load. `fenced`: attempts that runners have stopped by their own clocks; `gone`: runners that ended."""

    lease: float
    heartbeat: float
    seconds: float
    starved: float
    acknowledged: int
    per_second: float
    fenced: int
    gone: int
    recorded: Recorded
    lived: Lived


@dataclass(frozen=True, slots=True)
class Strikes:
    """Of kill -9 and SIGSTOP. `held` runs were held by those struck; takeovers are seconds, one for each of these;
    `bystanders`: ends of leases of a runner that nothing was done to; `stuck`: what a lane has waited for in vain."""

    lease: float
    heartbeat: float
    kills: int
    freezes: int
    held: int
    started: int
    bystanders: int
    stuck: Sequence[str]
    after_kills: Sequence[float]
    after_freezes: Sequence[float]
    recorded: Recorded
    lived: Lived


@dataclass(frozen=True, slots=True)
class Drains:
    """Seconds from SIGTERM to the exit of the process, and the exit codes that were not 0."""

    seconds: Sequence[float]
    codes: Sequence[int]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not pass; 0 of none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0


def problems_of_load(load: Load) -> Iterable[str]:
    yield from _kept("load", load.acknowledged, load.recorded, load.lived)
    if load.lived.keys_done != load.recorded.succeeded and load.recorded.succeeded == load.acknowledged:
        yield f"load: {load.recorded.succeeded} executions succeeded, {load.lived.keys_done} runs have had an effect"
    if load.recorded.unreported or load.fenced:
        yield (
            f"load: {load.recorded.unreported} leases ended unreported, {load.recorded.lost} of them as lost, and"
            f" {load.fenced} were given up by their runners, which were all alive"
        )
    if load.gone:
        yield f"load: {load.gone} runners ended by themselves"


def problems_of_strikes(strikes: Strikes) -> Iterable[str]:
    yield from (f"strikes: {what}" for what in strikes.stuck)
    yield from _kept("strikes", strikes.started, strikes.recorded, strikes.lived)
    false = strikes.recorded.unreported - strikes.held + strikes.bystanders
    if false or strikes.recorded.lost != strikes.held:
        yield (
            f"strikes: those struck held {strikes.held} leases; {strikes.recorded.unreported} ended unreported,"
            f" {strikes.recorded.lost} of them as lost, and {strikes.bystanders} of a runner beside them"
        )
    for what, took in (("kill -9", strikes.after_kills), ("SIGSTOP", strikes.after_freezes)):
        if (late := quantile(took, 0.99)) > strikes.lease + BEYOND_THE_LEASE:
            yield f"strikes: taken over {late:.2f} s after {what} at p99, with leases of {strikes.lease:g} s"
    if len(strikes.after_kills) + len(strikes.after_freezes) != strikes.held:
        yield f"strikes: {strikes.held} runs were held, and not all of them were taken over"


def problems_of_drains(drains: Drains) -> Iterable[str]:
    if (longest := max(drains.seconds, default=0.0)) > DRAINED_WITHIN:
        yield f"drains: one took {longest:.2f} s, and {DRAINED_WITHIN:g} s are allowed"
    if drains.codes:
        yield f"drains: exit codes {sorted(set(drains.codes))}"


def _kept(part: str, acknowledged: int, recorded: Recorded, lived: Lived) -> Iterable[str]:
    """No run lost, no outcome applied twice, and no two attempts live at once for long."""
    if not acknowledged == recorded.executions == recorded.succeeded:
        yield (
            f"{part}: {acknowledged} executions were acknowledged, {recorded.executions} are there, and"
            f" {recorded.succeeded} of them succeeded"
        )
    if recorded.twice or recorded.misreported:
        yield f"{part}: {recorded.twice} runs have ended twice, {recorded.misreported} by another attempt than the last"
    if lived.largest > MARGIN:
        yield f"{part}: two attempts of one run were live for {lived.largest:.2f} s at once, over {MARGIN:g} s"
