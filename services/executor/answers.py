"""How runners are answered, the own pool's and those that call over the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.executor.progress import Progress
from valkyr.errors import Internal
from valkyr.flow.attempts import Fence
from valkyr.flow.events import LeaseEnded
from valkyr.flow.intake import Answer
from valkyr.runner.leases import HeartbeatAnswer, ReportAnswer

HEARTBEAT_ANSWERS: Mapping[bool | None, HeartbeatAnswer] = {
    True: HeartbeatAnswer.CONTINUE,
    False: HeartbeatAnswer.CANCEL,
    None: HeartbeatAnswer.LEASE_LOST,
}
"""By whether the lease may go on; None where it is not held any more."""

_REPORTED: Mapping[Answer, ReportAnswer] = {answer: ReportAnswer(answer.value) for answer in Fence}


async def apply_reports(progress: Progress, ended: Sequence[LeaseEnded]) -> list[ReportAnswer]:
    """The answers in order. One that cannot be applied costs the others nothing. Unavailable and the like where it is
    not known what was applied."""
    try:
        return [_REPORTED[answer] for answer in await progress.apply(ended)]
    except Internal:
        if len(ended) > 1:
            return [(await apply_reports(progress, [one]))[0] for one in ended]
        # Logged where it happened. Repeated it would hold up every other report; let go of, the lease is given back
        # by the reaper, and the run is tried again.
        return [ReportAnswer.LEASE_LOST]
