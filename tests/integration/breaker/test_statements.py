"""Every look-up walks along the index that was made for it, also by a plan that was made while the table was empty."""

from __future__ import annotations

import re

import pytest

from services.breaker import queries
from tests.integration.breaker.conftest import Replica


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("READ_BREAKERS", "circuit_breaker_state_target_key"),
        ("LOCK_BREAKERS", "circuit_breaker_state_target_key"),
        ("GET_BREAKER", "circuit_breaker_state_target_key"),
        ("UPDATE_BREAKERS", "circuit_breaker_state_target_key"),
        ("CHANGED_SINCE", "circuit_breaker_state_changed_idx"),
        ("READ_PERMITS", "permit_holder_key"),
        ("KNOWN_REPORTS", "counted_report_pkey"),
        ("PRUNE_PERMITS", "permit_expiry_idx"),
        ("PRUNE_PERMITS", "circuit_breaker_state_pkey"),
        ("PRUNE_UNANSWERED_PERMITS", "permit_expiry_idx"),
        ("CLOSE_FORGOTTEN", "circuit_breaker_state_changed_idx"),
        ("PRUNE_TRANSITIONS", "transition_age_idx"),
        ("PRUNE_EPISODES", "episode_age_idx"),
        ("PRUNE_REPORTS", "counted_report_age_idx"),
        ("PRUNE_QUIET", "circuit_breaker_state_quiet_idx"),
        ("PRUNE_RECOVERED", "circuit_breaker_state_changed_idx"),
    ],
)
async def test_a_statement_walks_along_its_index(replica: Replica, name: str, index: str, filled: bool) -> None:
    statement = getattr(queries, name)
    parameters = max(int(number) for number in re.findall(r"\$(\d+)", statement))
    async with replica.database.acquire() as connection:
        if filled:
            await connection.execute(
                "insert into breaker.circuit_breaker_state (id, target, generation) "
                "select gen_random_uuid(), 'target-' || n, n % 2 from generate_series(1, 2000) n"
            )
            await connection.execute("analyze breaker.circuit_breaker_state")
        await connection.execute(f"prepare looked_at as {statement}")
        rows = await connection.fetch(f"explain execute looked_at({', '.join(['null'] * parameters)})")
        await connection.execute("deallocate looked_at")
    plan = "\n".join(row[0] for row in rows)
    assert f"using {index}" in plan, plan
    assert "Seq Scan" not in plan, plan
