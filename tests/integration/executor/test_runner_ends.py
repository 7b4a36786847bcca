"""`valkyr runner` as a process, at its end: what its modules leave behind keeps it from nothing."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.builders import a_graph
from tests.chaos.runner_processes import RunnerProcess, a_runner
from tests.effect_modules import effects, of
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.cli.exits import ExitCode

LEFT_BEHIND = ["DeafModule", "LingeringModule"]


@pytest.fixture
async def stack(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """Nothing runs but what runner processes lease."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


async def begun(stack: Stack, folder: Path, class_name: str, pool: str = "default") -> None:
    """A run of the class, by a runner of the pool, is under way; its node has the name of that."""
    await stack.start(a_graph(pool, modules={pool: class_name}, nodes={pool: {"pool": pool}}))
    await until_true(lambda: of(effects(folder / "ledger"), "BEGUN", pool), "the module has begun")


async def ended(runner: RunnerProcess) -> int:
    return await runner.ended(timeout=30)


@pytest.mark.parametrize("class_name", LEFT_BEHIND)
async def test_i12_a_runner_that_was_told_to_end_ends_whatever_its_modules_do(
    stack: Stack, tmp_path: Path, class_name: str
) -> None:
    async with a_runner(tmp_path, stack.app.server.address, "--grace", "0s") as runner:
        await begun(stack, tmp_path, class_name)
        runner.signal(signal.SIGTERM)
        assert await ended(runner) == ExitCode.OK, runner.text()
        assert len(runner.said("runner.ended")) == 1


async def test_i12_a_runner_whose_loop_is_blocked_is_gone_after_its_grace_whoever_told_it_to_drain(
    stack: Stack, tmp_path: Path
) -> None:
    """By the last resort, some seconds after the grace: both at a time, as that is what takes long."""
    address, quick = stack.app.server.address, ("--grace", "0s")
    signalled = a_runner(tmp_path, address, "--pool", "signalled", *quick, name="signalled")
    drained = a_runner(tmp_path, address, "--pool", "drained", "--id", "drained", *quick, name="drained")
    async with signalled as one, drained as other:
        for pool in ("signalled", "drained"):
            await begun(stack, tmp_path, "BlockingModule", pool)
        one.signal(signal.SIGTERM)
        await stack.client.runners.drain("drained")
        for runner in (one, other):
            assert await ended(runner) == ExitCode.OK, runner.text()
            assert not runner.said("runner.draining"), "its loop has heard of nothing"


async def test_i12_a_second_signal_ends_a_runner_whose_loop_is_blocked(stack: Stack, tmp_path: Path) -> None:
    async with a_runner(tmp_path, stack.app.server.address) as runner:
        await begun(stack, tmp_path, "BlockingModule")
        runner.signal(signal.SIGTERM)
        runner.signal(signal.SIGINT)
        assert await ended(runner) == ExitCode.INTERRUPTED, runner.text()


async def test_i12_a_runner_that_was_replaced_ends_and_says_so_whatever_its_modules_do(
    stack: Stack, tmp_path: Path
) -> None:
    address = stack.app.server.address
    async with a_runner(tmp_path, address, "--id", "twin", name="older") as older:
        await begun(stack, tmp_path, "DeafModule")
        async with a_runner(tmp_path, address, "--id", "twin", name="newer"):
            assert await ended(older) == ExitCode.CONFLICT, older.text()
    assert older.text().count("another process has registered as runner 'twin'") == 1


async def test_classes_that_nobody_has_written_are_run_as_if_they_did_nothing(stack: Stack, tmp_path: Path) -> None:
    async with a_runner(tmp_path, stack.app.server.address, "--unknown-as-noop"):
        execution_id = await stack.start(a_graph("a", modules={"a": "NotWrittenYet"}))
        assert (await stack.wait(execution_id)).outputs == {"a": {}}
