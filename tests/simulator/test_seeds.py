"""Seeds that have shown something. What they are changes whenever the simulator does; what they were is said here."""

from __future__ import annotations

import pytest

from tests.simulator.failure import Failure, run_seed

SEEDS = {
    47: "a success that arrives after a cancel: it is kept",
    103: "a requeue into an execution that FAIL_FAST has ended: it is refused",
    150: "a run that was told to stop is requeued while its silent runner may be at it: no hand-off before that ends",
    159: "two events for one run in one batch, its deadline among them: the second changes nothing",
    259: "a sweep of the reaper that comes after a heartbeat: the lease that was extended stays",
    1262: "the same silent runner, and the run is leased by the dispatcher: not before it is trusted no more",
    1285: "a control node that would be ready while its execution is paused: it is parked",
}


@pytest.mark.parametrize("seed", SEEDS, ids=[f"{seed}: {why.split(':')[0]}" for seed, why in SEEDS.items()])
def test_what_a_seed_has_shown_does_not_come_back(seed: int) -> None:
    done = run_seed(seed)
    if isinstance(done, Failure):
        pytest.fail(done.explain(), pytrace=False)
