"""Each service and PostgreSQL are killed in turn amid executions that fail: nothing is lost, nothing applied twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.killing import draw_schedule, run_schedule

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

SEED = 20_26
VICTIMS = ("graph_store", "executor", "breaker", "dlq", "postgres", "everything")


async def test_i15_each_service_killed_in_turn_loses_nothing_and_applies_nothing_twice(tmp_path: Path) -> None:
    schedule = draw_schedule(SEED, victims=VICTIMS)
    outcome = await run_schedule(schedule, tmp_path)
    assert outcome.problems == []
    assert schedule.executions >= 200
    assert outcome.lost_leases > 0, "no kill hit a lease: the test proves nothing"
    assert outcome.letters > 50
    assert outcome.trips > 0


def test_a_schedule_is_drawn_from_its_seed_alone() -> None:
    assert draw_schedule(7) == draw_schedule(7) != draw_schedule(8)
