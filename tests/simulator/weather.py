"""What goes wrong in a schedule, how often, and until when. Each is there or not, so that none hides another."""

from __future__ import annotations

import random
from dataclasses import dataclass

LEASE = 12.0
"""Seconds; other times below are in proportion to those of the real engine."""

HEARTBEAT_INTERVAL = 3.0
CANCEL_GRACE = 3.0
FORGOTTEN_AFTER = 5.0
CALL_TIMEOUT = 2.0
LATEST_START = 3.0
"""After this a runner starts nothing from an answer to its call for runs."""

MARGIN = 0.5
"""I12: for so long two runners may be at the same run: clocks that drift, a process that is just waking up."""

DRIFT = 0.001


@dataclass(slots=True)
class Weather:
    """Probabilities of one message or transaction; numbers of what befalls processes and services over the storm."""

    storm: float = 10.0
    loses: float = 0.0
    repeats: float = 0.0
    delays: float = 0.0
    rolls_back: float = 0.0
    commits_unknown: float = 0.0
    opens_gap: float = 0.0
    lingers: float = 0.0
    mixes: float = 0.0
    crashes: int = 0
    pauses: int = 0
    outages: int = 0
    trips: int = 0
    cancels: int = 0
    stops: int = 0
    resolves: int = 0
    stray: int = 0
    spoils: int = 0

    def calm(self) -> None:
        """Faults cease."""
        self.loses = self.repeats = self.delays = self.rolls_back = self.commits_unknown = 0.0


def a_weather(dice: random.Random) -> Weather:
    def maybe(*values: float) -> float:
        return dice.choice(values) if dice.random() < 0.4 else 0.0

    def some(most: int) -> int:
        return dice.randint(1, most) if dice.random() < 0.4 else 0

    return Weather(
        storm=dice.choice((0.5, 3.0, 10.0, 40.0)),
        loses=maybe(0.05, 0.3),
        repeats=maybe(0.1, 0.4),
        delays=maybe(0.1, 0.4),
        rolls_back=maybe(0.05, 0.2),
        commits_unknown=maybe(0.05, 0.2),
        opens_gap=maybe(0.1, 0.5),
        lingers=maybe(0.1, 0.5),
        mixes=maybe(0.1, 0.5),
        crashes=some(4),
        pauses=some(3),
        outages=some(2),
        trips=some(6),
        cancels=1 if dice.random() < 0.2 else 0,
        stops=some(3),
        resolves=some(6),
        stray=some(3),
        spoils=1 if dice.random() < 0.1 else 0,
    )
