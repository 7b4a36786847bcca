"""client.breakers: what guards each target, and how it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.client.calls import Calls
from valkyr.client.examples import ListQuery, Matcher, TimeRange
from valkyr.client.failures import Breaker, BreakerState
from valkyr.client.pages import Page, Pages
from valkyr.client.watch import STREAM_LIFETIME, Trouble
from valkyr.client.wire_failures import breaker_of, breaker_state_to_wire
from valkyr.errors import DeadlineExceeded, Unavailable, ValkyrError


class Breakers:
    """Calls to the breaker service."""

    def __init__(self, calls: Calls, namespace: str) -> None:
        self._calls = calls
        self._namespace = namespace

    async def get(self, target: str, *, timeout: timedelta | None = None) -> Breaker:
        """The breaker of a target such as `http:api.example.com`; one never heard of is CLOSED, generation 0."""
        request = breaker_pb2.GetBreakerRequest(namespace=self._namespace, target=target)
        return breaker_of((await self._calls.unary("GetBreaker", request, timeout=timeout)).breaker)

    def list(
        self,
        *,
        states: Sequence[BreakerState] = (),
        target_prefix: str = "",
        example: Mapping[str, Any] | None = None,
        matcher: Matcher | None = None,
        order_by: str = "",
        time_ranges: Sequence[TimeRange] = (),
        page_size: int = 100,
        timeout: timedelta | None = None,
    ) -> Pages[Breaker]:
        """Breakers that look like `example`, by target unless `order_by` says otherwise.

        `list(example={"state": "OPEN"}, order_by="openedTime desc")`; what is not given does not restrict, and `states`
        and `target_prefix` hold whatever the matcher says.
        """
        query = ListQuery(example, matcher, order_by, time_ranges)
        wire_states = [breaker_state_to_wire(state) for state in states]

        async def fetch(token: str) -> Page[Breaker]:
            request = breaker_pb2.ListBreakersRequest(
                namespace=self._namespace,
                states=wire_states,
                target_prefix=target_prefix,
                page_size=page_size,
                page_token=token,
            )
            query.put_into(request)
            answer = await self._calls.unary("ListBreakers", request, timeout=timeout)
            return Page([breaker_of(breaker) for breaker in answer.breakers], answer.next_page_token)

        return Pages(fetch)

    async def watch(self, *, patience: timedelta = timedelta(minutes=1)) -> AsyncGenerator[Breaker, None]:
        """The breakers that ever left CLOSED, first as they are, then each change as it comes; it never ends by itself.

        A broken stream is opened anew and its snapshot compared, so that nothing comes twice; Unavailable after
        `patience` without an answer.
        """
        seen: dict[str, Breaker] = {}
        trouble = Trouble(patience.total_seconds())
        request = breaker_pb2.WatchBreakersRequest(namespace=self._namespace)
        while True:
            opened = time.monotonic()
            try:
                stream = self._calls.stream("WatchBreakers", request, timeout=STREAM_LIFETIME)
                async with aclosing(stream) as responses:
                    async for response in responses:
                        trouble.is_over()
                        for breaker in map(breaker_of, response.breakers):
                            if _is_news(breaker, seen.get(breaker.target)):
                                seen[breaker.target] = breaker
                                yield breaker
                broken: ValkyrError = Unavailable("the breaker service ended the stream")
            except (Unavailable, DeadlineExceeded) as error:
                broken = error
            await asyncio.sleep(trouble.delay_after(broken, lived=time.monotonic() - opened))


def _is_news(breaker: Breaker, seen: Breaker | None) -> bool:
    """Differs from what was seen, and is no older: a replica may lag behind the one that was asked before."""
    return seen is None or (breaker != seen and breaker.generation >= seen.generation)
