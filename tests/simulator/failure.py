"""A schedule that failed, as people want to read it: what broke, what happened before, and how to see it again."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from tests.simulator.ledger import Violation
from tests.simulator.simulation import Simulation, Trace

LAST_LINES = 40


@dataclass(frozen=True, slots=True)
class Failure:
    """`invariant` is what did not hold, or the name of the error that the core has raised."""

    seed: int
    invariant: str
    message: str

    def explain(self, lines: int = LAST_LINES) -> str:
        """Runs it once more and listens."""
        trace: deque[str] = deque(maxlen=lines)
        again = run_seed(self.seed, trace.append)
        steps = again.message if isinstance(again, Failure) else "it did not fail again"
        told = "\n".join(trace)
        return (
            f"seed {self.seed}: {self.message}\n{told}\n{steps}\n"
            f"again: python -m tests.simulator --seed {self.seed} --trace"
        )


def run_seed(seed: int, trace: Trace | None = None) -> Counter[str] | Failure:
    """What happened in one schedule, counted; or what was wrong."""
    simulation = Simulation(seed, trace)
    try:
        return simulation.run()
    except Exception as error:  # noqa: BLE001 - whatever the core raises is a finding
        kind = error.invariant if isinstance(error, Violation) else type(error).__name__
        return Failure(seed, kind, f"step {simulation.world.clock.steps}: {error!r}"[:2000])


def run_seeds(first: int, count: int) -> Counter[str] | Failure:
    """As `run_seed`, of many; the first that fails ends it."""
    total: Counter[str] = Counter()
    for seed in range(first, first + count):
        done = run_seed(seed)
        if isinstance(done, Failure):
            return done
        total.update(done)
    return total
