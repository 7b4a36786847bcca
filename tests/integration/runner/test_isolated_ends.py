"""Modules in processes of their own that end badly: the failure says how, and other runs go on."""

from __future__ import annotations

import errno
import os
import signal
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from tests.integration.runner.isolation import a_deed, a_runner, isolated, outputs_of, reported
from tests.unit.runner.fakes import Gate, a_lease, eventually
from valkyr.module import MIN_MEMORY, MIN_OPEN_FILES, ModuleSpec, ProcessLimits, spec_of
from valkyr.runner.isolated import watch
from valkyr.runner.leases import FailureType
from valkyr.telemetry import attempt_traceparent
from valkyr.testing import run_module

KILLS = [
    ("segfault", 0, "Bad: its process was killed by SIGSEGV, before it had returned"),
    ("end", 3, "Bad: its process ended by itself, with exit code 3, before it had returned"),
    ("end", 0, "Bad: its process ended by itself, with exit code 0, before it had returned"),
    ("signal_itself", signal.SIGABRT, "Bad: its process was killed by SIGABRT, before it had returned"),
    ("signal_itself", signal.SIGTERM, "Bad: its process was killed by SIGTERM, before it had returned"),
    (
        "signal_itself",
        signal.SIGKILL,
        "Bad: its process was killed by SIGKILL, and not by its runner: by the system for want of memory, or by"
        " somebody, before it had returned",
    ),
    ("signal_itself", 40, "Bad: its process was killed by signal 40, before it had returned"),
    ("close_everything", 0, "Bad: its process ended by itself, with exit code 1, before it had returned"),
    (
        "say_no_more",
        0,
        "Bad: what its process and its runner talk by is of no use any more (it was closed); the process was killed",
    ),
    (
        "write_rubbish",
        0,
        "Bad: what its process and its runner talk by is of no use any more (a frame of 8589934590 bytes, and 2097152"
        " are allowed); the process was killed",
    ),
]


async def test_a_process_that_dies_fails_its_run_by_name_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    modules = {**isolated(), "Other": spec_of("Other", gate.run)}
    async with a_runner(modules) as (transport, worker):
        transport.offer(a_lease("other", "Other"))
        for number, (do, argument, message) in enumerate(KILLS):
            monkeypatch.setattr(watch, "_DYING", 0.2 if do == "say_no_more" else 30.0)
            transport.offer(a_deed(f"r{number}", do, number=argument))
            await reported(transport, f"r{number}")
            failure = transport.failure_of(f"r{number}")
            assert (failure.type, failure.message) == (FailureType.TRANSIENT, message)
        assert "Segmentation fault" in transport.failure_of("r0").stack_trace
        assert "in segfault" in transport.failure_of("r0").stack_trace
        assert transport.failure_of("r1").stack_trace == "what it printed last:\nthese are my last words"
        assert gate.running == 1
        gate.open.set()
        assert (await outputs_of(transport, a_deed("after", "pid")))["pid"]
        await eventually(lambda: worker.room() == 2)
    assert transport.outputs_of("other") == b'"done"'


async def test_what_it_has_answered_holds_whatever_comes_after() -> None:
    async with a_runner() as (transport, _):
        before = await outputs_of(transport, a_deed("before", "pid"))
        assert await outputs_of(transport, a_deed("r1", "answer_and_write_rubbish")) == {"before": "the rubbish"}
        assert (await outputs_of(transport, a_deed("after", "pid")))["pid"] != before["pid"]


@pytest.mark.parametrize("do", ["close_its_output", "lose_its_output"])
async def test_a_success_counts_though_nothing_can_be_printed_any_more(do: str) -> None:
    async with a_runner() as (transport, _):
        before = await outputs_of(transport, a_deed("before", "pid"))
        assert await outputs_of(transport, a_deed("r1", do)) == "done"
        assert (await outputs_of(transport, a_deed("after", "pid")))["pid"] != before["pid"]


@pytest.mark.parametrize("class_name", ["Bad", "BadAsync"])
async def test_what_cannot_be_stored_fails_for_good_and_the_process_serves_on(class_name: str) -> None:
    wrong = {
        "too_large": "the outputs have 2097154 bytes, and 1048576 are allowed: store them elsewhere, and say where",
        "not_a_number": "the outputs contain nan, which JSON cannot hold",
        "cyclic": "the outputs nest deeper than 64 levels, or contain themselves",
        "no_json": "the outputs contain a object, which JSON cannot hold",
    }
    async with a_runner() as (transport, _):
        before = await outputs_of(transport, a_deed("before", "pid", class_name))
        for do, message in wrong.items():
            transport.offer(a_deed(do, do, class_name))
            await reported(transport, do)
            assert transport.failure_of(do).type is FailureType.PERMANENT
            assert transport.failure_of(do).message == message
        assert await outputs_of(transport, a_deed("after", "pid", class_name)) == before


async def test_exceptions_mean_the_same_as_in_the_runner_itself() -> None:
    async with a_runner() as (transport, _):
        deeds = ["permanent", "later", "exit_politely", "interrupt"]
        transport.offer(*(a_deed(do, do, number=3) for do in deeds), a_lease("wrong", "Bad", config=b'{"do": 5}'))
        for run_id in [*deeds, "wrong"]:
            await reported(transport, run_id)
        permanent, later = transport.failure_of("permanent"), transport.failure_of("later")
        assert (permanent.type, permanent.message) == (FailureType.PERMANENT, "the card has been stolen")
        assert (later.type, later.retry_after) == (FailureType.RATE_LIMITED, timedelta(seconds=7.5))
        assert "raise PermanentError" in permanent.stack_trace
        assert "child.py" not in permanent.stack_trace
        assert transport.failure_of("exit_politely").message == "SystemExit: 3"
        assert transport.failure_of("interrupt").message == "KeyboardInterrupt"
        assert "the config of Bad is wrong: do:" in transport.failure_of("wrong").message
        assert transport.failure_of("wrong").type is FailureType.PERMANENT


async def test_a_module_sees_the_same_context_as_in_the_runner_itself() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    deadline = datetime(2100, 1, 1, tzinfo=UTC)
    async with a_runner(settings={"region": "eu"}) as (transport, _):
        seen = await outputs_of(
            transport, a_deed("r1", "whole_context", attempt=4, traceparent=parent, deadline=deadline)
        )
    assert seen == {
        "ids": ["e1", "r1", "node of r1", 4],
        "key": "key",
        "trigger": {"n": 1},
        "before": {"x": 2},
        "deadline": "2100-01-01T00:00:00+00:00",
        "settings": {"region": "eu"},
        "traceparent": attempt_traceparent(parent, "r1", 4),
    }
    [result] = [result for result in transport.results if result.ref.run_id == "r1"]
    assert getattr(result.result, "cost_tokens", None) == 1.5


async def test_settings_that_no_other_process_can_have_fail_the_run_for_good() -> None:
    async with a_runner(settings={"lock": lambda: None}) as (transport, worker):
        transport.offer(a_deed("r1", "pid"))
        await reported(transport, "r1")
        await eventually(lambda: worker.room() == 2)
    assert transport.failure_of("r1").type is FailureType.PERMANENT
    assert transport.failure_of("r1").message.startswith("the runner's settings cannot be handed to another process: ")


def _nowhere(qualname: str, module: str) -> ModuleSpec:
    """A function that another process does not find, though this one has it."""

    def function(context: object) -> None:
        raise AssertionError("never called")

    function.__qualname__, function.__module__ = qualname, module
    return spec_of("Nowhere", function, isolation="process")


async def test_a_module_that_the_process_cannot_import_fails_with_its_error() -> None:
    modules = {"Nowhere": _nowhere("run", "no.such.place")}
    async with a_runner(modules) as (transport, worker):
        transport.offer(a_lease("r1", "Nowhere"))
        await reported(transport, "r1")
        await eventually(lambda: worker.room() == 2)
    assert transport.failure_of("r1").message == "ModuleNotFoundError: No module named 'no'"


async def test_a_system_that_refuses_to_watch_a_process_has_it_looked_after_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS, "pidfd_open")

    monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    async with a_runner() as (transport, _):
        assert await outputs_of(transport, a_deed("r1", "pid"))
        transport.offer(a_deed("r2", "end", number=3))
        await reported(transport, "r2")
    assert "with exit code 3" in transport.failure_of("r2").message


async def test_a_process_that_does_not_come_up_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "START_WITHIN", timedelta(milliseconds=10))
    modules = {"Nowhere": _nowhere("run", "tests.integration.runner.hangs_when_imported")}
    async with a_runner(modules) as (transport, worker):
        transport.offer(a_lease("r1", "Nowhere"))
        await reported(transport, "r1")
        await eventually(lambda: worker.room() == 2)
    assert transport.failure_of("r1").type is FailureType.TRANSIENT
    assert transport.failure_of("r1").message == "Nowhere: its process was not ready within 0.01 s, and was killed"


async def test_leaking_past_the_memory_limit_is_a_memory_error_and_the_end_of_the_process() -> None:
    async with a_runner(isolated(memory=200 << 20)) as (transport, _):
        before = await outputs_of(transport, a_deed("before", "pid"))
        transport.offer(a_deed("r1", "leak"))
        await reported(transport, "r1")
        assert transport.failure_of("r1").message == "MemoryError: its process may write to 200 MiB"
        after = await outputs_of(transport, a_deed("after", "pid"))
    assert after["pid"] != before["pid"]


async def test_the_least_memory_and_the_fewest_files_that_are_allowed_are_enough_to_run() -> None:
    async with a_runner(isolated(memory=MIN_MEMORY, open_files=MIN_OPEN_FILES)) as (transport, _):
        assert await outputs_of(transport, a_deed("r1", "pid"))
        assert await outputs_of(transport, a_deed("r2", "pid", "BadAsync"))


async def test_too_much_processor_time_and_too_many_files_are_told_as_such() -> None:
    async with a_runner(isolated(cpu=timedelta(seconds=1), open_files=32)) as (transport, _):
        transport.offer(a_deed("burn", "burn"), a_deed("files", "open_files", "BadAsync"))
        await reported(transport, "files")
        said, _, count = transport.failure_of("files").message.rpartition(" ")
        assert said == "Too many open files after"
        assert 20 < int(count) < 32
        await reported(transport, "burn")
    assert transport.failure_of("burn").message == (
        "Bad: its process was killed by SIGXCPU: it took more than its 1 s of processor time, before it had returned"
    )


async def test_processor_time_counts_anew_for_each_run() -> None:
    """What the process has used before it, to start itself say, is not the run's."""
    async with a_runner(isolated(cpu=timedelta(seconds=1))) as (transport, _):
        before = await outputs_of(transport, a_deed("before", "pid"))
        for number in range(2):
            await outputs_of(transport, a_deed(f"r{number}", "work", number=600))
        assert await outputs_of(transport, a_deed("after", "pid")) == before


def test_limits_that_cannot_work_are_refused() -> None:
    for wrong in ({"memory": 1000}, {"cpu": timedelta(0)}, {"open_files": 3}, {"runs": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            ProcessLimits(**wrong)  # type: ignore[arg-type]


def test_what_could_not_be_found_in_another_process_is_refused_at_once() -> None:
    def local(context: object) -> None: ...

    with pytest.raises(TypeError, match="has to be importable"):
        spec_of("M", local, isolation="process")
    with pytest.raises(TypeError, match="limits are for modules with isolation"):
        spec_of("M", local, limits=ProcessLimits())
    with pytest.raises(TypeError, match="isolation may be"):
        spec_of("M", local, isolation="thread")  # type: ignore[arg-type]


async def test_what_a_run_has_told_of_its_progress_outlives_its_process() -> None:
    async with a_runner() as (transport, _worker):
        transport.offer(a_deed("r1", "tell_and_die", number=7))
        await reported(transport, "r1")
        [result] = [result for result in transport.results if result.ref.run_id == "r1"]
        beats = [said for beat in transport.progress for ref, said in beat.items() if ref == result.ref]
        assert "SIGKILL" in transport.failure_of("r1").message
        last = result.progress or beats[-1]
        assert orjson.loads(last) == {"done": 7}
        again = a_deed("r2", "go_on", attempt=2, progress=last)
        assert await outputs_of(transport, again) == {"before": {"done": 7}}


def test_on_the_bench_too_it_is_known() -> None:
    died = run_module(isolated()["Bad"], {"do": "tell_and_die", "number": 7})
    assert died.failure is not None
    assert "SIGKILL" in died.failure.message
    assert died.progress == {"done": 7}
