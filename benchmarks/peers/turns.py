"""In which order contenders are measured: interleaved, so that what changes on the machine meanwhile hits all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.peers.contenders import Contender


@dataclass(frozen=True, slots=True)
class Turn:
    """One workload of one contender in one round; rounds count from 1."""

    round: int
    workload: str
    contender: Contender


def turns(contenders: Sequence[Contender], workloads: Sequence[str], rounds: int) -> Iterator[Turn]:
    """Workload by workload, all contenders in turn; each round begins with another of them."""
    for number in range(rounds):
        first = number % len(contenders)
        for workload in workloads:
            for contender in (*contenders[first:], *contenders[:first]):
                if workload in contender.sizes:
                    yield Turn(number + 1, workload, contender)
