"""The id of a run: made from its execution, its node and its item, and read back from it."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.executor.model import new_id
from valkyr.flow.ids import MAX_INDEX, is_run_of, node_of, run_id

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


def test_only_the_run_of_a_node_is_a_run_of_its_execution() -> None:
    assert all(is_run_of(run_id(EXECUTION, node), EXECUTION) for node in EDGES_OF_THE_RANGE)
    assert not is_run_of(run_id(EXECUTION, 1, 0), EXECUTION)
    assert not is_run_of(run_id(new_id(), 1), EXECUTION)
    assert not is_run_of(UUID(int=EXECUTION.int | 1), EXECUTION)


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
