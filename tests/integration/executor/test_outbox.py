"""The outbox keeps what the DLQ has not answered; what it never will have holds up nothing; letters fit. I15, I21."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from services.executor.gateways import Told
from services.executor.model import Letter, OutboxRow
from services.executor.outbox import Outbox
from tests.builders import a_graph
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.errors import LimitExceeded, Unavailable
from valkyr.graph.model import Graph

ONE_ATTEMPT = {"retry": {"backoff_base_ms": 1, "backoff_max_ms": 1, "max_attempts": 1}}


class ToldDlq:
    """Keeps what it is told; refuses whatever holds a node of `poison`, and everything while `away`."""

    def __init__(self, *, poison: frozenset[str] = frozenset(), away: bool = False) -> None:
        self.letters: dict[str, list[Letter]] = {}
        self.resolved: list[OutboxRow] = []
        self.poison = poison
        self.away = away
        self.calls = 0

    async def tell(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        self.calls += 1
        if self.away:
            raise Unavailable("the DLQ does not answer", retry_after=timedelta(seconds=1))
        rows = [entry.row if isinstance(entry, Letter) else entry for entry in entries]
        if any(row.node_id in self.poison for row in rows):
            raise LimitExceeded("the request is too large")
        for entry in entries:
            if isinstance(entry, Letter):
                self.letters.setdefault(entry.row.node_id, []).append(entry)
            else:
                self.resolved.append(entry)
        return Told([row.id for row in rows], {})


def outbox_of(stack: Stack, dlq: ToldDlq) -> Outbox:
    parts = stack.app.parts
    return Outbox(parts.session, parts.cache, dlq)  # type: ignore[arg-type]


async def kept(stack: Stack) -> list[tuple[str, str | None]]:
    rows = await stack.sql.fetch(
        """SELECT r.node_id, o.problem FROM executor.outbox o
           JOIN executor.run r ON r.execution_id = o.execution_id AND r.id = o.run_id ORDER BY o.id"""
    )
    return [(row[0], row[1]) for row in rows]


def failing(nodes: str, **config: Any) -> Graph:
    names = [name.strip() for name in nodes.split(",")]
    return a_graph(nodes, modules=dict.fromkeys(names, ("FailModule", {"type": "PERMANENT", **config})))


async def test_i15_what_was_not_answered_is_kept_and_told_when_the_dlq_is_back(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a, b"))
        dlq = ToldDlq(away=True)
        outbox = outbox_of(stack, dlq)
        first, second = await outbox.step(), await outbox.step()
        assert first is not None
        assert second is not None
        assert timedelta() < first < second
        assert [node for node, _ in await kept(stack)] == ["a", "b"]
        dlq.away = False
        assert await outbox.step() is None
        assert (sorted(dlq.letters), await kept(stack)) == (["a", "b"], [])


async def test_i15_a_letter_that_the_dlq_never_will_have_holds_up_no_other(make_stack: OpenStack) -> None:
    async with make_stack(runner=ONE_ATTEMPT) as stack:
        await stack.run(failing("a, b, c"))
        dlq = ToldDlq(poison=frozenset({"b"}))
        assert await outbox_of(stack, dlq).step() is None
        assert sorted(dlq.letters) == ["a", "c"]
        [(node, problem)] = await kept(stack)
        assert node == "b"
        assert problem is not None
        assert "too large" in problem
        calls = dlq.calls
        assert await outbox_of(stack, dlq).step() is None
        assert dlq.calls == calls


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
