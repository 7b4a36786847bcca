"""GrpcCallModule: one unary gRPC call, request and response as JSON; the server says by reflection how they are made.

Here is what a graph says of it. The call is loaded with the first one (grpc_call.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from valkyr.module import Context, ModuleSpec, spec_of
from valkyr.modules.delay import Duration

_KEY = re.compile(r"[0-9a-z_.-]{1,128}")
_VALUE = re.compile(r"[\x20-\x7e]*")
# Said by the call itself, or by the connection.
_RESERVED_KEYS = frozenset({"content-type", "host", "te", "user-agent", "connection"})
_ADDRESS = re.compile(r"(?P<host>\[[^\]\[]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")
_NAME = "[A-Za-z_][A-Za-z0-9_]*"


def split_address(text: str) -> tuple[str, int]:
    """Host, IPv6 without its brackets, and port. ValueError if it is not `host:port`."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{text[:64]!r} is not host:port, such as api.example.com:443 or [2001:db8::1]:443")
    return found["host"].strip("[]"), int(found["port"])


class GrpcCallConfig(BaseModel):
    """`method` is `package.Service/Method`. `tls: false` only for servers that the operator has opened by name."""

    model_config = ConfigDict(extra="forbid")

    address: Annotated[str, StringConstraints(min_length=3, max_length=300)]
    method: Annotated[str, StringConstraints(pattern=rf"^/?{_NAME}(\.{_NAME})*/{_NAME}$", max_length=500)]
    request: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict, max_length=64)
    tls: bool = True
    timeout: Duration | None = None

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        split_address(address)
        return address

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, metadata: dict[str, str]) -> dict[str, str]:
        for key, value in metadata.items():
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key[:64]!r} is no key of metadata: lower case letters, digits, '-', '_' and '.'")
            if key in _RESERVED_KEYS or key.startswith("grpc-") or key.endswith("-bin"):
                raise ValueError(f"the metadata {key} cannot be set")
            if not _VALUE.fullmatch(value) or len(value) > 8192:
                raise ValueError(f"the value of {key} is not printable ASCII of at most 8192 characters")
        return metadata

    @property
    def path(self) -> tuple[str, str]:
        """The service's full name and the method's."""
        service, _, method = self.method.removeprefix("/").partition("/")
        return service, method


async def grpc_call(context: Context, config: GrpcCallConfig) -> dict[str, Any]:
    """Outputs: response (protobuf's JSON, with fields that have their default), metadata (what the server sent before
    and after it)."""
    from valkyr.modules.grpc_call import call

    return await call(context, config)


def target_of(config: Mapping[str, Any]) -> str | None:
    """What a breaker guards, from a resolved config: `grpc:<host>:<port>`; None if there is no address to be read."""
    try:
        host, port = split_address(str(config.get("address", "")))
    except ValueError:
        return None
    host = host.lower().removesuffix(".")
    return f"grpc:[{host}]:{port}" if ":" in host else f"grpc:{host}:{port}"


GRPC_CALL: ModuleSpec = spec_of("GrpcCallModule", grpc_call, target_of=target_of)
