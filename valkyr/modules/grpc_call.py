"""The call of GrpcCallModule.

Failures, by the status: UNAVAILABLE, ABORTED, CANCELLED, INTERNAL and UNKNOWN are TRANSIENT; RESOURCE_EXHAUSTED is
RATE_LIMITED with the delay of its RetryInfo; DEADLINE_EXCEEDED is TIMEOUT; every other one, a message that is too large
and every refusal here are PERMANENT. Connections are not kept: the next one is checked anew.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from valkyr.module import Context, PermanentError, RetryLater
from valkyr.modules.call_trace import ClientSpan, call_span
from valkyr.modules.grpc_module import GrpcCallConfig, split_address
from valkyr.modules.grpc_rules import GrpcRules
from valkyr.modules.grpc_schema import find_method
from valkyr.modules.reach import check_host

_TRANSIENT = frozenset({"UNAVAILABLE", "ABORTED", "CANCELLED", "INTERNAL", "UNKNOWN"})
# What either end says of a limit on sizes, by the same code as of a limit on rates.
_TOO_LARGE = ("message larger than max", "metadata size exceeds")
_MAX_RETRY_AFTER = timedelta(days=1)
_MAX_SAID = 500
_IDENTITY_ONLY = 1
_DEPTH = 64
_DEFAULT_RULES = GrpcRules()


async def call(context: Context, config: GrpcCallConfig) -> dict[str, Any]:
    """Its outputs. Raises what fails the attempt, as above."""
    rules: GrpcRules = context.settings.get("grpc", _DEFAULT_RULES)
    host, port = split_address(config.address)
    check_host(host)
    if not config.tls and not rules.is_named(host, port):
        advice = f"leave tls on, or have the operator add {host!r} to allow-hosts"
        raise PermanentError(f"a call to {config.address} without TLS is refused; {advice}")
    timeout = _timeout(context, config, rules)
    service, method = config.path
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "server.address": host,
        "server.port": port,
    }
    try:
        async with asyncio.timeout(timeout) as timer:
            with call_span(f"{service}/{method}", attributes) as span, _failures(config, span):
                async with await _open(host, port, config, rules) as channel:
                    return await _called(channel, context, config, rules, span, ends=_now() + timeout)
    except TimeoutError:
        if not timer.expired():
            raise
        raise TimeoutError(f"{config.address} did not answer within {timeout:g} s") from None


async def _called(
    channel: grpc.aio.Channel,
    context: Context,
    config: GrpcCallConfig,
    rules: GrpcRules,
    span: ClientSpan,
    *,
    ends: float,
) -> dict[str, Any]:
    metadata = _metadata(context, config, span)
    service, name = config.path
    asked = tuple(item for item in metadata if item[0] != "idempotency-key")
    method, pool = await find_method(
        channel, service, name, metadata=asked, timeout=ends - _now(), max_bytes=rules.max_schema_bytes
    )
    if method.client_streaming or method.server_streaming:
        raise PermanentError(f"{config.method} is a streaming method, and only unary ones are called")
    request = _request(config, method, pool)
    invoked = channel.unary_unary(f"/{service}/{name}")(
        request.SerializeToString(), metadata=metadata, timeout=ends - _now()
    )
    raw = await invoked
    span.answered("rpc.grpc.status_code", 0, failed=False)
    sent = [*await invoked.initial_metadata(), *await invoked.trailing_metadata()]
    return {"response": _response(raw, method, pool), "metadata": _shown(sent)}


async def _open(host: str, port: int, config: GrpcCallConfig, rules: GrpcRules) -> grpc.aio.Channel:
    """To addresses that were checked; TLS and the authority go on using the name."""
    try:
        addresses = await rules.addresses(host, port)
    except OSError as error:
        raise ConnectionError(f"{host} cannot be resolved: {error}") from error
    if not addresses:
        raise ConnectionError(f"{host} has no address")
    is_v6 = ":" in addresses[0]
    same = [f"[{text}]:{port}" if is_v6 else f"{text}:{port}" for text in addresses if (":" in text) is is_v6]
    target = f"{'ipv6' if is_v6 else 'ipv4'}:{','.join(same)}"
    options = [
        ("grpc.default_authority", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.primary_user_agent", "valkyr"),
        ("grpc.max_receive_message_length", rules.max_message_bytes),
        ("grpc.max_send_message_length", rules.max_message_bytes),
        ("grpc.max_metadata_size", rules.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", rules.max_metadata_bytes),
        # Compressed messages are refused, so that none can inflate beyond the limit.
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
    ]
    if not config.tls:
        return grpc.aio.insecure_channel(target, options=options)
    options.append(("grpc.ssl_target_name_override", host.removesuffix(".")))
    return grpc.aio.secure_channel(target, await asyncio.to_thread(_trust, rules.ca_file), options=options)


@cache
def _trust(ca_file: str | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(Path(ca_file or certifi.where()).read_bytes())


def _timeout(context: Context, config: GrpcCallConfig, rules: GrpcRules) -> float:
    """Seconds: the least of what the graph, the operator and the attempt have left. The server is told."""
    seconds = min(config.timeout or rules.default_timeout, rules.max_timeout).total_seconds()
    if context.deadline is None:
        return seconds
    return max(0.001, min(seconds, (context.deadline - datetime.now(UTC)).total_seconds()))


def _metadata(context: Context, config: GrpcCallConfig, span: ClientSpan) -> tuple[tuple[str, str], ...]:
    defaults = {"idempotency-key": context.idempotency_key, "traceparent": span.traceparent}
    return (
        *config.metadata.items(),
        *((key, value) for key, value in defaults.items() if value and key not in config.metadata),
    )


def _request(config: GrpcCallConfig, method: MethodDescriptor, pool: DescriptorPool) -> Message:
    message: Message = GetMessageClass(method.input_type)()
    try:
        json_format.ParseDict(config.request, message, descriptor_pool=pool, max_recursion_depth=_DEPTH)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise PermanentError(f"the request is no {method.input_type.full_name}: {_cut(str(error))}") from None
    return message


def _response(raw: bytes, method: MethodDescriptor, pool: DescriptorPool) -> Any:
    try:
        message = GetMessageClass(method.output_type).FromString(raw)
        return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=pool)
    except (DecodeError, json_format.Error, ValueError, TypeError, RecursionError) as error:
        name = method.output_type.full_name
        raise PermanentError(f"the response cannot be read as {name}: {_cut(str(error))}") from None


@contextmanager
def _failures(config: GrpcCallConfig, span: ClientSpan) -> Iterator[None]:
    """Within it, a failed RPC raises what fails the attempt."""
    try:
        yield
    except grpc.RpcError as error:
        number, code = error.code().value[0], error.code().name
        span.answered("rpc.grpc.status_code", number, failed=True)
        message = f"{config.address} answered {code} to {config.method}: {_cut(error.details() or '')}"
        if code == "DEADLINE_EXCEEDED":
            raise TimeoutError(message) from None
        if code == "RESOURCE_EXHAUSTED" and not any(words in message for words in _TOO_LARGE):
            raise RetryLater(message, after=_retry_after(error)) from None
        if code in _TRANSIENT:
            raise ConnectionError(message) from None
        raise PermanentError(message) from None


def _retry_after(error: grpc.RpcError) -> timedelta | None:
    """At most a day; None if the server does not say."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # details that say something else than the status itself
        return None
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            seconds = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
            return timedelta(seconds=min(max(seconds, 0), _MAX_RETRY_AFTER.total_seconds()))
    return None


def _shown(sent: list[tuple[str, Any]]) -> Mapping[str, str]:
    """Bytes in base64. A key that comes again is joined as headers are."""
    shown: dict[str, str] = {}
    for key, value in sent:
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
        shown[key] = f"{shown[key]}, {text}" if key in shown else text
    return shown


def _now() -> float:
    return asyncio.get_running_loop().time()


def _cut(text: str) -> str:
    """What a server said, as one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SAID else line[: _MAX_SAID - 3] + "..."
