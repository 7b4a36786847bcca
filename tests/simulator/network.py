"""Messages between processes: they are late, come twice, or never; an answer may be lost after its work was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulator.process import Process
from tests.simulator.weather import CALL_TIMEOUT

Reply = Callable[[Any], None]
"""Called once with the answer, or with None where there was none."""


def call(caller: Process, callee: Process, request: Callable[[Reply], None], reply: Reply) -> None:
    """`request` is carried to the callee and answers by what it is given. Silence is None after a while."""
    world = caller.world
    answered = False
    life = caller.life

    def answer(value: Any) -> None:
        nonlocal answered
        if not answered:
            answered = True
            reply(value)

    def carry_back(value: Any) -> None:
        if caller.life != life:
            return
        if value is not None and not world.chance(world.weather.loses):
            caller.later(_travel(callee), answer, value)
        elif value is not None:
            world.counts["answers lost"] += 1

    def arrive() -> None:
        request(carry_back)

    caller.later(CALL_TIMEOUT, answer, None)
    if world.chance(world.weather.loses):
        world.counts["messages lost"] += 1
        return
    callee.later(_travel(caller), arrive)
    if world.chance(world.weather.repeats):
        world.counts["messages repeated"] += 1
        callee.later(_travel(caller) + world.dice.random() * world.dice.choice((0.02, 10.0)), arrive)


def _travel(process: Process) -> float:
    """Seconds; mostly next to nothing, and less than the call may take."""
    world = process.world
    if world.chance(world.weather.delays):
        world.counts["messages delayed"] += 1
        return world.dice.random() * CALL_TIMEOUT
    return world.dice.random() * 0.01
