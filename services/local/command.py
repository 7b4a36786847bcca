"""The command `python -m services`: reads the environment, brings the stack up, says so, and waits for the end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

from services.local.errors import StackError
from services.local.home import home_at
from services.local.ports import parse_port_base
from services.local.rooms import DEFAULT_PORT_BASE, HOST
from services.local.speech import BOLD, DIM, GREEN, RED, Speech
from services.local.supervisor import StackSettings, Supervisor, without_password

DESCRIPTION = """Valkyr's local stack: an embedded PostgreSQL 18 and every service as a process, on this machine alone.

Starts PostgreSQL in the home folder, migrates it, starts the services, waits until all are healthy, starts again
whatever dies, and stops everything on Ctrl-C. After a kill -9 or a power cut the next start has all the data."""

EPILOG = """environment:
  VALKYR_HOME            data, sockets and logs; default .valkyr beside the project. One stack per home.
  VALKYR_PORT_BASE       first port, default 50051: graph store there, executor on the next one.
  VALKYR_DATABASE_URL    a PostgreSQL of your own (15 to 18); none is started then.
                         postgresql://user:password@host:5432/valkyr
  VALKYR_POSTGRES_BIN    the folder of another `postgres` and `initdb` than the embedded ones.
  VALKYR_CONFIG          a YAML file with the services' settings. Every VALKYR_<SECTION>__<KEY> goes to them too.
  NO_COLOR               no colours on the terminal.

exit codes:
  0  stopped as asked (Ctrl-C, SIGTERM)
  1  could not come up: one line says why, the next how to mend it
  2  wrong arguments
  n  with a COMMAND: its exit code, or 128 + the number of the signal that ended it

examples:
  python -m services
  VALKYR_HOME=/tmp/second VALKYR_PORT_BASE=50151 python -m services        a second stack beside the first
  python -m services -- valkyr graph list                                  a stack for one command
  rm -r .valkyr                                                            forget everything (when stopped)"""


OPENNESS = (
    "Calls are neither encrypted nor authenticated; servers listen on loopback only, unless server.host says otherwise."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until stopped; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m services",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="also stop when standard input ends, as programs that drive it need",
    )
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="run this (after --) when all is up, then stop everything"
    )
    chosen = parser.parse_args(arguments)
    speech = Speech()
    try:
        settings = StackSettings(
            home_at(os.environ.get("VALKYR_HOME")),
            parse_port_base(os.environ.get("VALKYR_PORT_BASE")),
            database_url=_own_database(os.environ.get("VALKYR_DATABASE_URL")),
            postgres_bin=os.environ.get("VALKYR_POSTGRES_BIN") or None,
        )
        return asyncio.run(run(settings, speech, command=chosen.command, until_stdin=chosen.until_stdin_closes))
    except StackError as error:
        complain(error)
    except OSError as error:
        complain(StackError(f"{error.filename or 'the system'}: {error.strerror or error}"))
    return 1


def _own_database(url: str | None) -> str | None:
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise StackError(
            "VALKYR_DATABASE_URL does not begin with postgresql://",
            hint="it takes postgresql://user:password@host:5432/valkyr, or is left out to start a PostgreSQL here",
        )
    return url or None


async def run(
    settings: StackSettings, speech: Speech, *, command: Sequence[str] = (), until_stdin: bool = False
) -> int:
    """The life of one stack. Raises StackError if it cannot come up, after stopping what it began."""
    supervisor, asked_to_stop = Supervisor(settings, speech), asyncio.Event()
    impatient = asyncio.Event()
    _listen_for_the_end(asked_to_stop, impatient, speech, until_stdin=until_stdin)
    code = 0
    try:
        if await _unless(asked_to_stop, supervisor.start()):
            announce(supervisor, speech, stays=not command)
            if command:
                code = await _run_command(command, supervisor, asked_to_stop)
            else:
                await _unless(asked_to_stop, supervisor.keep())
    finally:
        hurry = asyncio.create_task(_hurry(supervisor, impatient))
        await supervisor.stop()
        hurry.cancel()
    speech.say("Valkyr has stopped.", DIM)
    return code


def complain(error: StackError) -> None:
    """What is wrong, then how to mend it, on standard error."""
    speech = Speech(sys.stderr)
    speech.say(f"{speech.paint('error:', RED)} {error}")
    if error.hint:
        speech.say(f" {speech.paint('hint:', BOLD)} {error.hint}")


def announce(supervisor: Supervisor, speech: Speech, *, stays: bool) -> None:
    """What runs where, and what to try next."""
    settings = supervisor.settings
    ready = "Valkyr is up" + (", in this terminal; Ctrl-C stops everything." if stays else ".")
    speech.say(speech.paint(ready, GREEN))
    for service in supervisor.services:
        speech.say(f"  {service.room.name:<12} {service.address:<18} pid {service.pid:<8} {_short(service.log)}")
    url = without_password(supervisor.database_url)
    if settings.database_url is None:
        speech.say(f"  {'postgres':<12} {_short(settings.home.data):<31} {_short(settings.home.logs / 'postgres.log')}")
    speech.say(f"  {'database':<12} {url}")
    speech.say(OPENNESS, DIM)
    if stays:
        speech.say("Try next, in another terminal:", BOLD)
        for line in _suggestions(settings.port_base):
            speech.say(f"  {line}")


def _suggestions(port_base: int) -> list[str]:
    folder = Path(sys.executable).parent
    there = "" if port_base == DEFAULT_PORT_BASE else f"VALKYR_PORT_BASE={port_base} "
    return [
        f"{there}{_short(folder / 'valkyr')} graph save examples/hello.yaml",
        f"{there}{_short(folder / 'valkyr')} run hello --watch",
        f"{_short(folder / 'grpcurl')} -plaintext {HOST}:{port_base} list",
    ]


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _listen_for_the_end(asked: asyncio.Event, impatient: asyncio.Event, speech: Speech, *, until_stdin: bool) -> None:
    """Says which signal it was. SIGHUP is left ignored where it is, as by nohup."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if asked.is_set():
            impatient.set()
            speech.say(f"{number.name} again: stopping without draining ...", DIM)
        else:
            asked.set()
            speech.say(f"Stopping: {number.name} was received (once more stops without draining) ...", DIM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal, number)
    if until_stdin:

        def on_input() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                speech.say("Stopping: standard input has ended ...", DIM)
                asked.set()

        try:
            loop.add_reader(0, on_input)
        except PermissionError:
            raise StackError("--until-stdin-closes needs a pipe as standard input", hint="leave it out") from None


async def _unless(stop: asyncio.Event, work: Coroutine[object, object, object]) -> bool:
    """Does the work and returns True, or, when `stop` is set first, cancels it and returns False."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        return False
    doing.result()
    return True


async def _hurry(supervisor: Supervisor, impatient: asyncio.Event) -> None:
    await impatient.wait()
    await supervisor.kill_services()


async def _run_command(command: Sequence[str], supervisor: Supervisor, stop: asyncio.Event) -> int:
    """The command's exit code. It shares our terminal and so gets its Ctrl-C itself; SIGTERM is passed on to it."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env=supervisor.environment)
    except OSError as error:
        raise StackError(
            f"{shlex.join(command)} cannot be run: {error.strerror}", hint="name a program that exists"
        ) from error
    keeping = asyncio.create_task(supervisor.keep())
    try:
        if not await _unless(stop, process.wait()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        code = await process.wait()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    return code if code >= 0 else 128 - code
