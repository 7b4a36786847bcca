"""What readers see of a breaker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from services.breaker.model.calls import Key
from services.breaker.model.machine import Circuit
from services.breaker.model.states import FORCED_STATES, State


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A breaker as it is shown; `id` and `updated_at` are None of one that has no row. `revision` grows with every
    change of the row."""

    key: Key
    circuit: Circuit
    id: UUID | None = None
    revision: int = 0
    permits_in_flight: int = 0
    updated_at: datetime | None = None

    @property
    def forced(self) -> bool:
        return self.circuit.state in FORCED_STATES


def switched_off(view: BreakerView) -> BreakerView:
    """As it is shown while the setting `breaker.enabled` is false: CLOSED."""
    circuit = replace(view.circuit, state=State.CLOSED, opened_at=None, next_retry_at=None)
    return replace(view, circuit=circuit, permits_in_flight=0)
