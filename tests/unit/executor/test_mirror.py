"""What the executor knows of breakers: from a snapshot, from changes, and when nobody tells it anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
import structlog

from services.executor.breakers.mirror import AWAY_LOOK, Mirror
from services.executor.targets import BreakerNews, TargetKey
from tests.unit.executor.breakers import AN_EPISODE, HALF_A_MINUTE, Clock, a_mirror, a_status, change, snapshot
from valkyr.errors import Unavailable

T = ("default", "t")


class Script:
    """A service whose streams are written down: messages, then how the stream ends. The last stream stays open."""

    def __init__(self, *streams: Sequence[BreakerNews | Exception]) -> None:
        self.streams = list(streams)
        self.opened = 0

    async def watch(self) -> AsyncIterator[BreakerNews]:
        stream = self.streams[self.opened] if self.opened < len(self.streams) else []
        self.opened += 1
        for item in stream:
            if isinstance(item, Exception):
                raise item
            yield item
        if self.opened >= len(self.streams):
            await asyncio.Event().wait()


async def goes(mirror: Mirror, script: Script) -> None:
    """Runs until the last stream of the script has been taken in."""
    running = asyncio.create_task(mirror.run())
    try:
        async with asyncio.timeout(60):
            while script.opened < len(script.streams):
                await asyncio.sleep(0.005)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_target_never_heard_of_is_closed() -> None:
    mirror, _ = a_mirror()
    assert mirror.closed(*T)
    assert mirror.generation(*T) == 0
    assert mirror.wait(*T) == timedelta()
    assert mirror.episode(*T) is None


@pytest.mark.parametrize(
    ("state", "closed"),
    [
        ("CLOSED", True),
        ("OPEN", False),
        ("HALF_OPEN", False),
        ("FORCED_OPEN", False),
        ("DISABLED", True),
        ("METRICS_ONLY", True),
    ],
)
def test_runs_go_without_asking_unless_a_breaker_is_open_or_half_open(state: str, closed: bool) -> None:
    mirror, _ = a_mirror(a_status(state=state, generation=7, episode_id=AN_EPISODE))
    assert mirror.closed(*T) is closed
    assert mirror.generation(*T) == 7
    assert mirror.episode(*T) == (None if closed else AN_EPISODE)


def test_targets_of_other_namespaces_are_others() -> None:
    mirror, _ = a_mirror(a_status())
    assert mirror.closed("other", "t")


def test_i17_a_trip_is_known_with_the_message() -> None:
    mirror, _ = a_mirror()
    told: list[frozenset[TargetKey]] = []
    mirror.subscribe(told.append)
    mirror.hear(change(a_status()))
    assert not mirror.closed(*T)
    assert told == [{T}]


def test_counters_that_change_are_no_news_and_postpone_nothing() -> None:
    mirror, clock = a_mirror(a_status())
    told: list[frozenset[TargetKey]] = []
    mirror.subscribe(told.append)
    clock.now += 10
    mirror.hear(change(a_status(permits=5)))
    assert told == []
    assert mirror.permits(*T) == 5
    assert mirror.wait(*T) == timedelta(seconds=20)


def test_an_open_target_is_due_when_it_says_and_a_half_open_one_at_once() -> None:
    mirror, clock = a_mirror(a_status())
    assert mirror.wait(*T) == HALF_A_MINUTE
    clock.now += 30
    assert mirror.wait(*T) == timedelta()
    assert not mirror.closed(*T)
    mirror.hear(change(a_status(state="HALF_OPEN", generation=2)))
    assert mirror.wait(*T) == timedelta()


def test_who_was_refused_waits_until_the_breaker_changes() -> None:
    mirror, _ = a_mirror(a_status(state="HALF_OPEN"))
    mirror.hold(T, timedelta(seconds=5))
    assert mirror.wait(*T) == timedelta(seconds=5)
    mirror.hear(change(a_status(state="HALF_OPEN", generation=2)))
    assert mirror.wait(*T) == timedelta()


def test_a_probe_that_ended_makes_way_for_the_next_where_the_target_is_half_open() -> None:
    mirror, _ = a_mirror(a_status(state="HALF_OPEN"), a_status("u"))
    told: list[frozenset[TargetKey]] = []
    mirror.subscribe(told.append)
    for key in (T, ("default", "u"), ("default", "unknown")):
        mirror.hold(key, timedelta(seconds=5))
        mirror.look_again(key)
    assert mirror.wait(*T) == timedelta()
    assert mirror.wait("default", "u") == timedelta(seconds=5)
    assert told == [{T}]


def test_what_is_not_in_a_complete_snapshot_is_closed_again() -> None:
    mirror, _ = a_mirror(a_status(), a_status("u"))
    told: list[frozenset[TargetKey]] = []
    mirror.subscribe(told.append)
    mirror.hear(snapshot(a_status("u"), complete=False))
    assert not mirror.closed(*T), "the snapshot is not complete yet"
    mirror.hear(snapshot())
    assert mirror.closed(*T)
    assert mirror.generation(*T) == 0
    assert not mirror.closed("default", "u")
    assert told == [{T}]


def test_a_snapshot_that_says_the_same_postpones_nothing() -> None:
    mirror, clock = a_mirror(a_status())
    clock.now += 10
    mirror.hear(snapshot(a_status()))
    assert mirror.wait(*T) == timedelta(seconds=20)


async def test_the_first_snapshot_or_the_first_failure_makes_the_mirror_known() -> None:
    script = Script([Unavailable("refused")], [])
    mirror = Mirror(script)
    assert not mirror.known.is_set()
    await goes(mirror, script)
    assert mirror.known.is_set()
    assert mirror.away


async def test_a_stream_that_broke_is_opened_again_without_the_service_being_away() -> None:
    script = Script([snapshot(a_status()), Unavailable("going away")], [snapshot()])
    mirror = Mirror(script)
    held: list[frozenset[TargetKey]] = []
    mirror.subscribe(held.append)
    await goes(mirror, script)
    assert not mirror.away
    assert mirror.closed(*T)
    assert held == [{T}, {T}]


async def test_away_is_over_with_the_next_snapshot() -> None:
    script = Script([Unavailable("refused")], [Unavailable("refused")], [snapshot(a_status())])
    mirror = Mirror(script)
    await goes(mirror, script)
    assert not mirror.away
    assert not mirror.closed(*T)


async def test_that_the_breaker_is_away_or_back_is_logged_once_each() -> None:
    refused = [Unavailable("refused")]
    script = Script(refused, refused, refused, [snapshot(), Unavailable("restarted")], [snapshot()])
    with structlog.testing.capture_logs() as events:
        await goes(Mirror(script), script)
    assert [event["event"] for event in events] == ["breaker.away", "breaker.back"]


async def test_a_message_that_nobody_foresaw_does_not_end_the_mirror() -> None:
    script = Script([ValueError("no uuid")], [snapshot(a_status())])
    mirror = Mirror(script)
    await goes(mirror, script)
    assert not mirror.closed(*T)


async def gone(mirror: Mirror) -> None:
    """The service is away from now on."""
    script = Script([Unavailable("refused")], [])
    mirror._source = script
    await goes(mirror, script)
    assert mirror.away


async def test_with_the_breaker_away_an_open_target_stays_so_until_its_time_and_then_policy_decides() -> None:
    mirror, clock = a_mirror(a_status(), a_status("strict", denies=True))
    await gone(mirror)
    assert not mirror.closed(*T)
    clock.now += 31
    assert mirror.closed(*T)
    assert mirror.wait(*T) == timedelta()
    assert not mirror.closed("default", "strict")
    assert mirror.wait("default", "strict") == AWAY_LOOK


async def test_with_the_breaker_away_a_policy_that_denies_holds_back_closed_targets_too() -> None:
    mirror, _ = a_mirror(
        a_status("lenient", state="CLOSED"), a_status("strict", state="CLOSED", denies=True), denies=True
    )
    await gone(mirror)
    assert not mirror.closed(*T)
    assert mirror.closed("default", "lenient")
    assert not mirror.closed("default", "strict")
    assert mirror.closed("default", ""), "what calls nothing needs no leave"


async def test_with_the_breaker_away_all_that_is_held_is_told_once() -> None:
    mirror, _ = a_mirror(a_status(), a_status("u", state="CLOSED"))
    told: list[frozenset[TargetKey]] = []
    mirror.subscribe(told.append)
    await gone(mirror)
    assert told == [{T}]


async def test_a_stream_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.executor.breakers.mirror.FIRST_NEWS", timedelta(seconds=0.01))
    monkeypatch.setattr("services.executor.breakers.mirror.SILENCE", timedelta(seconds=0.02))
    script = Script([snapshot()], [])
    mirror = Mirror(script, Clock())
    running = asyncio.create_task(mirror.run())
    async with asyncio.timeout(60):
        while script.opened < 3:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert mirror.away
