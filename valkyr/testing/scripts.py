"""What a test says instead of a module or of a person: how attempts end, and what is done about quarantines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any


class _Lost(Enum):
    LOST = "LOST"


LOST = _Lost.LOST
"""The runner dies: nobody reports, and the lease runs out."""


@dataclass(frozen=True, slots=True)
class Returns:
    """The module returns this."""

    value: Any


@dataclass(frozen=True, slots=True)
class Takes:
    """The attempt takes this long; then it ends as `then` says, or, without it, as the module itself does."""

    time: timedelta
    then: Returns | BaseException | _Lost | None = None


Outcome = Returns | BaseException | Takes | _Lost
"""How an attempt ends; an exception is as if the module had raised it."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Tried again. `inputs` stand in the place of those that the attempts before had."""

    inputs: Any = None
    new_key: bool = False


@dataclass(frozen=True, slots=True)
class Fix:
    """It counts as done, with these outputs."""

    outputs: Any


@dataclass(frozen=True, slots=True)
class Discard:
    """Given up."""


Resolution = Requeue | Fix | Discard


def check_scripts(
    outcomes: Mapping[str, Outcome | Sequence[Outcome]], resolutions: Mapping[str, Resolution | Sequence[Resolution]]
) -> None:
    """TypeError for what is neither. Were it passed over, the module itself would run, in earnest."""
    for node_id, script in outcomes.items():
        for said in _each(script):
            if not _is_outcome(said):
                raise TypeError(
                    f"outcomes[{node_id!r}]: {said!r} is no end of an attempt: Returns(value), an exception such as"
                    " ValueError('why'), LOST, or Takes(time, then)"
                )
    for node_id, resolution in resolutions.items():
        for said in _each(resolution):
            if not isinstance(said, Requeue | Fix | Discard):
                raise TypeError(f"resolutions[{node_id!r}]: {said!r} is none of Requeue(), Fix(outputs) and Discard()")


def _each(script: Any) -> Sequence[Any]:
    return script if isinstance(script, list | tuple) else (script,)


def _is_outcome(said: Any) -> bool:
    if isinstance(said, Takes):
        return said.then is None or _is_outcome(said.then)
    return isinstance(said, Returns | BaseException | _Lost)
