"""The loops of an executor: how often each looks by itself, what wakes it, and whether its trouble is the service's."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from services.chassis.loops import run_every
from services.executor.defaults import LOOK_INTERVAL
from services.executor.hints import HELLO_INTERVAL, RECONNECT
from services.executor.lending import IDLE_LANES
from services.executor.parts import Parts
from services.executor.reaper import FORGOTTEN_AFTER

OUTAGE_LOOK = timedelta(seconds=1)
PROBES_INTERVAL = timedelta(seconds=30)
"""While nothing is parked by this process, nor a breaker changes: another's parked runs are found so at the latest."""

SEEN_PER_LEASE = 3
"""How often within a lease an executor says that its own pool is there: it is listed as LOST after a whole one."""

CATALOGUE_INTERVAL = timedelta(seconds=10)

LEFT_BY_OTHERS = 6
"""Polls until timers, deadlines, control nodes and letters of another replica are found that died before it had told
anybody. One's own wake their loops at once."""


def loops_of(parts: Parts) -> dict[str, Coroutine[Any, Any, None]]:
    """By name."""
    runner, signals, health = parts.settings.runner, parts.signals, parts.health
    poll = runner.poll_interval
    seldom = LEFT_BY_OTHERS * poll
    loops = {
        "database": parts.database.watch(health),
        "timers": run_every(seldom, parts.timers.wake_due, name="timers", health=health, wake=signals.timers_changed),
        "deadlines": run_every(
            seldom, parts.deadlines.step, name="deadlines", health=health, wake=signals.deadlines_changed
        ),
        # No health: with the DLQ away runs go on, and letters are kept.
        "outbox": run_every(seldom, parts.outbox.step, name="outbox", wake=signals.outbox_filled),
        "probes": run_every(
            PROBES_INTERVAL, parts.probes.step, name="probes", health=health, wake=parts.breakers.turn.wake
        ),
        "control": run_every(
            seldom, parts.timers.decide_first, name="control", health=health, wake=signals.control_ready
        ),
    }
    # No health: without hints replicas look by themselves.
    loops["listen"] = run_every(RECONNECT, parts.hints.listen, name="listen")
    loops["hints"] = run_every(HELLO_INTERVAL, parts.hints.tell, name="hints", wake=parts.hints.wake)
    # No health: without the graph store those defaults are used that were known last.
    loops["catalogue"] = run_every(LOOK_INTERVAL, parts.defaults.look, name="catalogue")
    loops["lanes"] = run_every(IDLE_LANES, parts.lending.forget, name="lanes")
    # No health: nothing but a list depends on it.
    loops["runners"] = run_every(runner.lease.duration / SEEN_PER_LEASE, parts.look_after_runners, name="runners")
    loops["modules"] = run_every(CATALOGUE_INTERVAL, parts.catalogue.step, name="modules")
    loops["requests"] = run_every(
        parts.settings.requests.prune_interval, parts.forget_requests, name="requests", health=health
    )
    if runner.concurrency > 0:
        loops["dispatcher"] = run_every(
            poll, parts.dispatcher.step, name="dispatcher", health=health, wake=parts.handoff.ready.wake
        )
        loops["forgotten"] = run_every(
            FORGOTTEN_AFTER, parts.reaper.give_back_forgotten, name="forgotten", health=health
        )
    if runner.zombie_reaper.enabled:
        loops["outages"] = run_every(OUTAGE_LOOK, parts.note_outages, name="outages")
        loops["reaper"] = run_every(runner.zombie_reaper.scan_interval, parts.reaper.step, name="reaper", health=health)
    return loops
