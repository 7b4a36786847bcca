"""What a server says of one of its methods, by reflection: the descriptors of all that its messages are made of.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from valkyr.module import PermanentError

MAX_FILES = 512

# The newer name first; the messages of both are the same on the wire.
_METHODS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
# INTERNAL is what gRPC itself says where the server's UNIMPLEMENTED comes in while the question is being written.
_UNKNOWN_HERE = ("UNIMPLEMENTED", "INTERNAL")
_WELL_KNOWN = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2,
        api_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        wrappers_pb2,
    )
}


async def find_method(
    channel: grpc.aio.Channel, service: str, method: str, *, metadata: Any, timeout: float, max_bytes: int
) -> tuple[MethodDescriptor, DescriptorPool]:
    """The method, and a pool of its own with what it needs. PermanentError if the server does not know it, or says
    what is no description; grpc.RpcError of the last call."""
    for path in _METHODS:
        try:
            files = await _files_of(channel, path, service, metadata=metadata, timeout=timeout, max_bytes=max_bytes)
        except grpc.RpcError as error:
            if error.code().name not in _UNKNOWN_HERE or path == _METHODS[-1]:
                raise
            continue
        return _method_in(_pool_of(files), service, method)
    raise AssertionError("the last path raises or returns")


async def _files_of(
    channel: grpc.aio.Channel, path: str, service: str, *, metadata: Any, timeout: float, max_bytes: int
) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """The file of the service and all that it imports, by name."""
    stream = channel.stream_stream(
        path,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(metadata=metadata, timeout=timeout)
    try:
        return await _asked(stream, service, max_bytes)
    finally:
        stream.cancel()


async def _asked(stream: Any, service: str, max_bytes: int) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    wanted = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)]
    asked: set[str] = set()
    told = 0
    while wanted:
        request = wanted.pop()
        fresh = [_parsed(raw) for raw in _told(await _answer(stream, request, service), request, service)]
        told += sum(file.ByteSize() for file in fresh)
        files.update((file.name, file) for file in fresh)
        if told > max_bytes or len(files) > MAX_FILES:
            raise PermanentError(f"what {service} is made of is more than {max_bytes} bytes or {MAX_FILES} files")
        for name in {name for file in fresh for name in file.dependency} - files.keys() - asked:
            asked.add(name)
            _want(name, files, wanted)
    return files


async def _answer(stream: Any, request: Any, service: str) -> Any:
    answer: Any = grpc.aio.EOF
    with suppress(asyncio.InvalidStateError):  # what writing to an ended stream raises
        await stream.write(request)
        answer = await stream.read()
    if answer is grpc.aio.EOF:
        raise PermanentError(f"the server's reflection ended before it had told of {service}")
    return answer


def _want(name: str, files: dict[str, descriptor_pb2.FileDescriptorProto], wanted: list[Any]) -> None:
    """Protobuf's own files are the same everywhere, import each other only, and not every server tells them."""
    if name in _WELL_KNOWN:
        file = files[name] = _parsed(_WELL_KNOWN[name])
        for imported in file.dependency:
            if imported not in files:
                _want(imported, files, wanted)
    else:
        wanted.append(reflection_pb2.ServerReflectionRequest(file_by_filename=name))


def _told(answer: Any, request: Any, service: str) -> list[bytes]:
    if answer.HasField("file_descriptor_response"):
        return list(answer.file_descriptor_response.file_descriptor_proto)
    what = request.file_by_filename or service
    if answer.HasField("error_response") and answer.error_response.error_code != 5:
        raise ConnectionError(f"the server's reflection failed at {what}: {answer.error_response.error_message[:200]}")
    raise PermanentError(f"the server has no {what}")


def _parsed(raw: bytes) -> descriptor_pb2.FileDescriptorProto:
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(raw)
    except DecodeError:
        raise PermanentError("the server's reflection tells what is no file of protobuf") from None


def _pool_of(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    """Each file after those it imports; without recursion, as the depth is the server's to say."""
    pool = DescriptorPool()
    added: set[str] = set()
    left = dict(files)
    while left:
        ready = [name for name, file in left.items() if all(needed in added for needed in file.dependency)]
        if not ready:
            raise PermanentError(f"the server's reflection does not tell what {next(iter(left))} imports")
        for name in ready:
            try:
                pool.AddSerializedFile(left.pop(name).SerializeToString())
            except TypeError as error:
                raise PermanentError(f"the server's reflection tells a wrong {name[:200]}: {error}") from None
            added.add(name)
    return pool


def _method_in(pool: DescriptorPool, service: str, method: str) -> tuple[MethodDescriptor, DescriptorPool]:
    try:
        found = pool.FindServiceByName(service)
    except KeyError:
        raise PermanentError(f"the server has no {service}") from None
    if method not in found.methods_by_name:
        names = ", ".join(sorted(found.methods_by_name))[:300] or "none"
        raise PermanentError(f"{service} has no method {method}; it has {names}")
    return found.methods_by_name[method], pool
