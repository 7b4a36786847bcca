"""`make demo`: a stack of its own, an order on its way, three real graphs, and then a day on which everything fails. It
leaves nothing running.

Exit code 0 if all went well, 1 if something failed (what is said), 130 on Ctrl-C, 143 on SIGTERM,
141 when nobody reads any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from examples.rough_day import BREAKER_SETTINGS, a_rough_day
from examples.story import LIMIT, STEPS, DemoFailed, expect_success, say, step
from examples.target_server import TargetServer
from services.local.errors import StackError
from services.local.stack import LocalStack
from valkyr import Client, ValkyrError, WorkflowInfo
from valkyr.cli.following import follow
from valkyr.cli.graph_files import BadGraphFile, read_graph_file
from valkyr.cli.printing import Printer, clean, seconds
from valkyr.cli.views import view_for

ROOT = Path(__file__).resolve().parents[1]
ORDER = ROOT / "examples" / "order_fulfilment.yaml"
REAL_GRAPHS = (
    ("galaxy-rnaseq-pe-ga-d1a60a84.json", "an RNA sequencing pipeline of the Galaxy project"),
    ("bpmn-c-5-0-bpmn-ae58a182.json", "a business process in BPMN"),
    ("lock-hatchet-dev-hatchet-uv-lock-986afedd.json", "the dependencies of a Python project"),
)
COMPLAINTS = ('"level":"error"', '"level":"critical"', "ERROR:", "FATAL:", "PANIC:")
KEPT_VARIABLES = ("VALKYR_POSTGRES_BIN", "VALKYR_DEBUG")


def main() -> int:
    """The whole demo; the exit code."""
    signal.signal(signal.SIGTERM, _end)
    began = time.monotonic()
    printer = Printer(as_json=False)
    try:
        with tempfile.TemporaryDirectory(prefix="valkyr-demo-") as home, TargetServer() as target:
            show(printer, Path(home), target)
    except KeyboardInterrupt:
        printer.remark("interrupted; everything is stopped")
        return 130
    except (DemoFailed, ValkyrError, StackError, BadGraphFile) as error:
        hint = getattr(error, "hint", "")
        for line in f"the demo failed: {error}\n{f'hint: {hint}' if hint else ''}".splitlines():
            printer.remark(line)
        return 1
    except BrokenPipeError:
        # What is still buffered would raise again when Python closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    printer.line(f"That was Valkyr, in {seconds(time.monotonic() - began)}; nothing is left running.")
    printer.line("Next: `make up` for a stack that stays, then `valkyr --help`.")
    return 0


def show(printer: Printer, home: Path, target: TargetServer) -> None:
    """Starts the stack, tells the story, stops the stack whatever happens."""
    step(printer, 1, "Starting a stack of its own: PostgreSQL and the four services")
    say(printer, f"Its data lie in {home} and are gone afterwards.")
    stack = LocalStack(home, free_ports(4), extra_env=stack_settings(target))
    began = time.monotonic()
    try:
        with deferred():
            stack.start()
        say(printer, f"Up and healthy after {seconds(time.monotonic() - began)}.")
        asyncio.run(tell(printer, stack, target))
    except (DemoFailed, ValkyrError):
        tell_the_logs(printer, stack)
        raise
    finally:
        with uninterrupted():
            try:
                step(printer, STEPS, "Stopping everything")
            finally:
                stack.stop()


def stack_settings(target: TargetServer) -> dict[str, str]:
    """What this stack allows beside the defaults; of the caller's own VALKYR_ variables nothing applies here."""
    for name in [name for name in os.environ if name.startswith("VALKYR_") and name not in KEPT_VARIABLES]:
        del os.environ[name]
    return {
        "VALKYR_EXECUTOR__RUNNER__HTTP__ALLOW_HOSTS": target.host,
        "VALKYR_EXECUTOR__RUNNER__MODULES": "examples.my_modules",
        "VALKYR_EXECUTOR__RUNNER__UNKNOWN_AS_NOOP": "true",
        **BREAKER_SETTINGS,
    }


async def tell(printer: Printer, stack: LocalStack, target: TargetServer) -> None:
    """Steps 2 to 9."""
    at = stack.addresses
    async with Client(
        at["graph_store"], at["executor"], breaker=at["breaker"], dlq=at["dlq"], principal="demo"
    ) as client:
        await run_the_order(printer, client, target)
        await run_real_graphs(printer, client)
        await a_rough_day(printer, client, target)


async def run_the_order(printer: Printer, client: Client, target: TargetServer) -> None:
    """Steps 2 and 3: the example is saved, run, watched, and held against what it should have done."""
    step(printer, 2, f"Saving {ORDER.relative_to(ROOT)}: validated, then stored whole as version 1")
    saved = await client.graphs.save(read_graph_file(str(ORDER)).document.value, message="the demo's first save")
    nodes, edges = len(saved.graph.nodes), len(saved.graph.edges)
    say(printer, f"Workflow {saved.workflow.id}, {nodes} nodes, {edges} edges; version {saved.workflow.version}.")

    step(printer, 3, "Running it: three checks at once, a join, one of two branches, calls to services over HTTP")
    say(printer, f"The services it calls are one small server at {target.url}, which this stack was told to allow;")
    say(
        printer, "by default Valkyr's HTTP module refuses addresses of the own network. The pause of 2 s holds no slot."
    )
    order = {"id": "A-1001", "customer": "Ada", "country": "DE", "items": [{"sku": "KEY-1", "quantity": 2}]}
    started = await client.executions.start(saved.workflow.id, payload={"services": target.url, "order": order})
    with view_for(printer) as view:
        execution = await follow(client, started, view, timeout=LIMIT)
    expect_success(execution)
    counts = dict(execution.run_counts)
    if counts != {"SUCCESS": nodes - 1, "SKIPPED": 1}:
        raise DemoFailed(f"expected {nodes - 1} runs to succeed and one to be skipped, got {counts}")
    say(printer, f"{counts['SUCCESS']} runs succeeded; manual_review was skipped, its condition did not hold.")
    say(printer, f"It answered: {json.dumps(execution.outputs['close_order'], ensure_ascii=False)}")
    say(printer, f"The services saw {len(target.calls)} calls: {', '.join(target.calls)}.")


async def run_real_graphs(printer: Printer, client: Client) -> None:
    """Step 4: graphs that nobody made for Valkyr."""
    step(printer, 4, "Three graphs from the real world; classes that nobody knows run as Noop, by a setting")
    for name, what in REAL_GRAPHS:
        graph_file = read_graph_file(str(ROOT / "tests" / "data" / "graphs" / name))
        saved = await client.graphs.save(graph_file.graph, workflow=WorkflowInfo(name=Path(name).stem))
        started = time.monotonic()
        execution = await client.executions.start(saved.workflow.id)
        execution = await client.executions.wait(execution.id, timeout=LIMIT)
        took = seconds(time.monotonic() - started)
        expect_success(execution)
        counts = (await client.executions.get(execution.id)).run_counts
        if counts != {"SUCCESS": len(saved.graph.nodes)}:
            raise DemoFailed(f"{name}: expected {len(saved.graph.nodes)} runs to succeed, got {dict(counts)}")
        size = f"{len(saved.graph.nodes)} nodes, {len(saved.graph.edges)} edges"
        say(printer, f"{what}: {size}, {len(saved.warnings)} warnings; SUCCESS in {took}")


def tell_the_logs(printer: Printer, stack: LocalStack) -> None:
    """What the services complained of last, for whoever looks for the reason: the folder will be gone."""
    for log in sorted(stack.home.logs.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        for line in [line for line in lines if any(mark in line for mark in COMPLAINTS)][-5:]:
            printer.remark(f"  {log.name}: {clean(line)}")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody uses."""
    # None of those that systems take for outgoing connections: one may be taken before the services listen.
    for first in random.sample(range(10_000, 20_000), 100):
        if all(_is_free(first + offset) for offset in range(count)):
            return first
    raise DemoFailed("there are no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C does not interrupt the cleaning up."""
    with handling(signal.SIG_IGN):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM counts when the block is done: in the middle of starting a process nobody would know
    which to stop. The second counts at once."""
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if asked:
            _end(number, frame)
        asked.append(number)

    with handling(remember):
        yield
    if asked:
        _end(asked[0], None)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to `handler` meanwhile."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _end(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
