"""How much is prepared to go through one door at once, whoever leases it: the dispatcher, or probes."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from services.executor.leasing import Leasing, weight
from services.executor.model import LeasePolicy
from valkyr.flow.effects import Prepared


def a_run(inputs: int = 0, config: int = 0, progress: str | None = None) -> Prepared:
    return Prepared(uuid4(), uuid4(), 0, 1, 1, b"c" * config, b"i" * inputs, "", "", "", progress=progress)


async def through(most: int | None, runs: Sequence[Prepared]) -> list[Prepared]:
    async def prepare_runs(*_: Any) -> list[Prepared]:
        return list(runs)

    progress = SimpleNamespace(preparing=SimpleNamespace(prepare_runs=prepare_runs))
    leasing = Leasing(cast("Any", SimpleNamespace(max_bytes=most)), cast("Any", progress), cast("LeasePolicy", None))
    return await leasing.prepare(None, {}, [])


def test_all_that_may_be_large_is_counted_in_bytes() -> None:
    assert weight(a_run(inputs=3, config=4, progress='"ä"')) == 11


@pytest.mark.parametrize(
    ("most", "sizes", "number"),
    [
        pytest.param(None, [9, 9, 9], 3, id="no limit"),
        pytest.param(10, [5, 5], 2, id="as many as fit"),
        pytest.param(10, [5, 5, 1], 2, id="none that passes it"),
        pytest.param(10, [11, 1], 1, id="one that is larger, alone"),
        pytest.param(10, [1, 11], 1, id="not beside others"),
        pytest.param(10, [], 0, id="nothing"),
    ],
)
async def test_as_much_is_prepared_as_goes_through_at_once(most: int | None, sizes: list[int], number: int) -> None:
    runs = [a_run(inputs=size) for size in sizes]
    assert await through(most, runs) == runs[:number]
    written = [a_run(progress="x" * size) for size in sizes]
    assert await through(most, written) == written[:number]
