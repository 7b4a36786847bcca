"""Which services there are to start, in the order of starting; stopping goes the other way."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_PORT_BASE = 50051
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Room:
    """`offset` from the port base gives its port; `service` is the name its health is asked under."""

    name: str
    module: str
    offset: int
    service: str

    def port(self, port_base: int) -> int:
        return port_base + self.offset

    def address(self, port_base: int) -> str:
        return f"{HOST}:{self.port(port_base)}"


ROOMS = (
    Room("graph_store", "services.graph_store", 0, "valkyr.api.graph.v1.GraphStoreService"),
    Room("breaker", "services.breaker", 2, "valkyr.api.breaker.v1.BreakerService"),
    Room("executor", "services.executor", 1, "valkyr.api.executor.v1.ExecutorService"),
    Room("dlq", "services.dlq", 3, "valkyr.api.dlq.v1.DeadLetterQueueService"),
)
