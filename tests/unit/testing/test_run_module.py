"""One attempt of one module, with a made-up context."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from valkyr.module import Context, PermanentError, RetryLater
from valkyr.runner.leases import FailureType
from valkyr.testing import run_module
from valkyr.testing.bench import run_apart

SOON = timedelta(milliseconds=50)


class Order(BaseModel):
    cents: int


async def charge(context: Context, config: Order) -> dict[str, Any]:
    """Charge by words."""
    context.cost_tokens = 2.5
    context.heartbeat({"charged": config.cents})
    return {"cents": config.cents, "before": context.progress, "from": context.outputs_of("cart"), "n": context.trigger}


def ask(context: Context) -> dict[str, Any]:
    return {
        "attempt": context.attempt,
        "settings": dict(context.settings),
        "inputs": context.inputs,
        "deadline": context.deadline,
    }


@pytest.mark.parametrize("config", [{"cents": 5}, Order(cents=5)], ids=["plain", "model"])
def test_outputs_cost_and_progress_are_as_they_would_be_stored(config: Any) -> None:
    ran = run_module(charge, config, trigger=7, outputs_of={"cart": ["apple"]}, progress={"charged": 1})
    assert ran.outputs["from"] == ["apple"]
    assert ran.outputs["n"] == 7
    assert (ran.failure, ran.cost_tokens, ran.progress) == (None, 2.5, {"charged": 5})
    assert "before" in ran.outputs


def test_the_context_is_what_the_test_says() -> None:
    deadline = datetime(2040, 1, 1, tzinfo=UTC)
    ran = run_module(ask, attempt=3, settings={"key": "k"}, inputs={"trigger": 1, "nodes": {}}, deadline=deadline)
    assert ran.outputs == {
        "attempt": 3,
        "settings": {"key": "k"},
        "inputs": {"trigger": 1, "nodes": {}},
        "deadline": "2040-01-01T00:00:00+00:00",
    }


def _raising(error: BaseException) -> Any:
    def module(context: Context) -> None:
        raise error

    return module


@pytest.mark.parametrize(
    ("module", "config", "kind", "message"),
    [
        (charge, {"cents": "many"}, FailureType.PERMANENT, "cents"),
        (_raising(PermanentError("no such customer")), {}, FailureType.PERMANENT, "no such customer"),
        (_raising(RetryLater("busy", after=SOON)), {}, FailureType.RATE_LIMITED, "busy"),
        (_raising(ValueError("odd")), {}, FailureType.TRANSIENT, "ValueError: odd"),
        (lambda context: {1, 2}, {}, FailureType.PERMANENT, "set"),
    ],
    ids=["bad config", "permanent", "later", "anything else", "no JSON"],
)
def test_what_goes_wrong_is_the_failure_that_would_be_stored(
    module: Any, config: Any, kind: FailureType, message: str
) -> None:
    ran = run_module(module, config)
    assert ran.failure is not None
    assert ran.failure.type is kind
    assert message in ran.failure.message
    assert ran.outputs is None


def _until_cancelled(context: Context) -> None:
    context.heartbeat("begun")
    while not context.cancelled:
        time.sleep(0.005)
    raise RuntimeError("stopped")


@pytest.mark.parametrize(
    ("how", "kind"),
    [({"timeout": SOON}, FailureType.TIMEOUT), ({"cancel_after": SOON}, FailureType.CANCELLED)],
    ids=["timeout", "cancel"],
)
def test_a_module_can_be_told_to_stop(how: Any, kind: FailureType) -> None:
    ran = run_module(_until_cancelled, **how)
    assert ran.failure is not None
    assert ran.failure.type is kind
    assert ran.progress == "begun"


async def test_it_can_be_called_where_an_event_loop_runs() -> None:
    assert run_module("TransformModule", {"output": 3}).outputs == 3


def test_a_module_nobody_has_registered_is_named() -> None:
    with pytest.raises(LookupError, match="'Nowhere'"):
        run_module("Nowhere")


def test_what_ignores_its_cancel_is_not_waited_for() -> None:
    async def deaf() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def leave_it_behind() -> tuple[asyncio.Task[None], str]:
        left = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        return left, "done"

    left, said = run_apart(leave_it_behind())
    assert said == "done"
    left._log_destroy_pending = False  # type: ignore[attr-defined]
