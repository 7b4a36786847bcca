"""Services that do nothing but report their health, for tests of the supervisor.

`TOY_FAULT=exit` makes them end at once, `TOY_FAULT=deaf` makes them ignore SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.local.rooms import HOST, Room

FIRST = Room("first", "tests.integration.local.toy_first", 0, "toy.First")
SECOND = Room("second", "tests.integration.local.toy_second", 1, "toy.Second")


async def main(room: Room) -> int:
    """Serves until SIGTERM; the exit code."""
    if os.environ.get("TOY_FAULT") == "exit":
        print("the setting toy.fault is wrong", flush=True)
        return 3
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"{HOST}:{room.port(int(os.environ['VALKYR_PORT_BASE']))}")
    await servicer.set(room.service, health_pb2.HealthCheckResponse.SERVING)
    stop = asyncio.Event()
    if os.environ.get("TOY_FAULT") == "deaf":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    print(os.environ["VALKYR_DATABASE_URL"], flush=True)
    await stop.wait()
    print("told to stop", flush=True)
    await server.stop(1)
    return 0
