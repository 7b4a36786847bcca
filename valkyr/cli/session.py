"""What every command shares: where the services are, who calls, how to print, and how errors end."""

from __future__ import annotations

import asyncio
import functools
import getpass
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer

from valkyr import telemetry
from valkyr.cli.exits import ExitCode, exit_code_of
from valkyr.cli.graph_files import BadGraphFile
from valkyr.cli.own_words import in_own_words
from valkyr.cli.printing import Printer
from valkyr.client import Client
from valkyr.errors import Internal, InvalidGraph, InvalidRequest, ValkyrError

DEFAULT_PORT_BASE = 50051
EXECUTOR_OFFSET = 1
BREAKER_OFFSET = 2
DLQ_OFFSET = 3
CONNECT_TIMEOUT = timedelta(seconds=2)
"""A command that nobody answers says so before its user wonders."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, errors as JSON on standard error.")]
Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", envvar="VALKYR_NAMESPACE", metavar="NAME", help="Whose workflows."),
]
GraphStore = Annotated[
    str, typer.Option(envvar="VALKYR_GRAPH_STORE", metavar="HOST:PORT", help="Where the graph store is.")
]
Executor = Annotated[str, typer.Option(envvar="VALKYR_EXECUTOR", metavar="HOST:PORT", help="Where the executor is.")]
Breaker = Annotated[
    str, typer.Option(envvar="VALKYR_BREAKER", metavar="HOST:PORT", help="Where the breaker service is.")
]
Dlq = Annotated[str, typer.Option(envvar="VALKYR_DLQ", metavar="HOST:PORT", help="Where the dead letter queue is.")]
Principal = Annotated[
    str, typer.Option(envvar="VALKYR_PRINCIPAL", metavar="NAME", help="Who you are; the OS user by default.")
]

_SHARED: dict[str, tuple[Any, Any]] = {
    "as_json": (Json, False),
    "namespace": (Namespace, ""),
    "graph_store": (GraphStore, ""),
    "executor": (Executor, ""),
    "breaker": (Breaker, ""),
    "dlq": (Dlq, ""),
    "principal": (Principal, ""),
}

Command = Callable[..., Coroutine[Any, Any, ExitCode]]


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of a command. `namespace` is empty where the command line and the environment name none."""

    printer: Printer
    namespace: str
    graph_store: str
    executor: str
    breaker: str
    dlq: str
    principal: str

    def client(self, *, of_file: str = "") -> Client:
        """A client for the services named; use it with `async with`. `of_file` is the namespace that a file names.

        InvalidRequest where that is not the one of the command line or the environment.
        """
        if self.namespace and of_file and of_file != self.namespace:
            raise InvalidRequest.of_field(
                "namespace",
                f"the file says {of_file!r}, and --namespace or VALKYR_NAMESPACE says {self.namespace!r}; name one",
            )
        return Client(
            self.graph_store,
            self.executor,
            breaker=self.breaker,
            dlq=self.dlq,
            namespace=self.namespace or of_file or None,
            principal=self.principal,
            connect_timeout=CONNECT_TIMEOUT,
        )


def command(function: Command, *, traced: bool = True) -> Callable[..., None]:
    """Makes a coroutine of (session, ...) a typer command with the shared options; what it returns is the exit code.

    `traced`: all its calls are one trace; not so for what runs on and on, and has traces of its own.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _SHARED.items()
    ]

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in _SHARED}
        printer = Printer(as_json=options["as_json"])
        tracing = _traced() if traced else nullcontext()
        raise typer.Exit(_run(printer, lambda: function(_session(printer, options), **arguments), arguments, tracing))

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*keyword_only, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return run


def _run(
    printer: Printer,
    start: Callable[[], Coroutine[Any, Any, ExitCode]],
    arguments: dict[str, Any],
    tracing: AbstractContextManager[None],
) -> int:
    """The exit code, with errors printed: the one place where the CLI catches them."""
    try:
        with tracing:
            return asyncio.run(start())
    except ValkyrError as error:
        code = exit_code_of(error)
        printer.error(in_own_words(error, arguments), code)
        return code
    except BadGraphFile as error:
        refused = InvalidGraph(str(error), hint="each problem is named with its line")
        printer.refused(refused, ExitCode.BAD_INPUT, error.problems)
        return ExitCode.BAD_INPUT
    except (BrokenPipeError, typer.TyperException):
        raise
    except Exception as error:  # noqa: BLE001 - a user sees a sentence, never a traceback
        printer.error(_bug(error), ExitCode.INTERNAL)
        return ExitCode.INTERNAL


@contextmanager
def _traced() -> Iterator[None]:
    """One trace for all calls of the command, sent to the collector that VALKYR_OTLP_ENDPOINT names, if any."""
    endpoint = os.environ.get("VALKYR_OTLP_ENDPOINT")
    if not endpoint:
        yield
        return
    set_up = telemetry.configure("valkyr-cli", log_level="WARNING", otlp_endpoint=endpoint, stream=sys.stderr)
    try:
        with telemetry.tracer().start_as_current_span("valkyr"):
            yield
    finally:
        set_up.shutdown()


def _bug(error: Exception) -> Internal:
    if os.environ.get("VALKYR_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    return Internal(
        f"the command line broke: {type(error).__name__}: {error}",
        hint="this is a bug; run it again with VALKYR_DEBUG=1 and report what it prints",
    )


def _session(printer: Printer, options: dict[str, Any]) -> Session:
    return Session(
        printer=printer,
        namespace=options["namespace"],
        graph_store=options["graph_store"] or f"127.0.0.1:{_port_base()}",
        executor=options["executor"] or f"127.0.0.1:{_port_base() + EXECUTOR_OFFSET}",
        breaker=options["breaker"] or f"127.0.0.1:{_port_base() + BREAKER_OFFSET}",
        dlq=options["dlq"] or f"127.0.0.1:{_port_base() + DLQ_OFFSET}",
        principal=options["principal"] or _os_user(),
    )


def _port_base() -> int:
    text = os.environ.get("VALKYR_PORT_BASE", "")
    if not text:
        return DEFAULT_PORT_BASE
    if not text.isdecimal() or not 1 <= int(text) <= 65000:
        raise typer.BadParameter(f"VALKYR_PORT_BASE is {text!r}; give a port from 1 to 65000")
    return int(text)


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
