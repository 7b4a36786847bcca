"""The outbox keeps what the DLQ has not answered; what it never will have holds up nothing; letters fit. I15, I21."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.executor import queries_reading
from services.executor.gateways import Told
from services.executor.model import Letter, OutboxRow
from services.executor.outbox import AT_ONCE, ROUNDS, SKIPPED, Outbox
from services.executor.store.progress import read_results
from tests.builders import a_graph
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from tests.unit.executor.breakers import Clock
from valkyr.client import ExecutionState
from valkyr.errors import (
    Conflict,
    Forbidden,
    Internal,
    LimitExceeded,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
    UnknownMethod,
    ValkyrError,
)
from valkyr.flow.ids import RunKey
from valkyr.flow.sights import StoredResult
from valkyr.graph.model import Graph

ONE_ATTEMPT = {"retry": {"backoff_base_ms": 1, "backoff_max_ms": 1, "max_attempts": 1}}


class ToldDlq:
    """Keeps what it is told; refuses whatever holds a node of `poison`, breaks at one of `breaks`, and fails with
    `problem` while there is one."""

    def __init__(self, *, poison: Collection[str] = (), breaks: Collection[str] = ()) -> None:
        self.letters: dict[str, list[Letter]] = {}
        self.resolved: list[OutboxRow] = []
        self.poison = poison
        self.breaks = breaks
        self.problem: ValkyrError | None = None
        self.calls = 0

    async def tell(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        self.calls += 1
        if self.problem is not None:
            raise self.problem
        rows = [entry.row if isinstance(entry, Letter) else entry for entry in entries]
        if any(row.node_id in self.poison for row in rows):
            raise LimitExceeded("the request is too large")
        if any(row.node_id in self.breaks for row in rows):
            raise Internal("what nobody foresaw")
        for entry in entries:
            if isinstance(entry, Letter):
                self.letters.setdefault(entry.row.node_id, []).append(entry)
            else:
                self.resolved.append(entry)
        return Told([row.id for row in rows], {})


def outbox_of(stack: Stack, dlq: ToldDlq, **options: Any) -> Outbox:
    parts = stack.app.parts
    return Outbox(parts.session, parts.cache, dlq, **options)  # type: ignore[arg-type]


async def kept(stack: Stack) -> list[tuple[str, str | None]]:
    rows = await stack.sql.fetch(
        """SELECT r.node_id, o.problem FROM executor.outbox o
           JOIN executor.run r ON r.execution_id = o.execution_id AND r.id = o.run_id ORDER BY o.id"""
    )
    return [(row[0], row[1]) for row in rows]


def failing(nodes: str, **config: Any) -> Graph:
    names = [name.strip() for name in nodes.split(",")]
    return a_graph(nodes, modules=dict.fromkeys(names, ("FailModule", {"type": "PERMANENT", **config})))


@pytest.mark.parametrize(
    "kind", [Unavailable, Overloaded, Conflict, UnknownMethod, Forbidden, Unauthenticated, NotFound, Internal]
)
async def test_i15_what_says_nothing_about_an_entry_loses_none(make_stack: OpenStack, kind: type[ValkyrError]) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a, b"))
        dlq = ToldDlq()
        dlq.problem = kind("for a moment")
        outbox = outbox_of(stack, dlq)
        await outbox.step()
        assert await kept(stack) == [("a", None), ("b", None)]
        dlq.problem = None
        assert await outbox.step() is None
        assert (sorted(dlq.letters), await kept(stack)) == (["a", "b"], [])


async def test_i15_what_was_not_answered_is_kept_and_told_when_the_dlq_is_back(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a, b"))
        dlq = ToldDlq()
        dlq.problem = Unavailable("the DLQ does not answer", retry_after=timedelta(seconds=1))
        outbox = outbox_of(stack, dlq)
        first, second = await outbox.step(), await outbox.step()
        assert first is not None
        assert second is not None
        assert timedelta() < first < second
        assert [node for node, _ in await kept(stack)] == ["a", "b"]
        dlq.problem = None
        assert await outbox.step() is None
        assert (sorted(dlq.letters), await kept(stack)) == (["a", "b"], [])


async def test_i15_a_letter_that_the_dlq_never_will_have_holds_up_no_other(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a, b, c"))
        dlq = ToldDlq(poison={"b"})
        outbox = outbox_of(stack, dlq)
        assert await outbox.step() is None
        assert sorted(dlq.letters) == ["a", "c"]
        [(node, problem)] = await kept(stack)
        assert node == "b"
        assert problem is not None
        assert "too large" in problem
        calls = dlq.calls
        assert await outbox.step() is None
        assert dlq.calls == calls


class LeavingDlq(ToldDlq):
    """Goes away after so many calls."""

    def __init__(self, problem: ValkyrError, *, after: int, **options: Any) -> None:
        super().__init__(**options)
        self._leaving = problem
        self._after = after

    async def tell(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        if self.calls == self._after:
            self.problem = self._leaving
        return await super().tell(entries)


async def test_i15_a_dlq_that_goes_away_while_letters_are_sent_one_by_one_loses_none(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a, b, c"))
        dlq = LeavingDlq(Forbidden("for a moment"), after=2, poison={"c"})
        outbox = outbox_of(stack, dlq)
        assert await outbox.step() is not None
        assert (sorted(dlq.letters), await kept(stack)) == (["a"], [("b", None), ("c", None)])
        dlq.problem = None
        assert await outbox.step() is None
        assert (sorted(dlq.letters), [node for node, _ in await kept(stack)]) == (["a", "b"], ["c"])


async def test_i15_what_was_refused_is_told_once_more_by_an_executor_that_starts(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a"))
        dlq = ToldDlq(poison={"a"})
        await outbox_of(stack, dlq).step()
        assert await kept(stack) == [("a", "LIMIT_EXCEEDED: the request is too large")]
        dlq.poison = ()
        assert await outbox_of(stack, dlq).step() is None
        assert (sorted(dlq.letters), await kept(stack)) == (["a"], [])


async def test_i15_a_letter_that_the_dlq_fails_at_holds_up_no_other_and_is_tried_again(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        execution = await stack.run(failing("a, b, c"))
        dlq, clock = ToldDlq(breaks={"a"}), Clock()
        outbox = outbox_of(stack, dlq, clock=clock)
        for _ in range(ROUNDS):
            await outbox.step()
        assert (sorted(dlq.letters), await kept(stack)) == (["b", "c"], [("a", None)])
        run = (await stack.runs(execution.id))["a"]
        await stack.client.runs.discard(execution.id, run.id, quarantine_number=1, reason="no")
        assert await outbox.step() is None
        assert dlq.resolved == [], "it would be told before the letter that it is of"
        dlq.breaks = ()
        clock.now += SKIPPED.total_seconds()
        assert await outbox.step() is None
        assert (sorted(dlq.letters), len(dlq.resolved), await kept(stack)) == (["a", "b", "c"], 1, [])


async def test_i21_a_letter_holds_what_is_needed_to_replay_it(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b",
        modules={
            "a": ("TransformModule", {"output": {"n": "${trigger.n}"}}),
            "b": ("FailModule", {"message": "no ${nodes['a'].outputs.n}"}),
        },
    )
    async with make_stack(runner={"retry": {"backoff_base_ms": 1, "backoff_max_ms": 1}}) as stack:
        execution = await stack.run(graph, payload={"n": 7})
        dlq = ToldDlq()
        await outbox_of(stack, dlq).step()
        [letter] = dlq.letters["b"]
        row = await stack.row(execution.id, "b")
        assert orjson.loads(letter.inputs) == {"trigger": {"n": 7}, "nodes": {"a": {"outputs": {"n": 7}}}}
        assert orjson.loads(letter.config) == {"message": "no 7"}
        assert (letter.version, str(letter.workflow_id)) == (execution.version, execution.workflow_id)
        assert [attempt.outcome for attempt in letter.attempts] == ["TRANSIENT"] * 3
        assert all("DrillFailure" in attempt.stack_trace for attempt in letter.attempts)
        assert letter.row.idempotency_key == row["idempotency_key"]
        assert letter.row.record.failure_type == "MAX_RETRIES"
        assert letter.traceparent.split("-")[1] == execution.trace_id


async def test_i21_a_letter_sent_late_is_of_its_own_quarantine_not_of_the_next(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        execution = await stack.run(
            a_graph("a", modules={"a": ("FailModule", {"message": "${trigger}"})}), payload="1st"
        )
        run = (await stack.runs(execution.id))["a"]
        await stack.client.runs.requeue(
            execution.id, run.id, quarantine_number=1, inputs={"trigger": "2nd", "nodes": {}}
        )
        await stack.until("SELECT quarantine_number = 2 FROM executor.run")
        dlq = ToldDlq()
        await outbox_of(stack, dlq).step()
        first, second = dlq.letters["a"]
        assert [orjson.loads(letter.inputs)["trigger"] for letter in (first, second)] == ["1st", "2nd"]
        assert [orjson.loads(letter.config)["message"] for letter in (first, second)] == ["1st", "2nd"]
        assert [len(letter.attempts) for letter in (first, second)] == [1, 2]
        assert [row.record.quarantine_number for row in dlq.resolved] == [1]
        assert first.traceparent != second.traceparent


async def test_i21_inputs_that_were_too_large_are_named_and_left_out(make_stack: OpenStack) -> None:
    names = [f"p{place}" for place in range(6)]
    graph = a_graph(
        ", ".join(f"{name} -> big" for name in names),
        modules=dict.fromkeys(names, ("TransformModule", {"output": "${trigger}"})),
    )
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        execution = await stack.run(graph, payload="z" * 900_000)
        assert execution.state is ExecutionState.FAILED
        dlq = ToldDlq()
        await outbox_of(stack, dlq).step()
        [letter] = dlq.letters["big"]
        assert "INPUTS_TOO_LARGE" in orjson.loads(letter.inputs)["omitted"]
        assert len(letter.inputs) < 1000


async def test_inputs_of_letters_are_read_for_a_few_at_a_time(
    make_stack: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    async def counted(connection: Any, keys: Sequence[RunKey]) -> dict[RunKey, StoredResult]:
        read.append(len(keys))
        return await read_results(connection, keys)

    monkeypatch.setattr("services.executor.outbox.read_results", counted)
    monkeypatch.setattr("services.executor.outbox.MAX_BATCH_BYTES", 1)
    names = range(2 * AT_ONCE)
    graph = a_graph(
        ", ".join(f"p{name} -> f{name}" for name in names),
        modules={f"f{name}": ("FailModule", {"type": "PERMANENT"}) for name in names},
    )
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(graph)
        await stack.until("SELECT count(*) = $1 FROM executor.outbox", len(names))
        read.clear()
        dlq = ToldDlq()
        await outbox_of(stack, dlq).step()
        assert sorted(dlq.letters) == sorted(f"f{name}" for name in names)
        assert max(read) <= AT_ONCE


async def test_what_burnt_nothing_stands_in_no_letter(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        execution = await stack.run(failing("a"))
        row = await stack.row(execution.id, "a")
        await stack.sql.execute(
            """INSERT INTO executor.run_attempt (execution_id, run_id, epoch, attempt, outcome)
               SELECT $1, $2, n + 1000, 0, (ARRAY['SNOOZED', 'RELEASED', 'OMITTED'])[n % 3 + 1]
               FROM generate_series(1, 300) n""",
            UUID(execution.id),
            row["id"],
        )
        dlq = ToldDlq()
        await outbox_of(stack, dlq).step()
        [letter] = dlq.letters["a"]
        assert [attempt.outcome for attempt in letter.attempts] == ["PERMANENT"]


async def test_of_many_attempts_a_letter_has_the_first_and_the_last(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        execution = await stack.run(failing("a"))
        row = await stack.row(execution.id, "a")
        await stack.sql.execute(
            """INSERT INTO executor.run_attempt
                   (execution_id, run_id, epoch, attempt, outcome, error, error_stack_trace)
               SELECT $1, $2, n, n, 'TRANSIENT', repeat('e', 2000), repeat('s', 16000)
               FROM generate_series(2, 3000) n""",
            UUID(execution.id),
            row["id"],
        )
        await stack.sql.execute("UPDATE executor.run_quarantine SET attempt = 3000")
        dlq = ToldDlq()
        await outbox_of(stack, dlq).step()
        [letter] = dlq.letters["a"]
        numbers = [attempt.attempt for attempt in letter.attempts]
        assert (numbers[:10], numbers[-90:]) == (list(range(1, 11)), list(range(2911, 3001)))
        assert sum(len(attempt.stack_trace) > 0 for attempt in letter.attempts) == 20
        statement = f"SELECT count(*) FROM ({queries_reading.READ_TOLD_ATTEMPTS}) AS found"
        keys = [UUID(execution.id)], [row["id"]], [3000]
        assert await stack.sql.fetchval(statement, *keys, 10, 90, 20) == 100
        [run] = (await stack.runs(execution.id)).values()
        assert [attempt.attempt for attempt in run.attempts] == list(range(2801, 3001))
