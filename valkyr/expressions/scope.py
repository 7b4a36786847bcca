"""What expressions see: the values themselves, only the parts that are used, and what was converted of them before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from valkyr.expressions.checked import Path
from valkyr.expressions.values import check_plain

_NO_OUTCOME: Mapping[str, Any] = {"outputs": None, "error": None}
_NODES = "nodes"


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression sees, all plain JSON values (dict, list, str, int, float, bool, None).

    `nodes` maps a node id to {"outputs": ..., "error": ...}; both are null for a node that is absent. `outputs` and
    `error`, for conditions, are those of the edge's source. Scopes that have the same `bindings` convert a value once.
    """

    trigger: Any = None
    execution: Mapping[str, Any] | None = None
    nodes: Mapping[str, Mapping[str, Any]] | None = None
    outputs: Any = None
    error: Any = None
    bindings: Bindings | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """What one evaluation gets. `activation` is CEL's own form of `data`, kept between evaluations."""

    data: Mapping[str, Any]
    activation: Any
    originals: tuple[Any, ...]


class Bindings:
    """Keeps the values of scopes as CEL wants them, for as long as it lives: converting 1 MiB takes tens of ms.

    Values are told apart by identity and held meanwhile: they must not be changed. For one thread at a time. The last
    few are kept, so that it takes a bounded multiple of what its scopes hold.
    """

    __slots__ = ("_bound",)

    LIMIT = 16

    def __init__(self) -> None:
        self._bound: dict[Any, Bound] = {}

    def bind(self, scope: Scope, paths: tuple[Path, ...], environment: Any) -> Bound:
        """The parts of the scope under `paths`, which `shortest` gave. NotPlain if they hold what is no plain JSON."""
        originals = tuple(_originals(scope, paths))
        key = (id(environment), paths, tuple(map(id, originals)))
        bound = self._bound.get(key)
        if bound is None:
            data = _used(scope, paths)
            check_plain(data)
            while len(self._bound) >= self.LIMIT:
                del self._bound[next(iter(self._bound))]
            bound = self._bound[key] = Bound(data, environment.Activation(data=data), originals)
        return bound


def shortest(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Sorted, without those that lie within another one."""
    known = set(paths)
    return tuple(sorted(path for path in known if not any(path[:end] in known for end in range(1, len(path)))))


def _originals(scope: Scope, paths: Iterable[Path]) -> Iterable[Any]:
    for path in paths:
        yield (scope.nodes or {}).get(path[1]) if path[0] == _NODES else getattr(scope, path[0])


def _used(scope: Scope, paths: Iterable[Path]) -> dict[str, Any]:
    """CEL converts all that it is given: so only what lies on the paths, and whole what they lead to."""
    tree: dict[str, Any] = {}
    for path in paths:
        level = tree
        for step in path:
            level = level.setdefault(step, {})
    known = scope.nodes or {}
    return {
        name: _part({node_id: known.get(node_id, _NO_OUTCOME) for node_id in steps}, steps)
        if name == _NODES
        else _part(getattr(scope, name), steps)
        for name, steps in tree.items()
    }


def _part(value: Any, steps: Mapping[str, Any]) -> Any:
    if not steps or not isinstance(value, Mapping):
        return value
    return {step: _part(value[step], rest) for step, rest in steps.items() if step in value}
