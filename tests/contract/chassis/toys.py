"""A service with all four kinds of RPC, whose handlers do what the test gives them to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

SERVICE = "valkyr.test.v1.ToyService"

Deed = Callable[[str, Any], Awaitable[str]]


class ToyServicer:
    """`deed(text, context)` answers the text, or raises."""

    def __init__(self, deed: Deed) -> None:
        self.deed = deed

    async def unary(self, request: StringValue, context: Any) -> StringValue:
        return StringValue(value=await self.deed(request.value, context))

    async def generated(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        yield StringValue(value=await self.deed(request.value, context))

    async def written(self, request: StringValue, context: Any) -> None:
        await context.write(StringValue(value=await self.deed(request.value, context)))

    async def gathered(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        return StringValue(value=await self.deed("".join([request.value async for request in requests]), context))

    async def echoed(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=await self.deed(request.value, context))


def add_toy(servicer: ToyServicer, server: Any) -> None:
    """As a generated `add_..._to_server`."""
    kinds = {
        "Unary": (grpc.unary_unary_rpc_method_handler, servicer.unary),
        "Generated": (grpc.unary_stream_rpc_method_handler, servicer.generated),
        "Written": (grpc.unary_stream_rpc_method_handler, servicer.written),
        "Gathered": (grpc.stream_unary_rpc_method_handler, servicer.gathered),
        "Echoed": (grpc.stream_stream_rpc_method_handler, servicer.echoed),
    }
    handlers = {
        name: make(
            behavior, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
        )
        for name, (make, behavior) in kinds.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class ToyStub:
    """Calls of every kind by one name each: give a text, get the texts."""

    def __init__(self, channel: Any) -> None:
        codec = {"request_serializer": StringValue.SerializeToString, "response_deserializer": StringValue.FromString}
        self.raw_unary = channel.unary_unary(f"/{SERVICE}/Unary")
        self.unary_method = channel.unary_unary(f"/{SERVICE}/Unary", **codec)
        self.unknown_method = channel.unary_unary(f"/{SERVICE}/NoSuch", **codec)
        self.generated_method = channel.unary_stream(f"/{SERVICE}/Generated", **codec)
        self.written_method = channel.unary_stream(f"/{SERVICE}/Written", **codec)
        self.gathered_method = channel.stream_unary(f"/{SERVICE}/Gathered", **codec)
        self.echoed_method = channel.stream_stream(f"/{SERVICE}/Echoed", **codec)

    async def unary(self, text: str, **options: Any) -> list[str]:
        return [(await self.unary_method(StringValue(value=text), **options)).value]

    async def generated(self, text: str, **options: Any) -> list[str]:
        return [answer.value async for answer in self.generated_method(StringValue(value=text), **options)]

    async def written(self, text: str, **options: Any) -> list[str]:
        return [answer.value async for answer in self.written_method(StringValue(value=text), **options)]

    async def gathered(self, text: str, **options: Any) -> list[str]:
        return [(await self.gathered_method(_each(text), **options)).value]

    async def echoed(self, text: str, **options: Any) -> list[str]:
        return [answer.value async for answer in self.echoed_method(_each(text), **options)]


async def _each(text: str) -> AsyncIterator[StringValue]:
    yield StringValue(value=text)
