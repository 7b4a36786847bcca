"""What the ledger of effects tells of attempts: when each was live, and for how long two of one run were at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import orjson

from tests.effect_modules import Effect

Span = tuple[float, float]
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Struck:
    """What was done to processes, by their ids: when they were killed, and from when to when they were frozen."""

    killed: dict[int, float] = field(default_factory=dict)
    frozen: dict[int, Span] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lived:
    """`twice`: runs of which more than one attempt has begun; `overlaps`: seconds for which two of one were live."""

    begun: int
    done: int
    keys_done: int
    twice: int
    overlaps: Sequence[float]

    @property
    def largest(self) -> float:
        return max(self.overlaps, default=0.0)


def read(ledger: Path, struck: Struck) -> Lived:
    """Of a file of any length: in memory are only those runs of which more than one attempt has begun."""
    begun = done = 0
    keys: set[str] = set()
    again: set[str] = set()
    for effect in _lines(ledger):
        begun += effect.what == "BEGUN"
        if effect.what == "DONE":
            done += 1
            keys.add(effect.key)
        if effect.attempt > 1:
            again.add(effect.key)
    by_key: dict[str, list[Effect]] = defaultdict(list)
    for effect in _lines(ledger) if again else ():
        if effect.key in again:
            by_key[effect.key].append(effect)
    overlaps = [overlap for of_run in by_key.values() for overlap in overlaps_of(of_run, struck)]
    return Lived(begun, done, len(keys), len(again), overlaps)


def overlaps_of(effects: Iterable[Effect], struck: Struck) -> Iterable[float]:
    """Of one run: for how long each two of its attempts were live at the same time."""
    attempts: dict[int, list[Effect]] = defaultdict(list)
    for effect in effects:
        attempts[effect.attempt].append(effect)
    spans = [_spans(of_attempt, struck) for of_attempt in attempts.values()]
    for one, other in combinations(spans, 2):
        yield sum(max(0.0, min(end, until) - max(start, since)) for start, end in one for since, until in other)


def _spans(attempt: Sequence[Effect], struck: Struck) -> Sequence[Span]:
    """From its first line to its last, or to the end of its process; without the time in which that was frozen."""
    pid, begun = attempt[0].pid, attempt[0].at
    last = attempt[-1]
    end = last.at if last.what != "BEGUN" else struck.killed.get(pid, NEVER)
    if pid not in struck.frozen:
        return [(begun, end)]
    since, until = struck.frozen[pid]
    return [(begun, min(end, since)), (max(begun, until), end)]


def _lines(ledger: Path) -> Iterable[Effect]:
    if ledger.exists():
        with ledger.open("rb") as lines:
            for line in lines:
                yield Effect(**orjson.loads(line))
