"""Seeds that have shown something. What they are changes whenever the simulator does; what they were is said here."""

from __future__ import annotations

import pytest

from tests.simulator.failure import Failure, run_seed

SEEDS = {
    1: "a success that arrives after a cancel: it is kept",
    32: "a sweep of the reaper that comes after a heartbeat: the lease that was extended stays",
    190: "several runs under way when FAIL_FAST strikes: nothing of them goes on",
    276: "a run that was told to stop is requeued while its silent runner may be at it: no hand-off before that ends",
    435: "a requeue into an execution that has ended: it is refused",
    464: "a control node that would be ready while its execution is paused: it is parked",
    718: "an event of a timer that is not due: it changes nothing",
    15467: "a letter discarded in an execution that was cancelled while its graph could not be planned: no error",
}


@pytest.mark.parametrize("seed", SEEDS, ids=[f"{seed}: {why.split(':')[0]}" for seed, why in SEEDS.items()])
def test_what_a_seed_has_shown_does_not_come_back(seed: int) -> None:
    done = run_seed(seed)
    if isinstance(done, Failure):
        pytest.fail(done.explain(), pytrace=False)
