"""What an executor asks of the database that has nothing to do."""

from __future__ import annotations

from tests.builders import a_graph
from tests.counted_session import CountedSession
from tests.executor_stack import eventually
from tests.integration.executor.conftest import OpenStack


async def test_a_dispatcher_with_nothing_to_lease_asks_once(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        await stack.run(a_graph("a"))
        await stack.start(a_graph("p", nodes={"p": {"pool": "elsewhere"}}))
        parts = stack.app.parts

        async def asks_once() -> bool:
            """Once what the start has set going is done; the dispatcher's own loop may be at it meanwhile."""
            counted = CountedSession(parts.session)
            parts.dispatcher._session = counted  # type: ignore[assignment]
            return await parts.dispatcher.step() is None and counted.statements == 1

        await eventually(asks_once, "the dispatcher asks once")


async def test_timers_that_are_not_due_are_asked_for_once(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        execution = await stack.start(a_graph("d", modules={"d": ("DelayModule", {"duration": "PT1M"})}))
        assert await stack.states(execution) == {"d": "WAITING"}
        parts = stack.app.parts

        async def asked_once() -> bool:
            """Once what the start has set going is done; the loop of the timers may be at it meanwhile."""
            counted = CountedSession(parts.session)
            parts.timers._session = counted  # type: ignore[assignment]
            due = await parts.timers.wake_due()
            assert due is not None
            assert 30 < due.total_seconds() <= 60
            return counted.statements == 1

        await eventually(asked_once, "the timers are asked for once")
