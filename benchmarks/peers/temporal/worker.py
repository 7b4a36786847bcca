"""A Temporal worker: `python -m benchmarks.peers.temporal.worker HOST:PORT`, until it is ended."""

from __future__ import annotations

import asyncio
import sys

from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from benchmarks.peers.temporal import flows

TASK_QUEUE = "bench"
SLOTS = 200


async def main() -> None:
    """Serves every workflow and activity of `flows`."""
    worker = Worker(
        await Client.connect(sys.argv[1]),
        task_queue=TASK_QUEUE,
        workflows=[flows.Single, flows.Stamped, flows.Chain, flows.Fan],
        activities=[flows.add_one, flows.add_one_at, flows.sum_of],
        max_concurrent_activities=SLOTS,
        max_concurrent_workflow_tasks=SLOTS,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    print("ready", flush=True)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
