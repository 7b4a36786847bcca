"""Ids of runs: a run's id names its execution, its node and its item, so that nothing has to be looked up."""

from __future__ import annotations

from uuid import UUID

MAX_INDEX = (1 << 14) - 1
_TAIL_BITS = 28
_TAIL = (1 << _TAIL_BITS) - 1

RunKey = tuple[UUID, UUID]  # (execution id, run id)


def run_id(execution_id: UUID, node_index: int, map_index: int = -1) -> UUID:
    """The id of a run: the execution's UUIDv7 with its last 28 bits naming node and item. I07 by construction.

    So the key of the table keeps one row per (execution, node, map index), and successors are found without a look-up.
    ValueError beyond 16,383 nodes or items.
    """
    if not (0 <= node_index <= MAX_INDEX and -1 <= map_index < MAX_INDEX):
        raise ValueError(f"node index {node_index} or map index {map_index} is over {MAX_INDEX}")
    return UUID(int=(execution_id.int & ~_TAIL) | (node_index << 14) | (map_index + 1))


def node_of(run: UUID) -> int:
    """The node index that a run's id names."""
    return (run.int >> 14) & MAX_INDEX


def is_run_of(run: UUID, execution_id: UUID) -> bool:
    """Whether this is the id of some node's own run in that execution: no item of a map, no id made up."""
    number = run.int
    return number >> _TAIL_BITS == execution_id.int >> _TAIL_BITS and number & MAX_INDEX == 0
