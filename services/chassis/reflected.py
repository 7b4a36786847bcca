"""What server reflection shows: the contracts with their JSON names, so that grpcurl prints lowerCamelCase; methods by
name; and the details of errors, so that it can print those. Python's own descriptors give none of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2


class ReflectedPool:
    """As much of a DescriptorPool as the reflection servicer asks for."""

    def __init__(self, service_names: Iterable[str]) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        self._known: set[str] = set()
        self._add(error_details_pb2.DESCRIPTOR)
        for name in service_names:
            # One without a contract, made of generic handlers, is listed and cannot be described.
            with contextlib.suppress(KeyError):
                self._add(descriptor_pool.Default().FindFileContainingSymbol(name))

    def FindFileByName(self, name: str) -> Any:
        """KeyError if there is none."""
        return self._pool.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """Of a service, message, enum or method. KeyError if there is none."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            return self._pool.FindMethodByName(f"{service}.{method}").containing_service.file

    def FindMessageTypeByName(self, name: str) -> Any:
        """KeyError if there is none."""
        return self._pool.FindMessageTypeByName(name)

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:
        """KeyError if there is none."""
        return self._pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:
        return self._pool.FindAllExtensions(message)

    def _add(self, file: Any) -> None:
        """With what it imports, which has to be there first."""
        if file.name in self._known:
            return
        self._known.add(file.name)
        for imported in file.dependencies:
            self._add(imported)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        for message in proto.message_type:
            for field in _fields(message):
                field.json_name = json_name(field.name)
        self._pool.Add(proto)


def json_name(name: str) -> str:
    """The lowerCamelCase name of a field, as protoc makes it."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _fields(message: Any) -> Iterator[Any]:
    yield from message.field
    for nested in message.nested_type:
        yield from _fields(nested)
