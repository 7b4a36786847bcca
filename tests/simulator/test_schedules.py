"""Schedules by their seeds: whatever goes wrong in them, every invariant holds after every step, and all comes to its
end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.failure import Failure, run_seed, run_seeds

CHUNK = 250
CHUNKS = 20

TROUBLES = (
    "answers lost",
    "attempts vanished",
    "batches of several loops",
    "batches with more in them",
    "breakers tripped",
    "cancels",
    "commits nobody heard of",
    "crashes",
    "decisions of an old look for equals",
    "equals found too early",
    "events of an old look",
    "events that nobody foresaw",
    "executions CANCEL",
    "executions DEADLINE",
    "executions FAILED",
    "executions FAIL_FAST",
    "executions SUCCESS",
    "graphs that could not be planned",
    "heartbeats lost",
    "late or repeated ends of leases",
    "leases forgotten",
    "leases stopped by the runner's clock",
    "leases told to stop",
    "letters discarded without a plan",
    "letters not taken",
    "letters told again",
    "messages delayed",
    "messages lost",
    "messages repeated",
    "outages of DLQ and breakers",
    "pauses of executions",
    "pauses of processes",
    "probes",
    "quarantines",
    "reports repeated",
    "resolutions asked for",
    "resolutions refused",
    "runs SKIPPED",
    "runs begun while an older runner slept",
    "runs leased at the start",
    "runs parked by breakers",
    "runs unparked",
    "runs without an equal",
    "schedules that came to rest alone",
    "stray events",
    "successes reused",
    "transactions rolled back",
    "transactions that waited",
    "transactions with something in between",
)
"""What must happen now and then, or the schedules show little."""


@pytest.mark.parametrize("first", range(0, CHUNKS * CHUNK, CHUNK))
def test_every_invariant_holds_in_every_schedule(first: int) -> None:
    done = run_seeds(first, CHUNK)
    if isinstance(done, Failure):
        pytest.fail(done.explain(), pytrace=False)


def test_all_that_can_go_wrong_does_go_wrong_in_some_schedule() -> None:
    done = run_seeds(0, 4 * CHUNK)
    assert not isinstance(done, Failure)
    assert [trouble for trouble in TROUBLES if not done[trouble]] == []


def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    code = "import sys; from tests.simulator.failure import run_seed; [run_seed(s, print) for s in range(30)]"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    here: list[str] = []
    for seed in range(30):
        run_seed(seed, here.append)
    assert told.stdout.splitlines() == here
