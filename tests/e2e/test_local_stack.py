"""The local stack with the real services: what is killed comes back, and nothing that was saved is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.local.errors import StackError
from services.local.home import PROJECT, Home
from services.local.postgres import Cluster
from services.local.rooms import ROOMS
from services.local.stack import LocalStack
from tests.builders import a_graph
from tests.executor_stack import eventually
from tests.free_ports import a_port_base
from tests.waiting import lives, wait_until
from valkyr import Client, WorkflowInfo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def client_of(stack: LocalStack) -> Client:
    addresses = stack.addresses
    patience = timedelta(seconds=60)
    return Client(graph_store=addresses["graph_store"], executor=addresses["executor"], timeout=patience)


async def save(stack: LocalStack) -> str:
    async with client_of(stack) as client:
        return (await client.graphs.save(a_graph("a -> b"), workflow=WorkflowInfo(name="kept"))).workflow.id


async def latest(stack: LocalStack, workflow_id: str) -> int:
    async with client_of(stack) as client:
        return (await client.graphs.get(workflow_id)).workflow.version


def has_said(stack: LocalStack, text: str) -> bool:
    return text in stack.output.read_text()


async def are_serving(stack: LocalStack) -> bool:
    """Whether every service says so under its own name."""
    for room in ROOMS:
        async with grpc.aio.insecure_channel(stack.addresses[room.name]) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=room.service), timeout=5
                )
            except grpc.aio.AioRpcError:
                return False
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return False
    return True


async def test_what_is_killed_comes_back_with_all_data(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path / "home", a_port_base())
    async with stack:
        assert await are_serving(stack)
        workflow_id = await save(stack)
        first = stack.pids
        for name in ("executor", "graph_store", "postgres"):
            os.kill(first[name], signal.SIGKILL)
        for said in ("executor is healthy again", "graph_store is healthy again", "PostgreSQL is up again"):
            await asyncio.to_thread(wait_until, partial(has_said, stack, said), said, 60)
        await eventually(lambda: are_serving(stack), "all four have their database again", 60)
        assert await latest(stack, workflow_id) == 1

        os.kill(first["supervisor"], signal.SIGKILL)
        assert stack.process is not None
        stack.process.wait()
        second = LocalStack(stack.home.folder, stack.port_base)
        async with second:
            assert await latest(second, workflow_id) == 1
            left = [pid for name, pid in second.pids.items() if name in first and first[name] == pid]
            assert not left
            last = second.pids
    assert not any(lives(pid) for pid in last.values())
    shutil.rmtree(stack.home.folder)


@pytest.fixture
def own_database_url(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL as it may be installed, of an older version if there is one here."""
    on_path = shutil.which("postgres")
    folder = str(Path(on_path).resolve().parent) if on_path else None
    cluster = Cluster(Home(tmp_path / "own"), binaries_folder=folder, durable_setup=False)
    cluster.start()
    yield cluster.url
    cluster.stop()


async def test_two_stacks_run_side_by_side_one_on_a_database_of_ones_own(tmp_path: Path, own_database_url: str) -> None:
    one = LocalStack(tmp_path / "one", a_port_base())
    two = LocalStack(tmp_path / "two", a_port_base(), extra_env={"VALKYR_DATABASE_URL": own_database_url})
    async with one, two:
        assert "postgres" in one.pids
        assert "postgres" not in two.pids
        assert not (two.home.folder / "postgres").exists()
        await save(one)
        workflow_id = await save(two)
        assert await latest(two, workflow_id) == 1
        with pytest.raises(StackError, match=f"a stack is already running in {one.home.folder}"):
            await asyncio.to_thread(LocalStack(one.home.folder, a_port_base()).start)
        with pytest.raises(StackError, match=f"port {one.port_base} \\(for graph_store\\) is in use by pid"):
            await asyncio.to_thread(LocalStack(tmp_path / "three", one.port_base).start)
        assert await are_serving(one)
    assert one.process is None


def test_a_stack_ends_with_the_program_that_drives_it(tmp_path: Path) -> None:
    home, port_base = tmp_path / "home", a_port_base()
    program = (
        "import sys; from services.local.stack import LocalStack;"
        f"stack = LocalStack({str(home)!r}, {port_base}).start();"
        "print(*stack.pids.values(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == len(ROOMS) + 3
        process.kill()
    wait_until(lambda: not any(lives(pid) for pid in pids), "the stack ends", 60)


def test_wrong_settings_stop_the_start_with_what_is_wrong(tmp_path: Path) -> None:
    wrong = {
        "VALKYR_EXECUTOR__RUNNER__LEES": "PT2M",
        "VALKYR_GRAPH_STORE__LIMITS__NODES": "many",
        "VALKYR_SERVER__HOST": "0.0.0.0",
        "VALKYR_FOO": "1",
    }
    stack = LocalStack(tmp_path / "home", a_port_base(), extra_env=wrong)
    with pytest.raises(StackError) as caught:
        stack.start()
    said = str(caught.value)
    assert "4 settings are wrong" in said
    for name in wrong:
        assert said.count(name) == 1, said
    assert "Traceback" not in said
    assert not stack.home.data.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "postgresql://me:secret@127.0.0.1:1/x",
            r"postgresql://me:\*\*\*@127.0.0.1:1/x cannot be used: .* be reached \(connection refused\)",
        ),
        ("host=here password=secret", "VALKYR_DATABASE_URL does not begin with postgresql://"),
    ],
    ids=["nobody listens", "no URL"],
)
def test_a_database_of_ones_own_that_cannot_be_used_is_one_sentence(tmp_path: Path, url: str, said: str) -> None:
    stack = LocalStack(tmp_path / "home", a_port_base(), extra_env={"VALKYR_DATABASE_URL": url})
    with pytest.raises(StackError, match=said) as caught:
        stack.start()
    assert "secret" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
