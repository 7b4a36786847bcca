"""The second act of the demo: four orders on a day when nothing works, and how all of them come to their end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from examples.story import LIMIT, DemoFailed, expect, expect_success, say, step, until
from examples.target_server import EXPIRED_CARD, TargetServer
from valkyr import Client, Start
from valkyr.cli.breaker_commands import BREAKER_COLUMNS, breaker_row
from valkyr.cli.graph_files import read_graph_file
from valkyr.cli.letter_view import print_letter
from valkyr.cli.printing import Printer, seconds
from valkyr.cli.trace_command import gather_trace, tree_of
from valkyr.client import Breaker, BreakerState, DeadLetter, Execution, ExecutionState, Run, RunState

ROUGH_DAY = Path(__file__).resolve().parent / "rough_day.yaml"
BREAKER_FAILURES = 3
BREAKER_PAUSE = timedelta(seconds=3)
ORDERS = ("B-1", "B-2", "B-3", "B-4")
UNLUCKY = ORDERS[0]
NEW_CARD = "VISA-NEW"
STUMBLES = 2

BREAKER_SETTINGS = {
    "VALKYR_BREAKER__FAILURE_THRESHOLD": str(BREAKER_FAILURES),
    "VALKYR_BREAKER__TIMEOUT_DURATION": f"PT{BREAKER_PAUSE.seconds}S",
}
"""A breaker that opens and tries again sooner than by default (5 failures, 30 s), so that nobody waits for the demo."""


async def a_rough_day(printer: Printer, client: Client, target: TargetServer) -> None:
    """Steps 5 to 9."""
    target.stumbles["/stock", UNLUCKY] = STUMBLES
    target.down.add("/vans")
    unlucky, *others = await start_orders(printer, client, target)
    await show_the_retries(printer, client, unlucky)
    await show_the_outage(printer, client, target, [unlucky, *others])
    letter = await show_the_letter(printer, client, unlucky)
    await mend(printer, client, letter)
    await show_the_trace(printer, client, unlucky)


async def start_orders(printer: Printer, client: Client, target: TargetServer) -> Sequence[Execution]:
    """Four executions, all in one call."""
    step(printer, 5, "Now things fail: four orders at once, on a day when no service is well (examples/rough_day.yaml)")
    saved = await client.graphs.save(read_graph_file(str(ROUGH_DAY)).document.value)
    cards = {order: EXPIRED_CARD if order == UNLUCKY else NEW_CARD for order in ORDERS}
    return await client.executions.start_many(
        [
            Start(saved.workflow.id, payload={"services": target.url, "order": {"id": order, "card": cards[order]}})
            for order in ORDERS
        ]
    )


async def show_the_retries(printer: Printer, client: Client, unlucky: Execution) -> None:
    """Step 5: the first run of the unlucky order needs three attempts."""
    run = await run_when(client, unlucky, "check_stock", RunState.SUCCESS)
    outcomes = [attempt.outcome for attempt in run.attempts]
    expected = ["TRANSIENT"] * STUMBLES + ["SUCCESS"]
    expect(outcomes == expected, f"check_stock of {UNLUCKY}: expected the attempts {expected}, got {outcomes}")
    say(printer, f"The stock answers 503 to order {UNLUCKY} at first. That may pass, so it is tried again:")
    for before, after in pairwise(run.attempts):
        if before.finished_at is None or after.started_at is None:
            raise DemoFailed(f"check_stock of {UNLUCKY}: attempt {before.attempt} has no times")
        wait = seconds((after.started_at - before.finished_at).total_seconds())
        say(printer, f"  attempt {before.attempt}: {before.error}; waited {wait}")
    say(printer, f"  attempt {len(run.attempts)}: SUCCESS. The waits grow and are random, so that a crowd of runs")
    say(printer, "  does not come back all at once.")


async def show_the_outage(printer: Printer, client: Client, target: TargetServer, orders: Sequence[Execution]) -> None:
    """Step 6: the carrier's breaker opens, the runs wait, it comes back, they go on."""
    step(printer, 6, "The carrier is down: its breaker opens, and the runs that need it wait instead of failing")

    async def all_parked() -> tuple[list[Run], Sequence[Breaker]] | None:
        runs = [await run_of(client, order, "book_van") for order in orders]
        opened = await client.breakers.list(states=[BreakerState.OPEN]).all()
        return (runs, opened) if opened and all(run.state is RunState.PARKED for run in runs) else None

    parked, breakers = await until(all_parked, "a breaker opens, and all four book_van are PARKED")
    expect([breaker.target for breaker in breakers] == ["carrier"], f"expected one open breaker, got {breakers}")
    asked = target.calls.count("/vans")
    say(printer, f"After {BREAKER_FAILURES} failures in a row nobody calls it any more. `valkyr breaker list` says:")
    printer.table(BREAKER_COLUMNS, [breaker_row(breaker) for breaker in breakers])
    spared = sum(not run.attempts for run in parked)
    spared_too = f"; {spared} of them never had to call it" if spared else ""
    say(printer, f"All four runs are PARKED: they hold no slot and burn no attempt{spared_too}.")
    say(
        printer,
        f"(This stack was told to open after {BREAKER_FAILURES} and to try again after "
        f"{seconds(BREAKER_PAUSE.total_seconds())}; by default it is 5 and 30 s.)",
    )
    target.down.remove("/vans")
    say(printer, f"The carrier is repaired now; it was asked {asked} times while it was down. A few runs go first, as")
    say(printer, "probes; when two have succeeded the breaker closes, and the others follow:")
    began = time.monotonic()
    for order in orders:
        await run_when(client, order, "book_van", RunState.SUCCESS)
    say(printer, f"all four vans are booked, {seconds(time.monotonic() - began)} later.")

    async def closed() -> bool | None:
        return (await client.breakers.get("carrier")).state is BreakerState.CLOSED or None

    await until(closed, "the carrier's breaker is CLOSED")
    for order in orders[1:]:
        expect_success(await client.executions.wait(order.id, timeout=LIMIT))
    say(printer, f"The breaker is CLOSED, and {len(orders) - 1} of the four orders are done.")


async def show_the_letter(printer: Printer, client: Client, unlucky: Execution) -> DeadLetter:
    """Step 7: what no retry mends is quarantined, and a letter says all about it."""
    step(printer, 7, f"Order {UNLUCKY} fails for good: its card has expired, and no retry mends that")
    execution = await client.executions.wait(unlucky.id, timeout=LIMIT)
    failed = execution.state is ExecutionState.FAILED
    expect(failed, f"execution {execution.id} is {execution.state}; it should have FAILED on its card")

    async def arrived() -> str | None:
        letters = await client.dead_letters.list(execution_id=unlucky.id).all()
        return letters[0].id if letters else None

    letter = await client.dead_letters.get(await until(arrived, f"the dead letter of {UNLUCKY} arrives"))
    expect(letter.node_id == "charge_card" and letter.pending, f"expected a letter of charge_card, got {letter}")
    say(printer, "Its execution is FAILED, but nothing is lost. `valkyr dlq get` shows the letter:")
    printer.line("")
    print_letter(printer, letter, stack_lines=1)
    printer.line("")
    return letter


async def mend(printer: Printer, client: Client, letter: DeadLetter) -> None:
    """Step 8: requeued with other inputs, the execution goes on and reaches SUCCESS."""
    step(printer, 8, "Ada has sent another card: the letter is mended and requeued")
    inputs = letter.original_inputs
    order = inputs["trigger"]["order"]
    expired, order["card"] = order["card"], NEW_CARD
    say(printer, f"In its inputs, trigger.order.card is changed: {expired} -> {NEW_CARD}")
    say(printer, f"valkyr dlq requeue {letter.id} --inputs @mended.json")
    settled = await client.dead_letters.requeue(letter.id, inputs=inputs, reason="Ada has sent another card")
    expect(not settled.pending, f"the letter {letter.id} is still {settled.resolution}")

    async def ended() -> Execution | None:
        execution = await client.executions.get(letter.execution_id)
        return execution if execution.state is ExecutionState.SUCCESS else None

    execution = await until(ended, f"execution {letter.execution_id} is SUCCESS", limit=timedelta(seconds=20))
    say(printer, f"The letter is {settled.resolution}; the execution went on where it had stopped and is SUCCESS:")
    say(printer, f"{execution.outputs['confirm']}")
    runs = await client.executions.list_runs(execution.id).all()
    again = {run.node_id: len(run.attempts) for run in runs}
    say(printer, f"What was done before was not done again: attempts {again}.")


async def show_the_trace(printer: Printer, client: Client, unlucky: Execution) -> None:
    """Step 9: the whole story of one execution, told by four services."""
    step(printer, 9, f"`valkyr trace` shows the whole day of order {UNLUCKY}, from what all four services have stored")
    lines = tree_of(await gather_trace(client, unlucky.id))
    for line in lines:
        printer.line("  ", line)
    text = "\n".join(line.plain for line in lines)
    for part in ("[graph_store]", "back-off", "[breaker]", "parked", "quarantine 1", "[dlq]", "requeued"):
        expect(part in text, f"the trace of {unlucky.id} does not show {part!r}")


async def run_of(client: Client, execution: Execution, node_id: str) -> Run:
    """The run of a node."""
    return next(run for run in await client.executions.list_runs(execution.id).all() if run.node_id == node_id)


async def run_when(client: Client, execution: Execution, node_id: str, state: RunState) -> Run:
    """The run of a node once it is in this state."""

    async def look() -> Run | None:
        run = await run_of(client, execution, node_id)
        return run if run.state is state else None

    return await until(look, f"{node_id} of {execution.id} is {state}")
