"""Room in the own pool: derived from the worker and from the transactions under way, never counted apart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from services.executor.breakers.mirror import Mirror
from services.executor.handoff import Handoff, leased_run
from services.executor.model import LeasePolicy, new_id
from services.executor.reaper import FORGOTTEN_AFTER
from services.executor.signals import Readiness
from tests.builders import a_graph
from tests.unit.executor.breakers import Silent, a_mirror, a_status
from tests.unit.executor.executions import a_fact, plan_of, prepared
from valkyr.flow.facts import NO_REPLAY, Replay
from valkyr.graph.model import Module
from valkyr.runner.leases import LeasedRun
from valkyr.telemetry import attempt_traceparent


class FakeWorker:
    """A pool of a fixed size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.live: list[LeasedRun] = []
        self.start_by: float | None = None

    def room(self) -> int:
        return self.size - len(self.live)

    def accept(
        self, runs: Sequence[LeasedRun], *, granted_at: float | None = None, start_by: float | None = None
    ) -> None:
        self.live.extend(runs)
        self.start_by = start_by


def a_door(size: int = 10, **settings: Any) -> tuple[Handoff, FakeWorker]:
    worker = FakeWorker(size)
    known = {"pool": "default", "class_names": frozenset({"NoopModule"}), "serves_all": False, **settings}
    return Handoff(worker, Readiness(), Mirror(Silent()), **known), worker


def a_lease() -> LeasedRun:
    policy = LeasePolicy("me", new_id(), timedelta(minutes=2))
    graph = a_graph("a")
    return leased_run(prepared(graph, "a"), a_fact(), plan_of(graph), policy, {})


def test_i13_transactions_under_way_set_room_aside_for_each_other() -> None:
    door, _ = a_door(10)
    with door.grant(wanted=7) as first:
        assert (first.left, door.room()) == (7, 3)
        with door.grant(wanted=7) as second:
            assert (second.left, door.room()) == (3, 0)
            with door.grant(wanted=7) as third:
                assert third.left == 0
    assert door.room() == 10


def test_i13_room_that_was_set_aside_comes_back_when_the_transaction_fails() -> None:
    door, _ = a_door(10)
    with pytest.raises(RuntimeError), door.grant(wanted=4):
        raise RuntimeError("the commit failed")
    assert door.room() == 10


def test_i12_runs_are_started_only_while_nobody_can_think_them_lost() -> None:
    door, worker = a_door()
    door.deliver([a_lease()], granted_at=100.0)
    assert worker.start_by is not None
    assert 0 < worker.start_by - 100 < FORGOTTEN_AFTER.total_seconds()


def test_i13_leases_that_end_with_the_transaction_make_room_in_it() -> None:
    door, worker = a_door(2)
    worker.live = [a_lease(), a_lease()]
    with door.grant(wanted=5, freed=1) as grant:
        assert (grant.left, door.room()) == (1, 0)
        with door.grant(wanted=5, freed=1) as other:
            assert other.left == 1
        with door.grant(wanted=5) as third:
            assert third.left == 0


def test_a_grant_gives_as_often_as_it_has_room() -> None:
    door, _ = a_door(2)
    with door.grant(wanted=5) as grant:
        assert [grant.take() for _ in range(3)] == [True, True, False]


def test_nothing_wanted_sets_nothing_aside() -> None:
    door, _ = a_door(2)
    with door.grant(wanted=0, freed=1) as grant:
        assert (grant.left, door.room()) == (0, 2)


def test_i12_a_door_that_is_closed_has_no_room_and_hands_nothing_out() -> None:
    door, worker = a_door(2)
    door.close()
    with door.grant(wanted=5, freed=2) as grant:
        assert (door.room(), grant.take()) == (0, False)
    door.deliver([a_lease()], granted_at=0.0)
    assert worker.live == []


async def test_i12_what_was_leased_while_the_door_closed_is_given_back() -> None:
    door, worker = a_door(2)
    run = a_lease()
    with door.grant(wanted=1):
        door.close()
        door.deliver([run], granted_at=0.0)
    assert (await door.returned(), worker.live) == ([run], [])


@pytest.mark.parametrize(
    ("class_name", "pool", "serves_all", "served"),
    [
        ("NoopModule", "default", False, True),
        ("Unknown", "default", False, False),
        ("Unknown", "default", True, True),
        ("NoopModule", "gpu", False, False),
        ("Unknown", "gpu", True, False),
        (None, "default", True, False),
        ("DelayModule", "default", True, False),
    ],
)
def test_the_own_pool_serves_its_classes_and_never_control_nodes(
    class_name: str | None, pool: str, serves_all: bool, served: bool
) -> None:
    door, _ = a_door(serves_all=serves_all)
    graph = a_graph("a", modules={"a": class_name}, nodes={"a": {"pool": pool}})
    assert door.serving.takes(plan_of(graph).nodes[0]) is served


def test_a_leased_run_says_all_a_runner_needs() -> None:
    graph = a_graph("a", nodes={"a": {"timeout": timedelta(seconds=9)}})
    policy = LeasePolicy("me", new_id(), timedelta(minutes=2))
    run = prepared(graph, "a", trigger=1, attempt=3)
    leased = leased_run(run, a_fact(), plan_of(graph), policy, {"NoopModule": timedelta(hours=1)})
    assert (leased.ref.execution_id, leased.ref.run_id, leased.ref.epoch) == (str(run.execution_id), str(run.id), 3)
    assert (leased.attempt, leased.node_id, leased.class_name) == (3, "a", "NoopModule")
    assert (leased.config, leased.inputs, leased.idempotency_key) == (run.config, run.inputs, run.idempotency_key)
    assert (leased.lease_duration, leased.timeout) == (timedelta(minutes=2), timedelta(seconds=9))
    assert leased.traceparent == a_fact().traceparent


@pytest.mark.parametrize(("class_name", "expected"), [("NoopModule", timedelta(hours=1)), ("LogModule", None)])
def test_a_module_s_own_timeout_stands_where_the_node_sets_none(class_name: str, expected: timedelta | None) -> None:
    graph = a_graph("a", modules={"a": class_name})
    policy = LeasePolicy("me", new_id(), timedelta(minutes=2))
    run = leased_run(prepared(graph, "a"), a_fact(), plan_of(graph), policy, {"NoopModule": timedelta(hours=1)})
    assert run.timeout == expected


PARENT, REPLAY = a_fact().traceparent, "00-" + "3" * 32 + "-" + "4" * 16 + "-01"


@pytest.mark.parametrize(
    ("attempt", "replay", "traces"),
    [
        pytest.param(1, NO_REPLAY, [], id="the first attempt"),
        pytest.param(2, NO_REPLAY, [PARENT], id="a retry"),
        pytest.param(4, Replay(traceparent=REPLAY, after_attempt=3), [PARENT], id="the first of a replay"),
        pytest.param(5, Replay(traceparent=REPLAY, after_attempt=3), [REPLAY], id="a retry within a replay"),
        pytest.param(4, Replay(after_attempt=3), [PARENT], id="a requeue without a trace"),
        pytest.param(1, Replay(traceparent=REPLAY), [], id="a replay of what was never leased"),
    ],
)
def test_i23_an_attempt_links_to_the_one_before_in_the_trace_in_which_that_ran(
    attempt: int, replay: Replay, traces: list[str]
) -> None:
    graph = a_graph("a")
    run = prepared(graph, "a", attempt=attempt, replay=replay)
    leased = leased_run(run, a_fact(), plan_of(graph), LeasePolicy("me", new_id(), timedelta(minutes=2)), {})
    before = tuple(attempt_traceparent(trace, str(run.id), attempt - 1) for trace in traces)
    to_the_old_trace = (PARENT,) if replay.traceparent else ()
    assert leased.links == before + to_the_old_trace
    assert leased.traceparent == (replay.traceparent or PARENT), "a replay has a trace of its own"
    assert leased.attempt == attempt


def test_i17_a_run_whose_target_is_open_is_not_for_the_own_pool_at_once() -> None:
    mirror, _ = a_mirror(a_status("t-a", "OPEN"))
    door = Handoff(FakeWorker(1), Readiness(), mirror, pool="default", class_names=frozenset(), serves_all=True)
    graph = a_graph("a, b, c", modules={name: Module("", "Any", target=f"t-{name}") for name in "ab"})
    plan = plan_of(graph)
    assert [door.may_take("default", node) for node in plan.nodes] == [False, True, True]
    assert door.may_take("another", plan.nodes[0])
