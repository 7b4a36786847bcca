"""A batch that was too much for one transaction, applied in smaller ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from services.executor.store.session import took_too_long
from valkyr.errors import Internal, Overloaded, ValkyrError
from valkyr.flow.events import Event
from valkyr.flow.intake import Answer

MOST_STUCK = 5
"""Executions that take too long alone, before the rest of a batch is left for another time: each costs a time limit."""


async def apply_in_portions(
    events: Sequence[Event], apply: Callable[[Sequence[Event]], Awaitable[list[Answer]]]
) -> list[Answer]:
    """Half of the executions at a time, a quarter where that takes too long again, and so on down to one. The answers
    in the order of the events. What went wrong first is raised after the others were tried."""
    left = deque(_by_execution(events))
    size = (len(left) + 1) // 2
    answers: dict[int, Answer] = {}
    problem: ValkyrError | None = None
    stuck = 0
    while left and stuck < MOST_STUCK:
        portion = [left.popleft() for _ in range(min(size, len(left)))]
        places = sorted(place for group in portion for place in group)
        try:
            answers.update(zip(places, await apply([events[place] for place in places]), strict=True))
        except Internal as error:
            problem = problem or error  # told in the log; the others of the portion were applied
        except Overloaded as error:
            if not took_too_long(error):
                raise
            if len(portion) > 1:
                left.extendleft(reversed(portion))
                size = len(portion) // 2
            else:
                problem = problem or error
                stuck += 1
    if problem is not None:
        raise problem
    return [answers[place] for place in range(len(events))]


def _by_execution(events: Sequence[Event]) -> list[list[int]]:
    """The places of events, those of one execution together."""
    places: dict[UUID, list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault(event.execution_id, []).append(place)
    return list(places.values())
