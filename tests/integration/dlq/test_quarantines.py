"""What the outbox brings is stored once, whatever its order and however often it comes."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import event

from services.dlq import wire
from services.dlq.model import Resolution
from tests.dlq_lab import EXECUTION, TRACE, TRACEPARENT, WORKFLOW, LetterEnum, a_quarantine, a_resolved, a_run, entries
from tests.integration.dlq.conftest import Desk, Sql
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.errors import LimitExceeded


async def test_i21_a_letter_holds_what_is_needed_to_replay_it(desk: Desk, sql: Sql) -> None:
    run_id = a_run()
    inputs = b'{"trigger": {"n": 12345678901234567890123, "x": 1.0}, "nodes":{"a":{"outputs":"\\u0000"}}}'
    config = b'{ "z": 1, "a": [1e2] }'
    await desk.bring(a_quarantine(run_id, inputs=inputs, config=config))
    rows = await sql("select * from dlq.dead_letter_queue")
    row = dict(rows[0])
    assert (row["original_inputs"], row["original_config"]) == (inputs.decode(), config.decode())
    assert (str(row["run_id"]), str(row["execution_id"]), str(row["workflow_id"])) == (run_id, EXECUTION, WORKFLOW)
    assert (row["version"], row["node_id"], row["class_name"]) == (4, "charge", "ChargeCard")
    assert (row["failure_type"], row["error_type"]) == ("MAX_RETRIES", "TRANSIENT")
    assert (row["failure_reason"], row["target"]) == ("the card was declined", "http:api.stripe.com")
    assert row["episode_id"]
    assert (row["trace_id"], row["traceparent"]) == (TRACE, TRACEPARENT)
    assert (row["idempotency_key"], row["requeue_count"]) == ("k" * 64, 0)
    assert [attempt["error"] for attempt in json.loads(row["attempts"])] == ["declined 1", "declined 2", "declined 3"]
    assert json.loads(row["stack_traces"]) == ["Traceback 1", "Traceback 2", "Traceback 3"]
    assert (row["resolution"], row["created_by_name"]) == ("PENDING", "executor")


async def test_i15_a_quarantine_brought_again_makes_no_second_letter(desk: Desk, sql: Sql) -> None:
    one = a_quarantine(a_run())
    for events in ([one], [one], [one, one]):
        answer = await desk.bring(*events)
        assert len(answer.accepted) == len(events)
    assert len(await sql("select 1 from dlq.dead_letter_queue")) == 1
    assert len(await sql("select 1 from dlq.audit_event")) == 1


async def test_i15_two_relays_that_bring_the_same_batch_at_once_make_one_letter_each(desk: Desk, sql: Sql) -> None:
    batch = [a_quarantine(a_run()) for _ in range(40)]
    answers = await asyncio.gather(*(desk.bring(*order) for order in (batch, batch[::-1], batch[20:] + batch[:20])))
    assert [len(answer.accepted) for answer in answers] == [40, 40, 40]
    assert len(await sql("select 1 from dlq.dead_letter_queue")) == 40


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=["letter-first", "resolution-first"])
@pytest.mark.parametrize("together", [True, False], ids=["one-batch", "two-batches"])
async def test_i22_a_letter_and_its_resolution_meet_in_either_order(
    desk: Desk, sql: Sql, order: tuple[int, ...], together: bool
) -> None:
    run_id = a_run()
    events = [a_quarantine(run_id), a_resolved(run_id)]
    ordered = [events[index] for index in order]
    for batch in [ordered] if together else [[one] for one in ordered]:
        answer = await desk.bring(*batch)
        assert (len(answer.accepted), answer.refused) == (len(batch), [])
    for again in (events, ordered, ordered[::-1]):
        await desk.bring(*again)
    letter = await desk.letter_of(run_id)
    assert (letter.resolution, letter.resolved_by) == (Resolution.FIXED, "somebody else")
    assert (letter.resolution_reason, letter.resolved_at) == ("directly", datetime(2026, 1, 2, tzinfo=UTC))
    assert await desk.actions(letter) == ["quarantined", "resolved"]
    assert not await sql("select 1 from dlq.early_resolution")


async def test_i22_a_letter_and_its_resolution_that_come_at_once_meet(desk: Desk, sql: Sql) -> None:
    runs = [a_run() for _ in range(20)]
    letters = [desk.bring(a_quarantine(run_id)) for run_id in runs]
    resolutions = [desk.bring(a_resolved(run_id)) for run_id in runs]
    await asyncio.gather(*itertools.chain.from_iterable(zip(letters, resolutions, strict=True)))
    pending = await sql("select 1 from dlq.dead_letter_queue where resolution <> 'FIXED'")
    assert (len(pending), len(await sql("select 1 from dlq.early_resolution"))) == (0, 0)


async def test_i22_what_was_resolved_once_stays_as_it_is(desk: Desk) -> None:
    run_id = a_run()
    discarded = a_resolved(run_id, resolution=LetterEnum.DISCARDED, resolved_by="late")
    await desk.bring(a_quarantine(run_id), a_resolved(run_id))
    answer = await desk.bring(discarded)
    assert answer.accepted == [1]
    assert (await desk.letter_of(run_id)).resolution is Resolution.FIXED


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))), ids=lambda order: "".join(map(str, order)))
async def test_letters_of_one_run_are_linked_whatever_their_order(desk: Desk, order: tuple[int, ...]) -> None:
    run_id = a_run()
    for number in order:
        await desk.bring(a_quarantine(run_id, number))
    first, second, third = [await desk.letter_of(run_id, number) for number in (1, 2, 3)]
    assert (first.previous_id, second.previous_id, third.previous_id) == (None, first.id, second.id)
    assert [letter.requeue_count for letter in (first, second, third)] == [0, 1, 2]


async def test_a_life_in_one_batch(desk: Desk) -> None:
    run_id = a_run()
    requeued = LetterEnum.REQUEUED
    await desk.bring(
        a_quarantine(run_id, 1),
        a_resolved(run_id, 1, resolution=requeued),
        a_quarantine(run_id, 2),
        a_resolved(run_id, 2, resolution=requeued),
        a_quarantine(run_id, 3),
    )
    letters = [await desk.letter_of(run_id, number) for number in (1, 2, 3)]
    assert [letter.resolution for letter in letters] == ["REQUEUED", "REQUEUED", "PENDING"]


async def test_the_same_run_in_two_namespaces_has_two_letters(desk: Desk, sql: Sql) -> None:
    run_id = a_run()
    await desk.bring(a_quarantine(run_id, namespace="one"), a_quarantine(run_id, namespace="two"))
    await desk.bring(a_resolved(run_id, namespace="two"))
    rows = await sql("select namespace, resolution, previous_id from dlq.dead_letter_queue order by namespace")
    assert [tuple(row) for row in rows] == [("one", "PENDING", None), ("two", "FIXED", None)]


MALFORMED = {
    "no-event": (pb.QuarantineRunsRequest.Entry(), "event"),
    "run-id": (a_quarantine("x"), "runId"),
    "execution-id": (a_quarantine(a_run(), execution_id=""), "executionId"),
    "number": (a_quarantine(a_run(), 0), "quarantineNumber"),
    "inputs": (a_quarantine(a_run(), inputs=b'{"a":'), "inputs"),
    "config": (a_quarantine(a_run(), config=b"\xff"), "config"),
    "namespace": (a_quarantine(a_run(), namespace="a b"), "namespace"),
    "resolution": (a_resolved(a_run(), resolution=LetterEnum.PENDING), "resolution"),
}


@pytest.mark.parametrize(("said", "field"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_can_never_be_stored_is_refused_alone(
    desk: Desk, said: pb.Quarantine | pb.Resolved | pb.QuarantineRunsRequest.Entry, field: str
) -> None:
    request = entries(a_quarantine(a_run()))
    bad = request.entries.add(id=99)
    if isinstance(said, pb.Quarantine):
        bad.quarantine.CopyFrom(said)
    elif isinstance(said, pb.Resolved):
        bad.resolved.CopyFrom(said)
    read, refused = wire.read_entries(request)
    assert [entry_id for entry_id, _ in read] == [1]
    assert [entry_id for entry_id, _ in refused] == [99]
    assert refused[0][1].startswith(f"{field}: ")


async def test_i15_an_entry_that_the_database_refuses_holds_up_no_other(
    desk: Desk, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_storable", lambda text: text)
    runs = [a_run() for _ in range(7)]
    answer = await desk.bring(
        *(a_quarantine(run_id, failure_reason="\x00" if n == 4 else "fine") for n, run_id in enumerate(runs))
    )
    assert sorted(answer.accepted) == [1, 2, 3, 4, 6, 7]
    assert [entry_id for entry_id, _ in answer.refused] == [5]
    assert len(await sql("select 1 from dlq.dead_letter_queue")) == 6


async def test_whatever_a_module_said_can_be_stored(desk: Desk) -> None:
    letter = await desk.a_letter(failure_reason="a\x00b" + "x" * 100_000, target="t" * 5_000, error_type="\x00")
    assert letter.failure_reason.startswith("a\\u0000b")
    assert letter.target == "t" * 500


async def test_a_type_of_failure_that_is_newer_than_this_service_is_kept(desk: Desk) -> None:
    quarantine = a_quarantine(a_run())
    quarantine.failure_type = 77  # type: ignore[assignment]
    await desk.bring(quarantine)
    letter = await desk.letter_of(quarantine.run_id)
    assert wire.write_letter(letter).failure_type == 77


async def test_a_trace_that_is_none_is_not_kept(desk: Desk) -> None:
    letter = await desk.a_letter(traceparent="00-nonsense")
    assert (letter.traceparent, letter.trace_id) == ("", "")


def test_a_call_holds_at_most_500_entries_and_8_mib_but_one_may_be_larger() -> None:
    run_id = a_run()
    small = pb.Resolved(run_id=run_id, execution_id=EXECUTION, quarantine_number=1, resolution=LetterEnum.FIXED)
    assert len(wire.read_entries(entries(*[small] * 500))[0]) == 500
    with pytest.raises(LimitExceeded, match="501 entries"):
        wire.read_entries(entries(*[small] * 501))
    large = a_quarantine(run_id, inputs=b'"%s"' % (b"x" * 9_000_000))
    assert len(wire.read_entries(entries(large))[0]) == 1
    with pytest.raises(LimitExceeded, match="bytes"):
        wire.read_entries(entries(large, small))


async def test_500_entries_take_a_handful_of_statements(desk: Desk, sql: Sql) -> None:
    runs = [a_run() for _ in range(250)]
    batch = [*(a_quarantine(run_id) for run_id in runs), *(a_resolved(run_id) for run_id in runs)]
    counted = 0
    engine = desk.store._database.engine.sync

    def count(*_arguments: object) -> None:
        nonlocal counted
        counted += 1

    event.listen(engine, "before_cursor_execute", count)
    try:
        assert len((await desk.bring(*batch)).accepted) == 500
    finally:
        event.remove(engine, "before_cursor_execute", count)
    assert counted <= 10
    assert (await sql("select count(*) from dlq.dead_letter_queue where resolution = 'FIXED'"))[0][0] == 250
