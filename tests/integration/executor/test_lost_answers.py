"""A write whose answer was lost: what it set going goes on at once, though no loop would look for an hour."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tests.builders import a_graph
from tests.executor_stack import Stack, eventually
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.errors import Unavailable

SLEEPY = {"poll_interval": "PT1H"}
DELAY = ("DelayModule", {"duration": "PT0.2S"})
IS_MEANT = "SELECT count(*) FROM executor.run WHERE is_control AND state <> 'PENDING'"


IS_LET_GO = "SELECT count(*) FROM executor.run WHERE NOT is_control AND dedupes AND state = 'READY'"


def lose_the_answer(stack: Stack, how: str, sign: str = IS_MEANT) -> list[str]:
    """Of the write that brings a delay its turn, or that has done what `sign` says, by that method of the session; the
    answer says when it was lost."""
    session = stack.app.parts.session
    good = getattr(session, how)
    lost: list[str] = []

    async def losing_one(work: Any, **options: Any) -> Any:
        async def losing(connection: Any) -> Any:
            result = await work(connection)
            if not lost and await connection.fetchval(sign):
                lost.append(how)
                await LOSE[how](connection)
            return result

        return await good(losing, **options)

    setattr(session, how, losing_one)
    return lost


async def lose_commit(connection: Any) -> None:
    """What the session says to its own COMMIT is not heard."""
    await connection.execute("COMMIT")
    connection.terminate()


async def lose_statement(connection: Any) -> None:
    connection.terminate()
    raise ConnectionResetError


LOSE = {"repeat": lose_commit, "repeat_single": lose_statement}


@pytest.mark.parametrize(
    ("arrows", "how"),
    [("d", "repeat_single"), ("a -> d", "repeat")],
    ids=["of a start", "of the report that begins a delay"],
)
async def test_what_nobody_heard_of_is_carried_on_at_once(make_stack: OpenStack, arrows: str, how: str) -> None:
    async with make_stack(runner=SLEEPY) as stack:
        workflow_id = await stack.save(a_graph(arrows, modules={"d": DELAY}))
        lost = lose_the_answer(stack, how)
        with suppress(Unavailable):
            await stack.client.executions.start(workflow_id, request_id="once")

        async def settled() -> bool:
            found = [execution async for execution in stack.client.executions.list(workflow_id=workflow_id)]
            return [execution.state for execution in found] == [ExecutionState.SUCCESS]

        async with asyncio.timeout(60):
            await eventually(settled, "it ends")
        assert lost


async def test_a_run_of_which_nobody_heard_that_it_may_be_leased_is_leased_at_once(make_stack: OpenStack) -> None:
    async with make_stack(runner=SLEEPY) as stack:
        lost = lose_the_answer(stack, "repeat", IS_LET_GO)
        execution_id = await stack.start(a_graph("a", modules={"a": ("DedupedModule", {})}))
        assert (await stack.wait(execution_id)).state == ExecutionState.SUCCESS
        assert lost
