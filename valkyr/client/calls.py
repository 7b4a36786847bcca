"""One server as the SDK sees it: a deadline on every call, safe repeats, errors as classes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc

from valkyr.client.retries import RetryBudget, delay_before_repeat
from valkyr.errors import DeadlineExceeded, Overloaded, Unavailable, ValkyrError
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import GRPC_CODE, from_rpc_error

TRANSIENT = (Unavailable, Overloaded, DeadlineExceeded)
"""After which the same call, made again, may be answered."""


class Calls:
    """Calls to one server. Every call it makes is safe to repeat: a read, or a change that carries a `request_id`.

    `name` is how errors call the server; the channel opens with the first call, in the loop that makes it.
    """

    def __init__(
        self,
        make_stub: Callable[[Any], Any],
        *,
        name: str,
        address: str,
        principal: str | None,
        timeout: timedelta,
        connect_timeout: timedelta | None,
    ) -> None:
        self._make_stub = make_stub
        self._name = name
        self._address = address
        self._principal = principal
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._reached = False
        self._budget = RetryBudget()
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def unary(self, rpc: str, request: Any, *, timeout: timedelta | None = None) -> Any:
        """The answer of the RPC called `rpc`, within `timeout` (all repeats and waits included), or a ValkyrError.

        Where a repeat runs out of time, what the server said to the one before it: that says more.
        """
        budget = self._timeout if timeout is None else timeout
        began = time.monotonic()
        expires = began + budget.total_seconds()
        failures = 0
        said: ValkyrError | None = None
        while True:
            try:
                answer = await getattr(self._open(), rpc)(request, timeout=_left(expires))
            except grpc.RpcError as error:
                failures += 1
                failure = self._error(error, request, budget)
                if isinstance(failure, DeadlineExceeded) and said is not None:
                    raise said from None
                delay = self._delay(failure, failures, self._last_moment(began, expires))
                said = said if GRPC_CODE in failure.details.metadata else failure
                await asyncio.sleep(delay)
            else:
                self._reached = True
                self._budget.succeeded()
                return answer

    async def once(self, rpc: str, request: Any, *, timeout: timedelta | None = None) -> Any:
        """The answer to a single attempt, or a ValkyrError: for callers who repeat by rules of their own."""
        budget = self._timeout if timeout is None else timeout
        try:
            answer = await getattr(self._open(), rpc)(request, timeout=budget.total_seconds())
        except grpc.RpcError as error:
            raise self._error(error, request, budget) from None
        self._reached = True
        self._budget.succeeded()
        return answer

    def may_repeat(self, *, began: float, delay: timedelta) -> bool:
        """Whether a failed attempt may be made again after `delay`.

        Not in an outage that many calls share, nor where nobody was ever there `connect_timeout` after `began`
        (monotonic seconds).
        """
        in_time = time.monotonic() + delay.total_seconds() < self._last_moment(began, math.inf)
        return self._budget.failed() and in_time

    async def stream(self, rpc: str, request: Any, *, timeout: timedelta) -> AsyncGenerator[Any, None]:
        """The messages of one call of a streaming RPC; never repeated here. ValkyrError when it breaks."""
        call = getattr(self._open(), rpc)(request, timeout=timeout.total_seconds())
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise self._error(error, request, timeout) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the channel; calls under way end as cancelled."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    def _open(self) -> Any:
        if self._stub is None:
            self._channel = open_channel(self._address, principal=self._principal, options=[("grpc.enable_retries", 0)])
            self._stub = self._make_stub(self._channel)
        return self._stub

    def _last_moment(self, began: float, expires: float) -> float:
        """When to stop repeating: sooner where nobody was ever there."""
        if self._reached or self._connect_timeout is None:
            return expires
        return min(expires, began + self._connect_timeout.total_seconds())

    def _delay(self, error: ValkyrError, failures: int, expires: float) -> float:
        """Seconds to wait before the call is repeated; raises `error` where it is not."""
        delay = delay_before_repeat(error, failures)
        if delay is None:
            raise error
        allowed = self._budget.failed()
        if not allowed or delay.total_seconds() >= _left(expires):
            raise error
        return delay.total_seconds()

    def _error(self, error: grpc.RpcError, request: Any, budget: timedelta) -> ValkyrError:
        """With `metadata["requestId"]` where the request has one and may have taken effect all the same: by that it is
        repeated and carried out once."""
        translated = self._in_words(error, budget)
        request_id = getattr(request, "request_id", "")
        if request_id and isinstance(translated, TRANSIENT):
            metadata = {**translated.details.metadata, "requestId": request_id}
            translated.details = replace(translated.details, metadata=metadata)
        return translated

    def _in_words(self, error: grpc.RpcError, budget: timedelta) -> ValkyrError:
        translated = from_rpc_error(error)
        if GRPC_CODE not in translated.details.metadata:
            self._reached = True
            return translated
        match translated:
            case DeadlineExceeded():
                return DeadlineExceeded(
                    f"the {self._name} at {self._address} did not answer within {budget.total_seconds():g} s",
                    hint="whether it took effect is unknown; repeat with the same request_id, or allow more time",
                )
            case Unavailable():
                return Unavailable(
                    f"the {self._name} at {self._address} cannot be reached",
                    hint="is it running there? `make up` starts a local stack and prints its addresses",
                    retry_after=translated.details.retry_after,
                )
            case _:
                return translated


def _left(expires: float) -> float:
    """Seconds left, at least a moment: a spent deadline is for gRPC to report."""
    return max(0.001, expires - time.monotonic())
