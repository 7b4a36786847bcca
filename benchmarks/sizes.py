"""How large each workload is."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Sizes:
    """Executions, unless it says otherwise; `..._seconds` are how long is looked."""

    yardsticks: int = 2_000
    sustained: int = 40_000
    warm: int = 2_000
    calls: int = 300
    chains: int = 4_000
    chain_calls: int = 50
    fan: int = 1_000
    fan_calls: int = 10
    backlog: int = 100_000
    mosaics: int = 100
    mosaic_calls: int = 10
    unsettled: int = 10_000
    moving: int = 2_000
    dispatch_seconds: float = 20.0
    rows: int = 1_000_000
    trips: int = 300
    idle_seconds: float = 30.0
    settle_seconds: float = 15.0


FULL = Sizes()
QUICK = replace(
    FULL,
    yardsticks=20,
    sustained=400,
    warm=100,
    calls=20,
    chains=100,
    chain_calls=5,
    fan=100,
    fan_calls=2,
    backlog=1_000,
    mosaics=2,
    mosaic_calls=1,
    unsettled=100,
    moving=50,
    dispatch_seconds=2.0,
    rows=10_000,
    trips=10,
    idle_seconds=2.0,
    settle_seconds=1.0,
)
"""Shows that all of it works, and no more than that."""
