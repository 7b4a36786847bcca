"""One HTTP request and its response: connected to an address that was checked, bounded in size, headers and time."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import httpcore
import httpx

from valkyr.module import PermanentError
from valkyr.modules.http_rules import HttpRules
from valkyr.modules.tls_trust import trust

_PIECE = 65536

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` are lower case and in order; `body` is decompressed."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def exchange(method: str, url: httpx.URL, headers: Headers, body: bytes | None, *, rules: HttpRules) -> Response:
    """Sends one request; follows nothing. Connections are not kept: the next one is checked anew.

    OSError if no connection comes about or it breaks (TimeoutError by the system's own bounds), PermanentError if an
    address or the size of the answer is refused. Bound it in time from outside.
    """
    pool = httpcore.AsyncConnectionPool(
        ssl_context=trust(rules.ca_file), network_backend=_Checked(rules), max_connections=1, retries=0
    )
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    try:
        async with pool, pool.stream(method, target, headers=_with_host(headers, url), content=body) as answer:
            received = _decoded(answer.headers, rules)
            return Response(answer.status, received, await _read_body(answer, received, rules))
    except httpcore.TimeoutException as error:  # the system's own bounds: ours is around this
        raise TimeoutError(f"{url.host}: the connection timed out") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        cause = error.__cause__ or error.__context__ or error
        raise ConnectionError(f"{url.host}: {cause or type(error).__name__}") from error


class _Checked(httpcore.AsyncNetworkBackend):
    """Resolves, checks every address, and connects to a checked one: nothing is looked up a second time.

    TLS and the Host header go on using the name.
    """

    def __init__(self, rules: HttpRules) -> None:
        self._rules = rules
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._rules.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        last: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last


def _with_host(headers: Headers, url: httpx.URL) -> list[tuple[bytes, bytes]]:
    return [(b"Host", url.netloc), *((name.encode("ascii"), value.encode("utf-8")) for name, value in headers)]


def _decoded(headers: Sequence[tuple[bytes, bytes]], rules: HttpRules) -> Headers:
    size = sum(len(name) + len(value) for name, value in headers)
    if size > rules.max_header_bytes:
        raise PermanentError(f"the response has {size} bytes of headers, and {rules.max_header_bytes} are allowed")
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


async def _read_body(answer: httpcore.Response, headers: Headers, rules: HttpRules) -> bytes:
    encodings = [value.strip().lower() for name, value in headers if name == "content-encoding"]
    chunks = answer.aiter_stream()
    if encodings in ([], ["identity"], [""]):
        return await _collect(chunks, rules.max_response_bytes)
    if encodings not in (["gzip"], ["x-gzip"], ["deflate"]):
        named = ", ".join(encodings)[:64]
        raise PermanentError(f"the response is encoded as {named!r}; gzip and deflate are understood")
    return await _collect(_inflated(chunks, rules.max_response_bytes), rules.max_response_bytes)


async def _collect(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise PermanentError(f"the response is larger than the {limit} bytes that are allowed")
    return bytes(body)


async def _inflated(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Decompresses piece by piece, so that a bomb is noticed before it has unfolded. Bounds the packed bytes too."""
    inflater = zlib.decompressobj(wbits=47)
    packed = 0
    async for chunk in chunks:
        packed += len(chunk)
        if packed > limit:
            raise PermanentError(f"the response is larger than the {limit} bytes that are allowed")
        data = chunk
        while data:
            try:
                yield inflater.decompress(data, _PIECE)
            except zlib.error as error:
                raise ConnectionError(f"the response is not compressed as it says: {error}") from None
            data = inflater.unconsumed_tail
            if inflater.eof and inflater.unused_data:  # gzip may have several members
                data, inflater = inflater.unused_data, zlib.decompressobj(wbits=47)
    if packed and not inflater.eof:
        raise ConnectionError("the response ended in the middle of its compressed data")
