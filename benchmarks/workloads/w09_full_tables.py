"""W9: W1 with empty tables, with a million finished executions, and with a million READY runs besides.

The rows are copies, made by SQL, of an execution that the engine made. The READY ones are of a class that no runner
serves: they stand in the tables and in the index of what is to be leased, and do no work of their own. That is the
easier half: leasing goes by class and never walks over these. A deep queue of the class that is measured is W5.
"""

from __future__ import annotations

from benchmarks.client import Job
from benchmarks.copies import copy_execution
from benchmarks.database import Database
from benchmarks.figures import Measured, slowdown
from benchmarks.graphs import single
from benchmarks.sizes import Sizes
from benchmarks.stack import Stack, open_stack, rate_of, work
from benchmarks.tally import check
from benchmarks.usage import Usage
from benchmarks.workloads.w01_sustained import sustained

UNSERVED = "BenchUnserved"


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with open_stack(database.url) as stack:
        job = await sustained(stack, single(), sizes)
        empty, empty_used = await _rate(stack, job)
        await copy_execution(database, await _finished(stack), sizes.rows)
        finished, finished_used = await _rate(stack, job)
        await copy_execution(database, await _ready(stack), sizes.rows)
        ready, ready_used = await _rate(stack, job)
        size = await stack.sql.fetchval("SELECT pg_database_size(current_database()) / 1048576")
    return Measured(
        {
            "W9.empty": empty,
            "W9.finished": slowdown(empty, finished),
            "W9.ready": slowdown(empty, ready),
        },
        cost={
            "empty": empty_used.per_run(job.count),
            "finished rows": finished_used.per_run(job.count),
            "finished and ready rows": ready_used.per_run(job.count),
        },
        others=max(used.others for used in (empty_used, finished_used, ready_used)),
        detail={"rates": [empty, finished, ready], "rows": sizes.rows, "database_mib": size},
    )


async def _rate(stack: Stack, job: Job) -> tuple[float, Usage]:
    done, used = await work(stack, job)
    return rate_of(done), used


async def _finished(stack: Stack) -> str:
    workflow_id = await stack.save(single(), "single, finished")
    async with stack.client() as client:
        execution = await client.executions.start(workflow_id, payload={"n": 1})
        execution = await client.executions.wait(execution.id)
    check(execution, single().answer(), 1)
    return execution.id


async def _ready(stack: Stack) -> str:
    """Its one run stays READY."""
    workflow_id = await stack.save(single(UNSERVED), "single, that nobody serves")
    async with stack.client() as client:
        return (await client.executions.start(workflow_id, payload={"n": 1})).id
