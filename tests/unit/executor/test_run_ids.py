"""The id of a run: made from its execution, its node and its item, and read back from it."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.executor.model import MAX_INDEX, idempotency_key, new_id, rank_of, run_id
from services.executor.steps import node_of

EXECUTION = UUID("0199b1f0-7c3a-7def-8abc-0123456789ab")
EDGES_OF_THE_RANGE = [0, 1, 2, 9_999, MAX_INDEX - 1, MAX_INDEX]


def test_i07_every_node_and_item_has_an_id_of_its_own() -> None:
    items = [-1, 0, 1, 9_999, MAX_INDEX - 1]
    ids = {run_id(EXECUTION, node, item) for node in EDGES_OF_THE_RANGE for item in items}
    assert len(ids) == len(EDGES_OF_THE_RANGE) * len(items)
    assert len({run_id(EXECUTION, node) for node in range(MAX_INDEX + 1)}) == MAX_INDEX + 1


def test_i07_the_same_node_has_the_same_id_and_another_execution_has_other_ids() -> None:
    assert run_id(EXECUTION, 7) == run_id(EXECUTION, 7)
    executions = [new_id() for _ in range(10_000)]
    assert len({run_id(execution, 7) for execution in executions}) == 10_000


@pytest.mark.parametrize("node", EDGES_OF_THE_RANGE)
@pytest.mark.parametrize("item", [-1, 0, MAX_INDEX - 1])
def test_a_run_id_names_its_node(node: int, item: int) -> None:
    assert node_of(run_id(EXECUTION, node, item)) == node


def test_run_ids_sort_by_node_and_item_whatever_the_last_bits_of_the_execution() -> None:
    for execution in (EXECUTION, UUID(int=EXECUTION.int | (1 << 28) - 1)):
        ids = [run_id(execution, node, item) for node in range(3) for item in (-1, 0, 5)]
        assert ids == sorted(ids)
        assert [str(id_) for id_ in ids] == sorted(str(id_) for id_ in ids)


def test_a_run_id_is_a_uuid_of_version_7_like_its_execution() -> None:
    for made in (new_id(), run_id(new_id(), MAX_INDEX, MAX_INDEX - 1)):
        assert (made.version, made.variant) == (7, "specified in RFC 4122")


@pytest.mark.parametrize(("node", "item"), [(-1, -1), (MAX_INDEX + 1, -1), (0, -2), (0, MAX_INDEX)])
def test_beyond_the_limits_there_is_no_run_id(node: int, item: int) -> None:
    with pytest.raises(ValueError, match=str(MAX_INDEX)):
        run_id(EXECUTION, node, item)


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
