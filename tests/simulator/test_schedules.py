"""Schedules by their seeds: whatever goes wrong in them, every invariant holds after every step, and all comes to its
end."""

from __future__ import annotations

import pytest

from tests.simulator.failure import Failure, run_seeds

CHUNK = 250
CHUNKS = 20


@pytest.mark.parametrize("first", range(0, CHUNKS * CHUNK, CHUNK))
def test_every_invariant_holds_in_every_schedule(first: int) -> None:
    done = run_seeds(first, CHUNK)
    if isinstance(done, Failure):
        pytest.fail(done.explain(), pytrace=False)
