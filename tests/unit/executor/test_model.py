"""The executor's own arithmetic: ranks and idempotency keys."""

from __future__ import annotations

import pytest

from services.executor.model import rank_of
from valkyr.planning.inputs import idempotency_key


@pytest.mark.parametrize(
    ("execution", "node", "rank"),
    [(0, 0, 0), (5, -2, -3), (100, 100, -100), (-100, -1, 100), (60, 60, -100), (-3, 0, 3)],
)
def test_higher_priorities_have_lower_ranks_within_a_hundred(execution: int, node: int, rank: int) -> None:
    assert rank_of(execution, node) == rank


def test_the_idempotency_key_depends_on_every_part() -> None:
    parts = {"scope": "e/a/-1", "class_name": "Charge", "inputs_hash": "i" * 64, "config_hash": "c" * 64}
    keys = {idempotency_key(**{**parts, name: parts[name] + "x"}) for name in parts}
    assert len(keys | {idempotency_key(**parts)}) == 5
    assert idempotency_key(**parts) == idempotency_key(**parts)
