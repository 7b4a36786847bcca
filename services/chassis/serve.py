"""The gRPC server of a service: limits, health, reflection, one port of its own, and an end by draining."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.chassis.health import Health
from services.chassis.interceptors import ErrorInterceptor
from services.chassis.reflected import ReflectedPool
from services.chassis.settings import ServerSettings, SettingsError
from valkyr.rpc.channel import KEEPALIVE_TIMEOUT, MIN_PING_INTERVAL, message_options
from valkyr.telemetry import get_logger

HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVER_KEEPALIVE_TIME = timedelta(seconds=60)
CONNECTION_GRACE = timedelta(seconds=60)
GC_THRESHOLDS = (20_000, 20, 20)
"""Of the three generations. At Python's own, 700 objects for the youngest, an executor under load spent a twelfth of
its time on collections that found nothing."""
_IDENTITY_ONLY = 1

Servicer = tuple[str, Callable[[Any, Any], None], Any]
"""Full service name, `add_XServicer_to_server`, the servicer."""
_log = get_logger(__name__)


class PortInUse(SettingsError):
    """Somebody else listens there."""


class Server:
    """A server that can be started and stopped; `serve` adds signals to it. Port 0 takes any free one."""

    def __init__(
        self, settings: ServerSettings, servicers: Sequence[Servicer], *, health: Health | None = None
    ) -> None:
        self._settings = settings
        self._servicers = servicers
        self.health = health or Health()
        self.port = 0
        self._server: Any = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """`host:port`, once started."""
        host = self._settings.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def start(self) -> None:
        """PortInUse if the port is taken; else answers calls on return."""
        self._server = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            options=_options(self._settings),
            maximum_concurrent_rpcs=self._settings.max_concurrent_rpcs,
        )
        names = [name for name, _, _ in self._servicers]
        door = _OneDoor(self._server)
        for _, add, servicer in self._servicers:
            add(servicer, door)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, door)
        if self._settings.reflection:
            shown = [*names, HEALTH_SERVICE, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(shown, self._server, ReflectedPool(shown))
        self._bind()
        await self._server.start()
        await self.health.start([*names, HEALTH_SERVICE])
        self._telling = asyncio.create_task(self.health.keep_telling(), name="health")
        _log.info("server.started", address=self.address, services=names, insecure=not self._settings.is_loopback)

    async def drain(self) -> None:
        """NOT_SERVING at once; calls are still taken."""
        await self.health.drain()

    async def stop(self, grace: timedelta | None = None) -> None:
        """NOT_SERVING, then refuses new calls and waits up to `grace` for those in flight; then cancels them."""
        await self.drain()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            self._telling = None
        if self._server is not None:
            await self._server.stop((self._settings.drain_grace if grace is None else grace).total_seconds())
            _log.info("server.stopped", address=self.address)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop(timedelta())

    def _bind(self) -> None:
        self.port = self._settings.port
        try:
            self.port = self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise PortInUse(
                f"server.port: {self.address} cannot be listened on: it is in use, or not an address of this machine;"
                " stop what listens there, or set VALKYR_PORT_BASE (server.port) to other ports"
            ) from error


class _OneDoor:
    """Adds methods to a server so that all calls come in by one request. A registered method has one of its own, and
    gRPC's loop looks at those of all methods for every call: a twentieth of a millisecond, with 25 methods."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, _service_name: str, _handlers: Any) -> None:
        """Nothing: what is generated adds every method as a generic one, too."""


async def serve(
    *,
    settings: ServerSettings,
    servicers: Sequence[Servicer],
    health: Health | None = None,
    on_stop: Iterable[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Serves until SIGTERM or SIGINT, then drains: NOT_SERVING, `settings.drain_delay`, `on_stop` in order (a runner's
    drain, say) while calls are still answered, then no new calls and `settings.drain_grace` for those in flight.
    A second signal ends the waiting."""
    server = Server(settings, servicers, health=health)
    await server.start()
    _log.warning(
        "server.is_open",
        address=server.address,
        note="calls are neither encrypted nor authenticated" + ("" if settings.is_loopback else "; --insecure is set"),
    )
    _collect_seldom()
    first, second = _signals()
    await first.wait()
    _log.info("server.draining", address=server.address)
    await server.drain()
    draining = asyncio.create_task(_drain(settings, on_stop), name="drain")
    impatient = asyncio.create_task(second.wait(), name="second-signal")
    await asyncio.wait([draining, impatient], return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not draining.done():
        draining.cancel()
        await asyncio.wait([draining])
    await server.stop(timedelta() if second.is_set() else settings.drain_grace)
    if not draining.cancelled():
        draining.result()


def _collect_seldom() -> None:
    """What was made until now lives as long as the process: no collection of garbage looks at it again. What is made
    from now on is mostly gone before a collection would find that it is needed no more, and few of it are cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _drain(settings: ServerSettings, on_stop: Iterable[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.sleep(settings.drain_delay.total_seconds())
    for stop in on_stop:
        await stop()


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first and by the second signal."""
    first, second = asyncio.Event(), asyncio.Event()

    def received() -> None:
        (second if first.is_set() else first).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
    return first, second


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    options = [
        *message_options(),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Compressed messages are refused, so that none can inflate beyond the limit.
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(MIN_PING_INTERVAL)),
        ("grpc.keepalive_time_ms", _milliseconds(SERVER_KEEPALIVE_TIME)),
        ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_TIMEOUT)),
    ]
    if settings.max_connection_age is not None:
        options += [
            ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(CONNECTION_GRACE)),
        ]
    return options


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
