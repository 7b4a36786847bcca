"""Reports of frozen runners that arrive as their leases run out: the report wins or the end of the lease, never both,
never neither."""

from __future__ import annotations

import pytest

from tests.chaos.frozen_runners import MAX_LOST_LEASES, SETTINGS, freeze_again_and_again
from tests.chaos.runner_lab import open_lab
from tests.postgres import PostgresForTests

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

STOPS, SEED = 20, 33


async def test_i06_a_runner_that_wakes_as_its_leases_run_out_loses_nothing_and_doubles_nothing(
    postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("frozen")
    rooms = ("graph_store", "executor")
    async with open_lab(postgres, folder, *rooms, max_lost_leases=MAX_LOST_LEASES, **SETTINGS) as lab:
        outcome = await freeze_again_and_again(lab, stops=STOPS, seed=SEED)
    assert outcome.problems == [], outcome
    assert outcome.answers.total() >= STOPS
    assert outcome.answers["LEASE_LOST"], "some came too late"
