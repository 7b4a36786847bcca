"""Who is measured, with which sizes, and what makes each not quite comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Contender:
    """`driver` is a module; `environment` a folder beside this file, or empty for the project's own environment.

    Sizes are by workload, as benchmarks.contract means them: smaller where a peer is slower, so that all take a similar
    time. What a contender has no size for it does not do.
    """

    name: str
    title: str
    driver: str
    sizes: Sizes
    caveat: str
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    def size(self, workload: str, *, quick: bool) -> int:
        """With `quick`, just enough to show that it works."""
        return max(1, self.sizes[workload] // QUICK) if quick else self.sizes[workload]


QUICK = 20
"""How many times smaller everything is that only shows that it works."""

CELERY: Sizes = {"W1": 4_000, "W2": 300, "W3": 300, "W4": 3, "W5": 5_000}

CONTENDERS: Mapping[str, Contender] = {
    each.name: each
    for each in (
        Contender(
            "valkyr",
            "Valkyr",
            "benchmarks.valkyr_driver",
            {"W1": 20_000, "W2": 300, "W3": 2_000, "W4": 10, "W5": 50_000},
            "Four services and a client of their own process, gRPC between them, JSON in and out, traces and logs at "
            "their defaults, circuit breaker mirrored.",
        ),
        Contender(
            "dbos",
            "DBOS",
            "benchmarks.peers.dbos.driver",
            {"W1": 1_500, "W2": 200, "W3": 200, "W4": 2, "W5": 1_000},
            "A library: workflows run in the process that starts them, without a network between, except in W5. Steps "
            "of a fan-out run in one process. Python pickles in place of JSON.",
            environment="dbos",
        ),
        Contender(
            "temporal",
            "Temporal",
            "benchmarks.peers.temporal.driver",
            {"W1": 300, "W2": 60, "W3": 60, "W4": 1, "W5": 300},
            "Its development server with SQLite and one shard, which it says itself is not for production: there it "
            "runs on PostgreSQL, MySQL or Cassandra with many shards. Every step has a full history of events.",
            environment="temporal",
        ),
        Contender(
            "procrastinate",
            "Procrastinate",
            "benchmarks.peers.procrastinate.driver",
            {"W1": 2_000, "W2": 200, "W3": 150, "W5": 3_000},
            "A job queue: no results, no workflows, no join (hence no W4). A chain's step enqueues the next in a "
            "transaction of its own, so that a crash between the two repeats a step.",
            environment="procrastinate",
        ),
        Contender(
            "pgqueuer",
            "pgqueuer",
            "benchmarks.peers.pgqueuer.driver",
            {"W1": 20_000, "W2": 200, "W3": 400, "W5": 50_000},
            "A job queue and no more: no results, no workflows, no join (hence no W4). A chain's step enqueues the "
            "next in a transaction of its own. Ends of jobs are recorded in batches, up to 0.1 s later: W2 and the "
            "single chains of W3 do not wait for that.",
            environment="pgqueuer",
        ),
        Contender(
            "celery",
            "Celery, AOF every second",
            "benchmarks.peers.celery.driver",
            CELERY,
            "Tasks and results in Redis, in memory first: its file is synced once a second, so that a power cut loses "
            "what was acknowledged in the last second. No workflow state to query, repair or resume.",
            environment="celery",
        ),
        Contender(
            "celery-always",
            "Celery, AOF always",
            "benchmarks.peers.celery.driver",
            CELERY,
            "The same with Redis syncing its file before it answers, as PostgreSQL does at a commit. What a worker "
            "that dies had taken comes back only after the visibility time-out, an hour by default.",
            environment="celery",
            variables={"BENCH_APPENDFSYNC": "always"},
        ),
    )
}
OURS = "valkyr"
