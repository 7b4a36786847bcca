"""Hands what runners say of their modules on to the graph store's catalogue, so that configs are checked when they are
saved. A runner is let in without it: what could not be handed on is tried again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from valkyr.errors import Conflict, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable, ValkyrError
from valkyr.telemetry import get_logger

AGAIN = timedelta(seconds=10)
MOST_WAITING = 5_000
"""Modules that are kept while the graph store is away; more leave out the oldest."""

_AWAY = (Unavailable, DeadlineExceeded)
_TRANSIENT = (*_AWAY, Overloaded, Conflict)

Specs = Mapping[tuple[str, str], Any]
"""By namespace and class."""

log = get_logger(__name__)


class Registrar(Protocol):
    """The graph store, as far as its catalogue goes."""

    async def register_modules(self, namespace: str, modules: Sequence[Any]) -> None: ...


class Catalogue:
    """What waits to be handed on stands in memory only: a runner registers again when its executor was away.
    `built_in` are in the catalogue already, and cannot be replaced.

    A spec waits from before it is sent until it has got through, so that none is lost on the way; and what was said of
    its class since has taken its place by the time that an older call turns out to have failed."""

    def __init__(self, registrar: Registrar, *, built_in: Collection[str], most_waiting: int = MOST_WAITING) -> None:
        self._registrar = registrar
        self._built_in = built_in
        self._most_waiting = most_waiting
        self._waiting: dict[tuple[str, str], Any] = {}

    async def hand_on(self, namespace: str, modules: Sequence[Any]) -> None:
        """InvalidRequest for specs that the catalogue refuses."""
        own = {(namespace, module.class_name): module for module in modules if module.class_name not in self._built_in}
        if not own:
            return
        self._keep(own)
        try:
            await self._send(namespace, own)
        except InvalidRequest:
            self._forget(own)
            raise
        except ValkyrError as error:
            _say_kept(namespace, own, error)

    async def step(self) -> timedelta | None:
        """For a loop: what was kept is handed on. What is refused only now, its runner having been let in, is left out
        by itself."""
        for namespace in {namespace for namespace, _ in self._waiting}:
            modules = {key: spec for key, spec in self._waiting.items() if key[0] == namespace}
            if not modules:
                continue  # a runner has handed the same on meanwhile
            try:
                await self._send(namespace, modules)
            except _AWAY as error:
                _say_kept(namespace, modules, error)
            except ValkyrError:
                await self._send_one_by_one(namespace, modules)
        return AGAIN if self._waiting else None

    async def _send_one_by_one(self, namespace: str, modules: Specs) -> None:
        for key, spec in modules.items():
            if self._waiting.get(key) is not spec:
                continue
            try:
                await self._send(namespace, {key: spec})
            except _TRANSIENT as error:
                _say_kept(namespace, {key: spec}, error)
                return
            except ValkyrError as refusal:
                self._forget({key: spec})
                log.warning("catalogue.refused", namespace=namespace, class_name=key[1], error=str(refusal))

    async def _send(self, namespace: str, modules: Specs) -> None:
        await self._registrar.register_modules(namespace, list(modules.values()))
        self._forget(modules)

    def _keep(self, modules: Specs) -> None:
        kept = {key: spec for key, spec in self._waiting.items() if key not in modules} | dict(modules)
        left_out = len(kept) - self._most_waiting
        if left_out > 0:
            kept = dict(list(kept.items())[left_out:])
            log.error("catalogue.left_out", modules=left_out, waiting=len(kept))
        self._waiting = kept

    def _forget(self, modules: Specs) -> None:
        """Unless another has taken its place."""
        for key, spec in modules.items():
            if self._waiting.get(key) is spec:
                del self._waiting[key]


def _say_kept(namespace: str, modules: Specs, error: ValkyrError) -> None:
    log.warning("catalogue.away", namespace=namespace, modules=len(modules), error=str(error))
