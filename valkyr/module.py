"""What authors of modules see: @module, Context, Retry and the two exceptions to learn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from valkyr.graph.model import DEFAULT_DEDUPE_TTL, MAX_DEDUPE_TTL, Dedupe, DedupeScope, Retry
from valkyr.stored_json import MAX_PROGRESS_BYTES, Unstorable, encode
from valkyr.telemetry import attempt_traceparent, current_traceparent, get_logger

__all__ = [
    "Context",
    "ModuleSpec",
    "PermanentError",
    "ProcessLimits",
    "Retry",
    "RetryLater",
    "module",
    "registered_modules",
]


Isolation = Literal["process"]
DedupeAmong = Literal["workflow", "global"]

MIN_MEMORY = 64 * 1024 * 1024
MIN_OPEN_FILES = 16


class PermanentError(Exception):
    """Trying again cannot help: the run fails for good at once."""


class RetryLater(Exception):
    """Not now: try again, after `after` if given (a rate limit's Retry-After, say)."""

    def __init__(self, message: str = "", *, after: timedelta | None = None) -> None:
        super().__init__(message or "asked to be tried again later")
        self.after = after


class UnusableProgress(PermanentError):
    """What `context.heartbeat` was given cannot be stored; the message says why."""


class Context:
    """One attempt of one run, as its module sees it.

    `deadline`, when the attempt is stopped, is aware UTC. `idempotency_key` is the same in every attempt; hand it to
    targets that can dedupe. `settings` is what the runner was configured with. A module may set `cost_tokens`, which
    is kept with its outputs.
    """

    __slots__ = (
        "_inputs",
        "_logger",
        "_on_progress",
        "_progress",
        "_said",
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
        progress: bytes = b"",
        on_progress: Callable[[bytes], None] | None = None,
    ) -> None:
        """`traceparent`: what the attempt's own span stands below. `on_progress` is called with what each `heartbeat`
        was given, as JSON, in its thread."""
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
        self._progress = progress
        self._on_progress = on_progress
        self._said: bytes | None = None

    @property
    def inputs(self) -> Mapping[str, Any]:
        """`{"trigger": ..., "nodes": {"<taken predecessor>": {"outputs": ...}}}`; decoded when first asked for."""
        if isinstance(self._inputs, bytes):
            self._inputs = orjson.loads(self._inputs) if self._inputs else {}
        return self._inputs

    @property
    def progress(self) -> Any:
        """What the latest `heartbeat` of this attempt or of those before it was given; None if there was none. An
        attempt whose process died in the act may have said more than has arrived."""
        said = self._progress if self._said is None else self._said
        return orjson.loads(said) if said else None

    def heartbeat(self, progress: Any) -> None:
        """Tells how far this attempt is: `context.progress` of the next one, should there be one. JSON, at most 64 KiB.

        Costs nothing worth counting: what was said last goes with the runner's next heartbeat, every few seconds, or
        with the report of a failure. UnusableProgress if it cannot be stored. Leases are kept alive without it.
        """
        try:
            self._said = said = encode(progress, limit=MAX_PROGRESS_BYTES)
        except Unstorable as problem:
            raise UnusableProgress(f"context.heartbeat: the values it was given {problem}") from None
        if self._on_progress is not None:
            self._on_progress(said)

    @property
    def said_progress(self) -> bytes | None:
        """JSON of what this attempt has said last; for the runner."""
        return self._said

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
        """Outputs of a taken predecessor. KeyError for any other node, with those that there are."""
        before = self.inputs.get("nodes") or {}
        if node_id not in before:
            there = ", ".join(sorted(before)[:20]) or "none"
            raise KeyError(f"{node_id} is no node whose edge to {self.node_id or 'this one'} was taken: {there}")
        return before[node_id]["outputs"]


class NoConfig(BaseModel):
    """The config of a module that takes none; whatever is given is ignored."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Of the process that a module with `isolation="process"` runs in.

    `memory`: bytes that it may write to, 40 MiB of Python's own among them; beyond, MemoryError. `cpu`: processor time
    of one run, in whole seconds rounded up; beyond, it is killed. `open_files`: descriptors at a time; beyond, OSError.
    `runs`: after so many a new process takes its place. ValueError if one of them is below what can work.
    """

    memory: int | None = None
    cpu: timedelta | None = None
    open_files: int | None = None
    runs: int = 100

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < MIN_MEMORY:
            raise ValueError(f"memory: {self.memory} bytes are too few for Python itself: at least {MIN_MEMORY}")
        if self.cpu is not None and self.cpu <= timedelta(0):
            raise ValueError(f"cpu: has to be longer than nothing, not {self.cpu}")
        if self.open_files is not None and self.open_files < MIN_OPEN_FILES:
            raise ValueError(f"open_files: {self.open_files} are too few for Python itself: at least {MIN_OPEN_FILES}")
        if self.runs < 1:
            raise ValueError(f"runs: has to be 1 or more, not {self.runs}")


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module as the runner knows it. `function` takes (context, config), or (context) if it has no config model.

    `inline`: quick and without I/O, so it is called on the event loop as it is, though no `async def`. `control`:
    decided by the executor, never run by a runner; `function` then only carries the signature. `target_of` reads the
    target from a resolved config, where it is not always the same `target`. `limits`: it runs in a process of its own,
    within these. `dedupe`: the success of an equal run is reused.
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
    limits: ProcessLimits | None = None
    dedupe: Dedupe | None = None

    def config_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the config."""
        return self.config_model.model_json_schema()


_Function = TypeVar("_Function", bound=Callable[..., Any])
_registered: dict[str, ModuleSpec] = {}


def module(
    class_name: str,
    *,
    target: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    isolation: Isolation | None = None,
    limits: ProcessLimits | None = None,
    dedupe: DedupeAmong | None = None,
    dedupe_ttl: timedelta | None = None,
) -> Callable[[_Function], _Function]:
    """Makes a function a module under `class_name`. Its second parameter, a pydantic model, is its config.

    `async def` runs on the event loop, `def` in a thread; with `isolation="process"` either runs in a child process,
    within `limits`, and may crash, leak or hang there alone. What it returns, as JSON, is the run's outputs.
    With `dedupe` the outputs of an equal run, of the same workflow or of any, are reused for `dedupe_ttl` (24 hours)
    from its success. TypeError at import if the signature or a combination does not fit, ValueError for a value that
    does not, and if another function has the name.
    """

    def register(function: _Function) -> _Function:
        spec = spec_of(
            class_name,
            function,
            target=target,
            retry=retry,
            timeout=timeout,
            isolation=isolation,
            limits=limits,
            dedupe=dedupe,
            dedupe_ttl=dedupe_ttl,
        )
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
    isolation: Isolation | None = None,
    limits: ProcessLimits | None = None,
    dedupe: DedupeAmong | None = None,
    dedupe_ttl: timedelta | None = None,
) -> ModuleSpec:
    """The spec of a function, without registering it. TypeError if the signature does not fit, or if the function is to
    be isolated and another process could not import it."""
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
        limits=_limits(class_name, function, isolation, limits),
        dedupe=_dedupe(class_name, dedupe, dedupe_ttl, control=control),
    )


def _dedupe(class_name: str, among: DedupeAmong | None, ttl: timedelta | None, *, control: bool) -> Dedupe | None:
    if among is None:
        if ttl is not None:
            raise TypeError(f'module {class_name!r}: dedupe_ttl is for modules with dedupe="workflow" or "global"')
        return None
    if among not in ("workflow", "global"):
        raise ValueError(f'module {class_name!r}: dedupe may be "workflow" or "global", not {among!r}')
    if control:
        raise TypeError(f"module {class_name!r}: dedupe is not for control nodes, which nobody runs")
    if ttl is not None and not timedelta() < ttl <= MAX_DEDUPE_TTL:
        raise ValueError(
            f"module {class_name!r}: dedupe_ttl has to be more than nothing and at most {MAX_DEDUPE_TTL.days} days,"
            f" not {ttl}"
        )
    return Dedupe(DedupeScope(among.upper()), ttl or DEFAULT_DEDUPE_TTL)


def _limits(
    class_name: str, function: Callable[..., Any], isolation: Isolation | None, limits: ProcessLimits | None
) -> ProcessLimits | None:
    if isolation is None:
        if limits is not None:
            raise TypeError(f'module {class_name!r}: limits are for modules with isolation="process"')
        return None
    if isolation != "process":
        raise TypeError(f'module {class_name!r}: isolation may be "process", not {isolation!r}')
    if "<" in function.__qualname__:
        raise TypeError(
            f'module {class_name!r}: with isolation="process" it has to be importable: a function at the top of a file,'
            f" not {_origin(function)}"
        )
    return limits or ProcessLimits()


def registered_modules() -> Mapping[str, ModuleSpec]:
    """Every module imported so far, by class name."""
    return dict(_registered)


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
