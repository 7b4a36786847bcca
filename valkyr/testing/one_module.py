"""`run_module`: one attempt of one module, with a made-up context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import orjson
from pydantic import BaseModel

from valkyr.module import ModuleSpec, registered_modules, spec_of
from valkyr.modules import builtin_modules
from valkyr.runner.leases import Failure, LeasedRun, LeaseRef, Success
from valkyr.testing.bench import LEASE, Ended, a_bench, run_apart


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """What became of the attempt. `failure` is None if it went well; only then are there `outputs`, as they would be
    stored: plain JSON. `progress` is what it said last."""

    outputs: Any
    failure: Failure | None
    cost_tokens: float | None
    progress: Any


def run_module(
    module: Callable[..., Any] | ModuleSpec | str,
    config: BaseModel | Mapping[str, Any] | None = None,
    *,
    trigger: Any = None,
    outputs_of: Mapping[str, Any] = MappingProxyType({}),
    inputs: Mapping[str, Any] | None = None,
    attempt: int = 1,
    progress: Any = None,
    timeout: timedelta | None = None,
    deadline: datetime | None = None,
    cancel_after: timedelta | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> ModuleRun:
    """One attempt, run as a runner runs it: the config is checked, outputs and exceptions become what is stored.

    `module` is a function, decorated or not, or the class name of one that was imported. `trigger` and `outputs_of`, by
    node, are what it finds in `context.inputs`, or `inputs` all of it. `progress` is what the attempt before said.
    `timeout` is the module's own unless given; it and `cancel_after`, when it is told to stop, though not before it has
    begun, are of real time.
    LookupError for a class name that nobody has registered.
    """
    spec = find_spec(module)
    if inputs is None:
        inputs = {"trigger": trigger, "nodes": {node: {"outputs": said} for node, said in outputs_of.items()}}
    leased = LeasedRun(
        ref=LeaseRef(str(uuid4()), str(uuid4()), 1),
        attempt=attempt,
        node_id="node",
        class_name=spec.class_name,
        config=_json(config if config is not None else {}),
        inputs=_json(inputs),
        idempotency_key=str(uuid4()),
        lease_duration=LEASE,
        timeout=timeout or spec.timeout,
        deadline=deadline,
        progress=b"" if progress is None else _json(progress),
    )
    return _told(run_apart(_run(spec, leased, settings, cancel_after)))


def find_spec(module: Callable[..., Any] | ModuleSpec | str) -> ModuleSpec:
    """Of a function that is no module (yet): its spec as if it were, under its own name. LookupError, TypeError."""
    if isinstance(module, ModuleSpec):
        return module
    known = {**builtin_modules(), **registered_modules()}
    if isinstance(module, str):
        if module not in known:
            raise LookupError(f"no module is called {module!r}; import the file that registers it")
        return known[module]
    of_function = (spec for spec in known.values() if spec.function is module)
    return next(of_function, None) or spec_of(getattr(module, "__name__", "Module"), module)


async def _run(
    spec: ModuleSpec, leased: LeasedRun, settings: Mapping[str, Any], cancel_after: timedelta | None
) -> Ended:
    async with a_bench({spec.class_name: spec}, settings) as bench:
        return await bench.run(leased, cancel_after=cancel_after)


def _told(ended: Ended) -> ModuleRun:
    progress = None if ended.progress is None else orjson.loads(ended.progress)
    match ended.result.result:
        case Success(outputs=outputs, cost_tokens=cost):
            return ModuleRun(orjson.loads(outputs), None, cost, progress)
        case Failure() as failure:
            return ModuleRun(None, failure, None, progress)
    raise AssertionError(f"a module cannot end with {ended.result.result}")


def _json(value: Any) -> bytes:
    """As it would be stored. TypeError for what JSON cannot hold."""
    return orjson.dumps(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
