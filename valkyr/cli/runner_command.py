"""valkyr runner: runs your modules for executors anywhere."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from valkyr import telemetry
from valkyr.cli.exits import ExitCode, exit_code_of
from valkyr.cli.option_values import read_duration
from valkyr.cli.printing import Printer
from valkyr.cli.session import Session
from valkyr.errors import InvalidRequest, RunnerReplaced, ValkyrError
from valkyr.module import ModuleSpec, registered_modules
from valkyr.modules import builtin_modules, reaching
from valkyr.runner.last_resort import end_soon
from valkyr.runner.program import GRACE, Program, run_program

_PORT_AT_END = re.compile(r":\d+$|^unix:")
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


async def runner(
    session: Session,
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE]...", help="Python modules whose @module functions it runs, importable here."),
    ] = None,
    pool: Annotated[str, typer.Option(metavar="NAME", help="Whose runs it takes: those of nodes with this pool.")] = (
        "default"
    ),
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=1_000, help="Runs at a time.")] = 10,
    runner_id: Annotated[
        str,
        typer.Option(
            "--id",
            envvar="RUNNER_ID",
            metavar="ID",
            help="What it is called; a new name for every process unless given. A process that starts under the id of"
            " another takes its runs over.",
        ),
    ] = "",
    grace: Annotated[
        timedelta | None,
        typer.Option(
            parser=read_duration,
            metavar="DURATION",
            help="How long runs may go on once it is to end, as in 90s or 5m; 30s unless given.",
        ),
    ] = None,
    unknown_as_noop: Annotated[
        bool,
        typer.Option("--unknown-as-noop", help="Runs classes that nobody has written yet as if they did nothing."),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Modules may call it at an inner address, also without TLS; repeatable."
        ),
    ] = None,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Modules may call addresses in it, such as 10.1.0.0/16; again for more."),
    ] = None,
    credentials: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="For EmailModule: a folder for each name, with username, password, host."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(envvar="VALKYR_LOG_LEVEL", help="Of its log lines.")] = "INFO",
) -> ExitCode:
    """Runs your modules, and those that come with Valkyr, for the executor at --executor.

    It calls, and is never called: it needs no port. It registers, takes runs of its pool, says every two seconds that
    it is alive, and reports what became of each. Executors may come and go; what it holds it keeps.

    SIGTERM or Ctrl-C drains it: nothing new is taken, what has not started goes back, the rest has --grace to end. A
    second one ends it now: its runs are taken over by others when their leases run out.

    \b
    Examples:
      valkyr runner my_modules
      valkyr runner payments.modules --pool payments --executor executor.internal:50052 -c 50
      valkyr runner --unknown-as-noop                   to try graphs whose modules are not written yet
    """
    if not _PORT_AT_END.search(session.executor):
        raise InvalidRequest.of_field(
            "executor", f"{session.executor!r} has no port", hint="HOST:PORT, as in 127.0.0.1:50052"
        )
    found = _imported(modules or [])
    settings = _settings(allow_host or (), allow_network or (), credentials)
    endpoint = os.environ.get("VALKYR_OTLP_ENDPOINT")
    set_up = telemetry.configure(
        "valkyr-runner",
        log_level=log_level,
        log_format="json" if session.printer.as_json else "auto",
        otlp_endpoint=endpoint,
    )
    program = Program(
        session.executor,
        found,
        namespace=session.namespace or "default",
        runner_id=runner_id,
        pool=pool,
        concurrency=concurrency,
        grace=GRACE if grace is None else grace,
        unknown_as_noop=unknown_as_noop,
        principal=session.principal,
        settings=settings,
    )
    try:
        return await _run_to_the_end(program, session.printer)
    finally:
        set_up.shutdown()


async def _run_to_the_end(program: Program, printer: Printer) -> ExitCode:
    """What there is to be said is said here: modules that go on keep the rest of the process from its end."""
    try:
        code = ExitCode.OK if await run_program(program) else ExitCode.INTERRUPTED
    except RunnerReplaced as error:
        code = exit_code_of(error)
        printer.error(error, code)
    except ValkyrError:  # it was not let in, and has run nothing
        raise
    except Exception:
        end_soon(ExitCode.INTERNAL)
        raise
    end_soon(code)
    return code


def _settings(hosts: Collection[str], networks: Collection[str], credentials: str | None) -> Mapping[str, Any]:
    """Where modules may call. InvalidRequest."""
    if credentials is not None and not Path(credentials).is_dir():
        raise InvalidRequest.of_field(
            "--credentials", f"{credentials} is no folder here", hint="it has a folder for each name that mails give"
        )
    try:
        return reaching(hosts, networks, credentials)
    except ValueError as error:
        raise InvalidRequest.of_field("--allow-network", str(error), hint="write it as 10.1.0.0/16") from error


def _imported(names: Sequence[str]) -> Mapping[str, ModuleSpec]:
    """What importing them registers, with what comes with Valkyr. InvalidRequest."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    before = registered_modules()
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a program without `if __name__ == "__main__"` may end itself
            raise _not_imported(name, error) from error
    if names and registered_modules().keys() == before.keys():
        raise InvalidRequest.of_field(
            "MODULE",
            f"{', '.join(names)} has no module: no function in it is decorated with @module",
            hint='from valkyr import module; @module("MyModule")',
        )
    return {**builtin_modules(), **registered_modules()}


def _not_imported(name: str, error: BaseException) -> InvalidRequest:
    if "/" in name or name.endswith(".py"):
        dotted = name.removesuffix(".py").replace("/", ".").strip(".")
        return InvalidRequest.of_field("MODULE", f"{name} is a file", hint=f"give the module's name: {dotted}")
    if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{name}.".startswith(f"{error.name}."):
        return InvalidRequest.of_field(
            "MODULE",
            f"there is no Python module {error.name!r} here",
            hint="run it in the folder that holds it, or install it",
        )
    return InvalidRequest.of_field(
        "MODULE",
        f"{name} fails when it is imported: {type(error).__name__}: {error}",
        hint=f"`python -c 'import {name}'` shows where",
    )
