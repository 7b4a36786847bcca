"""A proxy for the calls of a runner: each is lost, delayed, held, repeated or left without its answer as a test says.

Requests and answers go through as the bytes that they are.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc.aio

from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.rpc.channel import MIN_PING_INTERVAL, message_options

DELIVERY = 30.0
"""Seconds that a delivery may take: of its caller's deadline it knows nothing."""

MESSAGES: Mapping[str, tuple[Any, Any]] = {
    name: (getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response"))
    for name in ("RegisterRunner", "LeaseRuns", "HeartbeatRuns", "ReportRuns", "DrainRunner")
}


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one call. It is delivered so often, one after the other, `before` seconds after it came and not before `held`
    is set; its answer, that of the last delivery, goes back `after` seconds later. Without `answer` the caller is told
    UNAVAILABLE at once, or if `silent` nothing, until its deadline. `again_after` seconds later it comes once more.
    """

    deliveries: int = 1
    before: float = 0.0
    after: float = 0.0
    held: asyncio.Event | None = None
    answer: bool = True
    silent: bool = False
    again_after: float | None = None


PASS = Fate()
LOST = Fate(deliveries=0, answer=False)
UNANSWERED = Fate(answer=False)
TWICE = Fate(deliveries=2)


@dataclass(slots=True)
class Carried:
    """One call: its `answers`, one for each delivery, are messages, or the status that it was refused with."""

    method: str
    fate: Fate
    request: Any
    answers: list[Any] = field(default_factory=list)


Judge = Callable[[str, Any], Fate]


def in_turn(method: str, *fates: Fate) -> Judge:
    """The first calls of that method; nothing befalls those after them, nor others."""
    left = deque(fates)
    return lambda called, _request: left.popleft() if called == method and left else PASS


def at_random(chance: random.Random, fates: Sequence[Fate], *, share: float = 1 / 3) -> Judge:
    """A share of all calls; of calls for runs, and of the others, none has a fate again before all had their turn. A
    call for runs does not come once more when it was answered long ago: to the executor that is a new one, and what it
    brings to nobody takes ten seconds to come back."""
    of_calls_for_runs = [fate for fate in fates if fate.again_after is None]
    left: dict[bool, list[Fate]] = {True: [], False: []}

    def judge(method: str, _request: Any) -> Fate:
        if chance.random() >= share:
            return PASS
        for_runs = method == "LeaseRuns"
        turns = left[for_runs]
        if not turns:
            some = of_calls_for_runs if for_runs else fates
            turns += chance.sample(some, len(some))
        return turns.pop()

    return judge


def outcomes(call: Carried) -> list[list[str]]:
    """Of each delivery of a report, what it was answered."""
    return [[pb.ReportRunsResponse.Outcome.Name(one.outcome) for one in answer.answers] for answer in call.answers]


class CallProxy:
    """Forwards to `target`. `judge` says what becomes of a call, by its method and its request."""

    def __init__(self, target: str, judge: Judge = lambda _method, _request: PASS) -> None:
        self.judge = judge
        self.carried: list[Carried] = []
        self.address = ""
        self._target = target
        self._server: Any = None
        self._channel: Any = None
        self._under_way: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        options = [*message_options(), ("grpc.enable_http_proxy", 0)]
        pings = ("grpc.http2.min_ping_interval_without_data_ms", int(MIN_PING_INTERVAL.total_seconds() * 1000))
        self._channel = grpc.aio.insecure_channel(self._target, options=options)
        self._server = grpc.aio.server(options=[*options, pings, ("grpc.keepalive_permit_without_calls", 1)])
        self._server.add_generic_rpc_handlers([_Everything(self._carry)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._under_way:
            task.cancel()
        await self._server.stop(None)
        await self._channel.close()

    def of(self, method: str) -> Sequence[Carried]:
        """The calls of one method, in the order in which they came."""
        return [call for call in self.carried if call.method == method]

    async def _carry(self, path: str, request: bytes, context: Any) -> bytes:
        method = path.rpartition("/")[2]
        message = MESSAGES[method][0].FromString(request)
        fate = self.judge(method, message)
        call = Carried(method, fate, message)
        self.carried.append(call)
        # A caller that gives up does not take back what is on its way.
        forward = partial(self._deliver_once, path, request, _sent_with(context), call)
        answer = await asyncio.shield(self._in_background(self._deliver(forward, fate)))
        if fate.again_after is not None:
            self._in_background(_later(fate.again_after, forward))
        if not fate.answer or answer is None:
            if fate.silent:
                await asyncio.Event().wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the proxy lost it")
        if isinstance(answer, grpc.aio.AioRpcError):
            await context.abort(answer.code(), answer.details() or "", tuple(answer.trailing_metadata() or ()))
        return answer

    async def _deliver(self, forward: Callable[[], Awaitable[Any]], fate: Fate) -> Any:
        """What the caller is to hear; None if it was never delivered."""
        await asyncio.sleep(fate.before)
        if fate.held is not None:
            await fate.held.wait()
        answer: Any = None
        for _ in range(fate.deliveries):
            answer = await forward()
        await asyncio.sleep(fate.after)
        return answer

    async def _deliver_once(self, path: str, request: bytes, sent: Sequence[tuple[str, Any]], call: Carried) -> Any:
        try:
            answer = await self._channel.unary_unary(path)(request, timeout=DELIVERY, metadata=sent)
        except grpc.aio.AioRpcError as error:
            call.answers.append(error.code())
            return error
        call.answers.append(MESSAGES[call.method][1].FromString(answer))
        return answer

    def _in_background(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


def _sent_with(context: Any) -> Sequence[tuple[str, Any]]:
    """To be read while the call lasts: then its memory is another's."""
    return [(key, value) for key, value in context.invocation_metadata() or () if key != "user-agent"]


async def _later(wait: float, forward: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(wait)
    await forward()


class _Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Any method, its bytes as they are."""

    def __init__(self, carry: Callable[[str, bytes, Any], Any]) -> None:
        self._carry = carry

    def service(self, details: Any) -> Any:
        async def behave(request: bytes, context: Any) -> bytes:
            carried: bytes = await self._carry(details.method, request, context)
            return carried

        return grpc.unary_unary_rpc_method_handler(behave)
