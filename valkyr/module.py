"""What authors of modules see: @module, Context, Retry and the two exceptions to learn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from valkyr.graph.model import Retry
from valkyr.telemetry import attempt_traceparent, current_traceparent, get_logger

__all__ = ["Context", "ModuleSpec", "PermanentError", "Retry", "RetryLater", "module", "registered_modules"]


class PermanentError(Exception):
    """Trying again cannot help: the run fails for good at once."""


class RetryLater(Exception):
    """Not now: try again, after `after` if given (a rate limit's Retry-After, say)."""

    def __init__(self, message: str = "", *, after: timedelta | None = None) -> None:
        super().__init__(message or "asked to be tried again later")
        self.after = after


class Context:
    """One attempt of one run, as its module sees it.

    `deadline`, when the attempt is stopped, is aware UTC. `idempotency_key` is the same in every attempt; hand it to
    targets that can dedupe. `settings` is what the runner was configured with. A module may set `cost_tokens`.
    """

    __slots__ = (
        "_inputs",
        "_logger",
        "_traceparent",
        "attempt",
        "cancelled",
        "cost_tokens",
        "deadline",
        "execution_id",
        "idempotency_key",
        "node_id",
        "run_id",
        "settings",
    )

    def __init__(
        self,
        *,
        execution_id: str = "",
        run_id: str = "",
        node_id: str = "",
        attempt: int = 1,
        idempotency_key: str = "",
        inputs: Mapping[str, Any] | bytes = b"{}",
        deadline: datetime | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
        logger: Any = None,
        traceparent: str = "",
    ) -> None:
        """`traceparent`: what the attempt's own span stands below."""
        self.execution_id = execution_id
        self.run_id = run_id
        self.node_id = node_id
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.deadline = deadline
        self.settings = settings
        self.cost_tokens: float | None = None
        self.cancelled = False
        """True once the attempt is to stop: `async def` modules are cancelled, a `def` module looks here."""
        self._inputs = inputs
        self._logger = logger
        self._traceparent = traceparent

    @property
    def inputs(self) -> Mapping[str, Any]:
        """`{"trigger": ..., "nodes": {"<taken predecessor>": {"outputs": ...}}}`; decoded when first asked for."""
        if isinstance(self._inputs, bytes):
            self._inputs = orjson.loads(self._inputs) if self._inputs else {}
        return self._inputs

    @property
    def logger(self) -> Any:
        """A structlog logger whose lines carry the ids of the run and of its trace."""
        if self._logger is None:
            logger = get_logger("valkyr.module").bind(
                execution_id=self.execution_id, run_id=self.run_id, node_id=self.node_id, attempt=self.attempt
            )
            if traceparent := self.traceparent:
                _, trace_id, span_id, _ = traceparent.split("-")
                logger = logger.bind(trace_id=trace_id, span_id=span_id)
            self._logger = logger
        return self._logger

    @property
    def traceparent(self) -> str:
        """W3C traceparent of the current span, to be sent with calls that a module makes by a client of its own, as the
        header `traceparent` (HTTP) or the metadata `traceparent` (gRPC): what the target does then stands in the run's
        trace. HttpRequestModule and channels of `valkyr.rpc.channel.open_channel` send it by themselves. In a thread
        that the module started itself, that of the attempt's span; "" outside of any trace."""
        return current_traceparent() or attempt_traceparent(self._traceparent, self.run_id, self.attempt)

    @property
    def trigger(self) -> Any:
        return self.inputs.get("trigger")

    def outputs_of(self, node_id: str) -> Any:
        """Outputs of a taken predecessor. KeyError for any other node."""
        return self.inputs["nodes"][node_id]["outputs"]


class NoConfig(BaseModel):
    """The config of a module that takes none; whatever is given is ignored."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module as the runner knows it. `function` takes (context, config), or (context) if it has no config model.

    `inline`: quick and without I/O, so it is called on the event loop as it is, though no `async def`. `control`:
    decided by the executor, never run by a runner; `function` then only carries the signature. `target_of` reads the
    target from a resolved config, where it is not always the same `target`.
    """

    class_name: str
    function: Callable[..., Any]
    config_model: type[BaseModel]
    takes_config: bool
    is_async: bool
    target: str | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    inline: bool = False
    control: bool = False
    target_of: Callable[[Mapping[str, Any]], str | None] | None = None

    def config_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the config."""
        return self.config_model.model_json_schema()


_Function = TypeVar("_Function", bound=Callable[..., Any])
_registered: dict[str, ModuleSpec] = {}


def module(
    class_name: str, *, target: str | None = None, retry: Retry | None = None, timeout: timedelta | None = None
) -> Callable[[_Function], _Function]:
    """Makes a function a module under `class_name`. Its second parameter, a pydantic model, is its config.

    `async def` runs on the event loop, `def` in a thread. What it returns, as JSON, is the run's outputs.
    TypeError at import if the signature does not fit, ValueError if another function has the name.
    """

    def register(function: _Function) -> _Function:
        spec = spec_of(class_name, function, target=target, retry=retry, timeout=timeout)
        known = _registered.get(class_name)
        if known is not None and _origin(known.function) != _origin(function):
            raise ValueError(
                f"two modules are called {class_name!r}: {_origin(known.function)} and {_origin(function)}"
            )
        _registered[class_name] = spec
        return function

    return register


def spec_of(
    class_name: str,
    function: Callable[..., Any],
    *,
    target: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    inline: bool = False,
    control: bool = False,
    target_of: Callable[[Mapping[str, Any]], str | None] | None = None,
) -> ModuleSpec:
    """The spec of a function, without registering it. TypeError if the signature does not fit."""
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    if not 1 <= len(parameters) <= 2:
        raise TypeError(
            f"module {class_name!r}: expected (context) or (context, config), got {len(parameters)} parameters"
        )
    config_model: type[BaseModel] = NoConfig
    if len(parameters) == 2:
        annotation = parameters[1].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            raise TypeError(
                f"module {class_name!r}: annotate {parameters[1].name!r} with a pydantic model, not {annotation!r}"
            )
        config_model = annotation
    return ModuleSpec(
        class_name=class_name,
        function=function,
        config_model=config_model,
        takes_config=len(parameters) == 2,
        is_async=inspect.iscoroutinefunction(function),
        target=target,
        retry=retry,
        timeout=timeout,
        inline=inline,
        control=control,
        target_of=target_of,
    )


def registered_modules() -> Mapping[str, ModuleSpec]:
    """Every module imported so far, by class name."""
    return dict(_registered)


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
