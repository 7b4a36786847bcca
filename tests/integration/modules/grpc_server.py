"""A real gRPC server with reflection, whose types this process does not know otherwise."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_tools import protoc

DATA = Path(__file__).parents[2] / "data"
SERVICE = "shop.v1.Orders"

Answer = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


@cache
def shop() -> DescriptorPool:
    """The types of shop.proto, in a pool of their own."""
    with tempfile.TemporaryDirectory() as folder:
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [
            "protoc",
            f"-I{DATA}",
            f"-I{well_known}",
            "--include_imports",
            f"--descriptor_set_out={folder}/set",
        ]
        assert protoc.main([*arguments, "shop.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(folder, "set").read_bytes())
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def message(name: str) -> Any:
    """A class of shop.proto."""
    return GetMessageClass(shop().FindMessageTypeByName(f"shop.v1.{name}"))


@dataclass
class OrderServer:
    """`answer` makes the answer of Place. Use it as `async with`; its name is target.test, as the certificate says."""

    answer: Answer | None = None
    tls: bool = False
    reflection: str = "v1alpha"
    compression: grpc.Compression = grpc.Compression.NoCompression
    seen: list[tuple[Any, dict[str, Any], float | None]] = field(default_factory=list)
    calls: int = 0

    async def __aenter__(self) -> OrderServer:
        self._server = grpc.aio.server(compression=self.compression)
        self._server.add_generic_rpc_handlers((self._orders(),))
        if self.reflection:
            self._server.add_generic_rpc_handlers((self._reflecting(),))
        if self.tls:
            files = [(DATA / "tls" / name).read_bytes() for name in ("key.pem", "certificate.pem")]
            self.port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(files[0], files[1])]))
        else:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._server.stop(None)

    def _orders(self) -> grpc.GenericRpcHandler:
        place = grpc.unary_unary_rpc_method_handler(
            self._place, message("PlaceRequest").FromString, lambda answer: answer.SerializeToString()
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Place": place})

    async def _place(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        self.calls += 1
        self.seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        if self.answer is not None:
            return await self.answer(request, context)
        return message("Order")(order_id=7, state=1, total={"currency": "EUR", "units": 2**60}, request=request)

    def _reflecting(self) -> grpc.GenericRpcHandler:
        servicer = reflection.aio.ReflectionServicer([SERVICE], pool=shop())
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            ServerReflectionRequest.FromString,
            lambda answer: answer.SerializeToString(),
        )
        service = f"grpc.reflection.{self.reflection}.ServerReflection"
        return grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler})


async def never(_request: Any, _context: grpc.aio.ServicerContext) -> Any:
    await asyncio.Event().wait()
