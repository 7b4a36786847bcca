"""Connections that a server ends after a while, so that clients find its new replicas: a runner notices nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc

from tests.builders import a_chain
from tests.executor_stack import until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.modules import builtin_modules
from valkyr.rpc.channel import open_channel
from valkyr.runner.program import Program, RunnerProgram

AGE = timedelta(seconds=1)
ENDED = 3


async def test_runs_go_on_while_connections_end_by_their_age(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}, server={"max_connection_age": AGE}) as stack:
        address = stack.app.server.address
        runner = RunnerProgram(Program(address, builtin_modules(), pool="default", concurrency=5))
        running = asyncio.create_task(runner.run(signals=False))
        ages = asyncio.create_task(_ended_connections(address, ENDED))
        started = []
        while not ages.done():
            started.append(await stack.start(a_chain(3)))
            await asyncio.wait([ages], timeout=0.05)
        await ages
        assert {(await stack.wait(execution_id)).state for execution_id in started} == {"SUCCESS"}
        rows = await stack.sql.fetch("SELECT DISTINCT attempt, failures, lost_leases FROM executor.run")
        assert [tuple(row) for row in rows] == [(1, 0, 0)]
        runner.end()
        assert await asyncio.wait_for(running, 30)


async def _ended_connections(address: str, number: int) -> None:
    """Returns when so many of a channel's connections were ended by the other side, one after the other."""
    channel = open_channel(address)
    try:
        for _ in range(number):
            await until_true(lambda: _is_ready(channel), "it is connected")
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
    finally:
        await channel.close()


def _is_ready(channel: grpc.aio.Channel) -> bool:
    return bool(channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY)
