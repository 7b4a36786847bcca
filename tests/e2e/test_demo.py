"""`make demo` as a newcomer runs it: it tells its story, ends with 0, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.local.home import PROJECT
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NEVER_HANGS = 120.0


@contextmanager
def the_demo(folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The demo's process, its output in `folder`/said, its temporary files in `folder`/tmp."""
    temporary = folder / "tmp"
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_")}
    environment = kept | {"TMPDIR": str(temporary), "NO_COLOR": "1"} | more
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo"],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            text=True,
            env=environment,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def said(folder: Path) -> str:
    return (folder / "said").read_text()


def left_running(folder: Path) -> list[str]:
    """Processes that were started with the demo's folder for temporary files, or that name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if process.name != str(os.getpid()) and str(folder / "tmp").encode() in command + b"\0" + environment:
            found.append(f"{process.name} {command.decode(errors='replace')}")
    return found


def expect_nothing_left(folder: Path) -> None:
    wait_until(lambda: not left_running(folder), f"gone: {left_running(folder)}")
    assert list((folder / "tmp").iterdir()) == []


def test_the_demo_runs_an_order_three_real_graphs_and_a_rough_day_and_leaves_nothing(tmp_path: Path) -> None:
    # A stack of its own: what the caller has set up for another one does not touch it.
    with the_demo(tmp_path, VALKYR_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", VALKYR_PORT_BASE="1") as demo:
        assert demo.wait(NEVER_HANGS) == 0, said(tmp_path)
    story = said(tmp_path)
    for headline in range(1, 11):
        assert f"[{headline}/10]" in story
    assert "11 runs succeeded; manual_review was skipped" in story
    assert "Thank you, Ada: we took 98.00 EUR." in story
    assert "The services saw 5 calls: /quotes" in story
    assert story.count("warnings; SUCCESS in") == 3
    for told in (
        "attempt 3: SUCCESS",
        "carrier  OPEN",
        "All four runs are PARKED",
        "The breaker is CLOSED, and 3 of the four orders are done.",
        "PENDING\nwhat      charge_card (HttpRequestModule), failed in a way that no retry mends",
        "trigger.order.card is changed: VISA-OLD -> VISA-NEW",
        "The letter is REQUEUED; the execution went on where it had stopped and is SUCCESS",
        "─ back-off",
        "[graph_store] version 1",
        "[breaker] waited for carrier",
        "[dlq] by demo",
    ):
        assert told in story, f"{told!r} is not in\n{story}"
    assert 'File "' not in story, "a whole traceback is no part of the story"
    assert "nothing is left running" in story
    expect_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        (signal.SIGINT, 130, "WAITING  grace_period"),
        (signal.SIGTERM, 143, "WAITING  grace_period"),
        (signal.SIGINT, 130, "[1/10]"),
    ],
    ids=["ctrl-c while it runs", "sigterm while it runs", "ctrl-c while it starts"],
)
def test_an_interrupted_demo_stops_what_it_started(
    number: signal.Signals, code: int, moment: str, tmp_path: Path
) -> None:
    with the_demo(tmp_path) as demo:
        wait_until(lambda: moment in said(tmp_path), moment, timeout=NEVER_HANGS)
        demo.send_signal(number)
        assert demo.wait(NEVER_HANGS) == code, said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    expect_nothing_left(tmp_path)


def test_a_demo_that_cannot_start_says_why_and_ends_with_1(tmp_path: Path) -> None:
    with the_demo(tmp_path, VALKYR_POSTGRES_BIN=str(tmp_path / "nothing-here")) as demo:
        assert demo.wait(NEVER_HANGS) == 1
    assert "the demo failed: the stack did not come up" in said(tmp_path)
    assert "nothing-here" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    expect_nothing_left(tmp_path)
