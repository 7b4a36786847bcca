"""A module cannot end the process; Ctrl-C can."""

from __future__ import annotations

import functools
import signal
from typing import Any

import pytest

from tests.unit.runner.fakes import FakeTransport, a_lease, a_running, eventually, modules_with
from valkyr.module import Context
from valkyr.runner.interrupts import is_ctrl_c
from valkyr.runner.leases import FailureType


class _Runner:
    """Sets handlers as asyncio.Runner does."""

    def _on_sigint(self, number: int, frame: Any, *, main_task: object) -> None:
        raise KeyboardInterrupt

    def handler(self) -> Any:
        return functools.partial(self._on_sigint, main_task=None)


def _quiet(number: int, frame: Any) -> None:
    """As asyncio sets for `loop.add_signal_handler`."""


@pytest.fixture(params=["asyncio.Runner", "add_signal_handler", "ignored"])
def _handled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {"asyncio.Runner": _Runner().handler(), "add_signal_handler": _quiet, "ignored": signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", lambda _: handlers[request.param])


@pytest.mark.usefixtures("_handled")
@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize("error", [KeyboardInterrupt("mine"), SystemExit(3)], ids=["KeyboardInterrupt", "SystemExit"])
async def test_a_module_that_wants_to_end_the_process_only_fails(error: BaseException, kind: str) -> None:
    async def fail(context: Context) -> None:
        raise error

    def fail_in_thread(context: Context) -> None:
        raise error

    transport = FakeTransport(a_lease("r1", "M"))
    async with a_running(transport, modules_with(M=fail if kind == "async" else fail_in_thread)):
        await eventually(lambda: transport.results)
        transport.offer(a_lease("r2"))
        await eventually(lambda: len(transport.results) == 2)
    assert transport.failure_of("r1").type is FailureType.TRANSIENT
    assert type(error).__name__ in transport.failure_of("r1").message


def _caught(raising: Any) -> BaseException:
    try:
        raising()
    except KeyboardInterrupt as error:
        return error
    raise AssertionError("nothing was raised")


def _raise() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_under_an_asyncio_runner_is_known_by_the_frame_of_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = _Runner().handler()
    monkeypatch.setattr(signal, "getsignal", lambda _: handler)
    assert is_ctrl_c(_caught(lambda: handler(signal.SIGINT, None)))
    assert not is_ctrl_c(_caught(_raise))


def test_under_pythons_own_handler_every_keyboard_interrupt_may_be_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    assert is_ctrl_c(_caught(_raise))
    assert not is_ctrl_c(SystemExit())
