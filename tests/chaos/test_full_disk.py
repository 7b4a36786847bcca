"""The disk under PostgreSQL fills up beneath a running stack: callers are told so, and with room again all goes on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.local.stack import LocalStack
from tests.builders import a_chain
from tests.executor_stack import eventually
from tests.free_ports import a_port_base
from valkyr.client import Client, ExecutionState
from valkyr.errors import DeadlineExceeded, Unavailable, ValkyrError

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

DISK = "320m"
"""The data folder, its write-ahead log, and the 128 MiB that a start wants to see free."""
MANY, TRIES = 200, 3
NODES = 300
PATIENCE = timedelta(seconds=4)
"""Less than the delay that a full disk asks for: the SDK answers with the error instead of repeating the call."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0755", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {getattr(error, 'stderr', '') or error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """The file that has taken all that was free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return ballast


async def refused(call: Callable[[str], Awaitable[str]]) -> tuple[list[str], ValkyrError]:
    """What a call was answered until the pages that PostgreSQL has at hand were used up, and then its refusal."""
    answers: list[str] = []
    for number in range(MANY):
        try:
            answers.append(await until_said(call, f"{number}"))
        except ValkyrError as error:
            return answers, error
    raise AssertionError(f"{MANY} calls were answered on a full disk")


async def until_said(call: Callable[[str], Awaitable[str]], request_id: str) -> str:
    """Nothing said in time is neither an answer nor a refusal."""
    for _ in range(TRIES):
        with contextlib.suppress(DeadlineExceeded):
            return await call(request_id)
    raise AssertionError(f"nothing was said in {TRIES} times {PATIENCE}")


async def test_i24_a_full_disk_is_named_and_with_room_again_all_goes_on(disk: Path) -> None:
    async with LocalStack(disk / "home", a_port_base()) as stack:
        addresses = stack.addresses
        async with Client(addresses["graph_store"], addresses["executor"], timeout=PATIENCE) as client:
            kept = await client.graphs.save(a_chain(NODES), timeout=timedelta(seconds=60))

            async def save(request_id: str) -> str:
                return (await client.graphs.save(a_chain(NODES), request_id=request_id, max_retries=0)).workflow.id

            async def start(request_id: str) -> str:
                return (await client.executions.start(kept.workflow.id, request_id=request_id)).id

            ballast = fill(disk)
            saved, no_save = await refused(save)
            started, no_start = await refused(start)
            ballast.unlink()
            for error in (no_save, no_start):
                assert isinstance(error, Unavailable)
                assert "disk of the database is full" in error.message
                assert error.details.retry_after

            async def goes_on() -> bool:
                with contextlib.suppress(Unavailable, DeadlineExceeded):
                    started.append(await start("again"))
                    saved.append(await save("again"))
                    return True
                return False

            await eventually(goes_on, "a start and a save", 60)
            for execution_id in started:
                settled = await client.executions.wait(execution_id, timeout=timedelta(seconds=60))
                assert settled.state is ExecutionState.SUCCESS
            workflows = await client.graphs.find(timeout=timedelta(seconds=60)).all()
            assert {workflow.id for workflow in workflows} == {kept.workflow.id, *saved}
            stored = await client.graphs.get(saved[0], timeout=timedelta(seconds=60))
            assert stored.graph == a_chain(NODES)
