"""What the manifests have to agree with: each service's command, port, health name, settings and neighbours."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from services.chassis.settings import DEFAULT_PORT_BASE, PORT_OFFSETS, RoomSettings


@dataclass(frozen=True, slots=True)
class Room:
    """`calls` are the services that it calls (DESIGN: who may know whom)."""

    name: str
    proto: str
    service: str
    calls: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The image's, and the name of its schema."""
        return self.name.replace("-", "_")

    @property
    def port(self) -> int:
        return DEFAULT_PORT_BASE + PORT_OFFSETS[self.name]

    @property
    def health_name(self) -> str:
        """The full name of its service, from the descriptor. KeyError if the protos have no such service."""
        module = importlib.import_module(f"valkyr.api.{self.proto}.v1.{self.proto}_pb2")
        name: str = module.DESCRIPTOR.services_by_name[self.service].full_name
        return name

    @property
    def settings_model(self) -> type[RoomSettings]:
        """The model with which the service starts."""
        module = importlib.import_module(f"services.{self.command}.settings")
        return next(
            model
            for _, model in inspect.getmembers(module, inspect.isclass)
            if issubclass(model, RoomSettings) and model.section == self.name
        )


ROOMS: Mapping[str, Room] = {
    room.name: room
    for room in (
        Room("graph-store", "graph", "GraphStoreService"),
        Room("executor", "executor", "ExecutorService", ("graph-store", "breaker", "dlq")),
        Room("breaker", "breaker", "BreakerService"),
        Room("dlq", "dlq", "DeadLetterQueueService", ("executor", "breaker")),
    )
}
