"""Payloads and outputs at their exact limits, as they come: n bytes pass, n + 1 are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.builders import a_graph
from tests.executor_stack import Stack, open_stack
from valkyr.errors import LimitExceeded
from valkyr.graph.model import Graph

MEBIBYTE = 1024 * 1024
FRAME = len('{"text":""}')


@pytest.fixture
async def usual(migrated_database_url: Callable[..., str], tmp_path: Path) -> AsyncIterator[Stack]:
    """With the limits that come with it."""
    async with open_stack(migrated_database_url("graph_store", "executor"), tmp_path) as stack:
        yield stack


def sized(size: int) -> Graph:
    """Its module returns a text of that size."""
    return a_graph("a", modules={"a": ("SizeModule", {"size": size})})


async def test_i25_a_payload_of_a_mebibyte_starts_an_execution_and_one_byte_more_does_not(usual: Stack) -> None:
    workflow_id, within = await usual.save(a_graph("a")), "x" * (MEBIBYTE - 2)
    with pytest.raises(LimitExceeded) as caught:
        await usual.client.executions.start(workflow_id, payload=within + "x")
    (bad,) = caught.value.details.violations
    assert bad.field == "payload"
    assert f"{MEBIBYTE + 1} bytes of JSON, over {MEBIBYTE}; store it elsewhere" in bad.description
    started = await usual.client.executions.start(workflow_id, payload=within)
    assert (await usual.client.executions.get(started.id)).trigger_payload == within


async def test_outputs_of_a_mebibyte_are_kept_and_larger_ones_are_a_permanent_error(usual: Stack) -> None:
    executions = usual.client.executions
    kept = await usual.start(sized(MEBIBYTE - FRAME))
    settled = await executions.wait(kept, timeout=timedelta(seconds=60))
    assert (settled.state, len(settled.outputs["a"]["text"])) == ("SUCCESS", MEBIBYTE - FRAME)
    refused = await usual.start(sized(MEBIBYTE - FRAME + 1))
    settled = await executions.wait(refused, timeout=timedelta(seconds=60))
    (run,) = [run async for run in executions.list_runs(refused)]
    assert (settled.state, run.error_type) == ("FAILED", "PERMANENT")
    assert f"{MEBIBYTE + 1} bytes, and {MEBIBYTE} are allowed" in run.error
