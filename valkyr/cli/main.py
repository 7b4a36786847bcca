"""The entry point `valkyr`: the commands put together, and how the process ends."""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

# gRPC writes its own log lines to standard error unless told not to, and reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from valkyr.cli import (
    breaker_commands,
    dlq_commands,
    draft_commands,
    execution_commands,
    graph_commands,
    graph_compare_commands,
    graph_history_commands,
    module_commands,
    run_commands,
    runners_commands,
)
from valkyr.cli.exits import ExitCode, exit_code_table
from valkyr.cli.new_command import new
from valkyr.cli.runner_command import runner
from valkyr.cli.session import command
from valkyr.cli.trace_command import trace

EPILOG = f"""{exit_code_table()}

\b
Environment:
  VALKYR_GRAPH_STORE, VALKYR_EXECUTOR,
  VALKYR_BREAKER, VALKYR_DLQ            addresses, HOST:PORT
  VALKYR_PORT_BASE                      the ports of a local stack begin here (50051)
  VALKYR_NAMESPACE, VALKYR_PRINCIPAL    as --namespace and --principal
  VALKYR_OTLP_ENDPOINT                  where to send traces, such as http://localhost:4317
  NO_COLOR                              no colours
"""

app = typer.Typer(
    name="valkyr",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Without a name, the commands of an app stand beside those of the one that it is added to.
graph_commands.app.add_typer(graph_compare_commands.app)
graph_commands.app.add_typer(draft_commands.app, name="draft")
graph_commands.app.add_typer(graph_history_commands.app)
app.add_typer(graph_commands.app, name="graph")
app.add_typer(module_commands.app, name="modules")
app.add_typer(run_commands.app, name="run")
app.add_typer(execution_commands.app, name="execution")
app.command(name="trace", no_args_is_help=True)(command(trace))
app.command(name="runner")(command(runner, traced=False))
app.add_typer(runners_commands.app, name="runners")
app.command(name="new", no_args_is_help=True)(command(new))
app.add_typer(dlq_commands.app, name="dlq")
app.add_typer(breaker_commands.app, name="breaker")


def _print_version(asked: bool) -> None:
    if not asked:
        return
    try:
        typer.echo(f"valkyr {version('valkyr')}")
    except PackageNotFoundError:
        typer.echo("valkyr, run from a checkout that is not installed")
    raise typer.Exit


@app.callback()
def valkyr(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Valkyr, a durable workflow engine: save a workflow as a graph, run it, watch it to its end.

    \b
    A first round, with a stack running (`make up`):
      valkyr graph validate examples/hello.yaml
      valkyr graph save examples/hello.yaml
      valkyr run hello --payload '{"name": "Ada"}' --watch
      valkyr execution list

    \b
    When something failed:
      valkyr dlq list
      valkyr dlq get LETTER
      valkyr trace EXECUTION

    Every command takes --json: results as JSON on standard output, errors as JSON on standard error.
    """


def main() -> None:
    """Runs the command line and ends the process."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets it escaped instead of an exception.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="valkyr")
    except BrokenPipeError:
        # What is still buffered would raise again when Python closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.BROKEN_PIPE)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(ExitCode.INTERRUPTED)
