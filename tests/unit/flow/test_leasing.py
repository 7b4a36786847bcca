"""Which runs may be leased, by whom; how a lease is told to have run out."""

from __future__ import annotations

import pytest

from tests.builders import a_graph
from tests.unit.flow.batches import Batch
from valkyr.flow.attempts import Fence
from valkyr.flow.leasing import Serving, has_run_out, may_hand_off, may_lease
from valkyr.flow.results import Lost
from valkyr.flow.states import RunState

R = RunState


@pytest.mark.parametrize("state", list(R))
@pytest.mark.parametrize("control", [True, False], ids=["control", "module"])
@pytest.mark.parametrize("due", [True, False], ids=["due", "not yet"])
def test_only_a_ready_run_whose_time_has_come_and_that_is_a_modules_is_leased(
    state: RunState, control: bool, due: bool
) -> None:
    assert may_lease(state, control=control, due=due) == (state is R.READY and not control and due)


@pytest.mark.parametrize(
    ("serving", "takes"),
    [
        pytest.param(Serving("default", frozenset({"NoopModule"}), serves_all=False), True, id="its class"),
        pytest.param(Serving("default", frozenset(), serves_all=True), True, id="every class"),
        pytest.param(Serving("default", frozenset({"OtherModule"}), serves_all=False), False, id="another class"),
        pytest.param(Serving("other", frozenset({"NoopModule"}), serves_all=True), False, id="another pool"),
    ],
)
def test_runners_take_the_classes_of_their_pool(serving: Serving, takes: bool) -> None:
    [node] = Batch(a_graph("a")).plan.nodes
    assert serving.takes(node) is takes


def test_nobody_takes_what_the_engine_decides_itself() -> None:
    [node] = Batch(a_graph("a", modules={"a": None})).plan.nodes
    assert not Serving("default", frozenset({""}), serves_all=True).takes(node)


@pytest.mark.parametrize("takes", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("trusted", [True, False], ids=["somebody may be at it", "nobody is"])
def test_i12_nothing_is_handed_off_that_a_silent_runner_may_be_at(takes: bool, trusted: bool) -> None:
    row = Batch(a_graph("a"), trusted=trusted, attempt=0).step.rows[0]
    assert may_hand_off(row, takes=takes) is (takes and not trusted)


def test_what_was_tried_before_is_not_handed_off_without_what_it_has_said() -> None:
    row = Batch(a_graph("a"), attempt=1).step.rows[0]
    assert not may_hand_off(row, takes=True)


@pytest.mark.parametrize("state", list(R))
@pytest.mark.parametrize("expired", [True, False], ids=["over", "not over"])
def test_i11_only_a_lease_whose_time_is_over_is_ended_as_lost(state: RunState, expired: bool) -> None:
    batch = Batch(a_graph("a"), {"a": state}, lease_expired=expired)
    assert has_run_out(batch.step.rows[0]) is (state is R.LEASED and expired)
    answer = batch.apply(batch.ended("a", Lost(), only_if_expired=True))
    assert (answer == [Fence.ACCEPTED]) is has_run_out(batch.step.rows[0])
