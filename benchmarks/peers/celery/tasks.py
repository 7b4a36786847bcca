"""The Celery application and its tasks, served by `celery -A benchmarks.peers.celery.tasks worker`.

Celery itself reads the addresses of Redis from CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""

from __future__ import annotations

import time

from celery import Celery

PREFETCH = 64

app = Celery("bench")
app.conf.update(
    task_acks_late=True,  # a task whose worker dies is run again, as with all the others
    worker_prefetch_multiplier=PREFETCH,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task
def add_one(value: int) -> int:
    """The work of a node."""
    return value + 1


@app.task
def add_one_at(value: int) -> tuple[int, float]:
    """The same, with the time at which it was done."""
    return value + 1, time.monotonic()


@app.task
def add(first: int, branch: int) -> int:
    """A branch of a fan-out: the node before it gives `first`."""
    return first + branch + 1


@app.task
def sum_of(values: list[int]) -> int:
    """The join of a fan-out."""
    return sum(values)
