"""valkyr dlq: look at what failed for good, and requeue, fix or discard it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.text import Text

from valkyr.cli.by_example import Asked, by_example
from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.letter_view import print_letter, why_it_cannot_go_on
from valkyr.cli.option_values import read_json_value
from valkyr.cli.printing import moment, state_text
from valkyr.cli.run_commands import Deadline, Force, Inputs, NewKey, Outputs, Reason
from valkyr.cli.session import CONNECT_TIMEOUT, Session, command
from valkyr.cli.workflows import workflow_id_of
from valkyr.client import Client, DeadLetter, DeadLetterType, Resolution
from valkyr.errors import ValkyrError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Dead letters: what failed for good, and what to do about it.",
    help="""Dead letters: runs that failed for good, with all that is needed to replay them.

    \b
    The way through a bad night:
      valkyr dlq list                                 what failed
      valkyr dlq get LETTER                           why, with what inputs, and what you can do
      valkyr dlq requeue LETTER --reason "..."        the cause is gone: do it again
      valkyr dlq fix LETTER --outputs JSON            it was done by hand: go on with this answer
      valkyr dlq discard LETTER --reason "..."        give it up
    """,
)

LetterId = Annotated[str, typer.Argument(metavar="LETTER", help="Its id.")]


@app.command(name="list")
@command
@by_example(time="quarantinedTime")
async def list_(
    session: Session,
    asked: Asked,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are settled.")] = False,
    resolution: Annotated[
        list[Resolution] | None,
        typer.Option(case_sensitive=False, help="Only so resolved; PENDING by default; may be repeated."),
    ] = None,
    execution: Annotated[str, typer.Option(metavar="EXECUTION", help="Only of this one.")] = "",
    workflow: Annotated[str | None, typer.Option(metavar="WORKFLOW", help="Only of this one: id or name.")] = None,
    run: Annotated[str, typer.Option(metavar="RUN", help="Only of this one.")] = "",
    target: Annotated[str, typer.Option(metavar="TARGET", help="Only of runs that call this one.")] = "",
    failure: Annotated[
        list[DeadLetterType] | None, typer.Option("--type", case_sensitive=False, help="Only these; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 20,
) -> ExitCode:
    """Lists letters, newest first.

    Those that nobody has settled, unless told otherwise. --example is an object in the shape of what --json prints, and
    may ask for `originalInputs` and `originalConfig` too; what it does not say does not matter.

    \b
    Examples:
      valkyr dlq list
      valkyr dlq list --workflow orders --type MAX_RETRIES
      valkyr dlq list --since 2h --example '{"failureReason": "timed out"}' --match contains --ignore-case
      valkyr dlq list --example '{"originalInputs": {"trigger": {"order": 17}}}' --all
      valkyr dlq list --execution 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --all --json
    """
    everything = all_ or "resolution" in asked.example
    resolutions = resolution or ([] if everything else [Resolution.PENDING])
    async with session.client() as client:
        pages = client.dead_letters.list(
            resolutions=resolutions,
            execution_id=execution,
            workflow_id="" if workflow is None else await workflow_id_of(client, workflow),
            run_id=run,
            target=target,
            failure_types=failure or (),
            page_size=min(limit, 1000),
            **asked.arguments(),
        )
        letters = await pages.first(limit)
    if session.printer.as_json:
        session.printer.document({"deadLetters": document_of(letters)})
    elif letters:
        session.printer.table(["ID", "STATE", "FAILED", "NODE", "TYPE", "WHY"], [_row(letter) for letter in letters])
    else:
        none = "no letters" if everything or resolution else "no letters that wait; --all shows those that are settled"
        session.printer.remark(none)
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def get(
    session: Session,
    letter_id: LetterId,
    inputs: Annotated[bool, typer.Option("--inputs", help="Print nothing but its inputs, to be edited.")] = False,
) -> ExitCode:
    """Prints a letter, and the commands that would settle it.

    What failed, why, when, every attempt, the inputs and the config as the last attempt had them, the trace.

    \b
    Examples:
      valkyr dlq get 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80
      valkyr dlq get 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --inputs > inputs.json
    """
    printer, ended = session.printer, ""
    async with session.client() as client:
        letter = await client.dead_letters.get(letter_id)
        if letter.pending and not inputs and not printer.as_json:
            ended = await _ended(session, client, letter)
    if inputs:
        printer.text(json.dumps(letter.original_inputs, indent=2, ensure_ascii=False, sort_keys=True))
    elif printer.as_json:
        printer.document({"deadLetter": document_of(letter)})
    else:
        print_letter(printer, letter, namespace=session.namespace, ended=ended)
    return ExitCode.OK


async def _ended(session: Session, client: Client, letter: DeadLetter) -> str:
    """Why its execution cannot go on; empty where it can, and where the executor is not there to say so."""
    try:
        return why_it_cannot_go_on(await client.executions.get(letter.execution_id, timeout=CONNECT_TIMEOUT))
    except ValkyrError as error:
        session.printer.remark(f"whether its execution can go on is not known: {error.message}")
        return ""


@app.command(no_args_is_help=True)
@command
async def requeue(
    session: Session,
    letter_id: LetterId,
    inputs: Inputs = None,
    new_key: NewKey = False,
    deadline: Deadline = None,
    force: Force = False,
    reason: Reason = "",
) -> ExitCode:
    """Sends the run back into its execution, to be done again.

    It gets fresh attempts, and what the execution has done is kept.

    With the same idempotency key, so that a target that did the work after all does not do it twice; --inputs changes
    the key, --new-key does so without.

    \b
    Examples:
      valkyr dlq requeue 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --reason "the bank is back"
      valkyr dlq requeue 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --inputs @inputs.json
    """
    given = None if inputs is None else read_json_value(inputs, "inputs")
    async with session.client() as client:
        letter = await client.dead_letters.requeue(
            letter_id, inputs=given, new_key=new_key, deadline=deadline, force=force, reason=reason
        )
    return _print_settled(session, letter, "it runs again, and its execution goes on")


@app.command(no_args_is_help=True)
@command
async def fix(session: Session, letter_id: LetterId, outputs: Outputs, reason: Reason = "") -> ExitCode:
    """Supplies what the run should have answered.

    Its execution goes on as after a success.

    \b
    Examples:
      valkyr dlq fix 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --outputs '{"charge": "C-17"}' --reason "charged by hand"
    """
    given = read_json_value(outputs, "outputs")
    async with session.client() as client:
        letter = await client.dead_letters.fix(letter_id, outputs=given, reason=reason)
    return _print_settled(session, letter, "its execution goes on with these outputs")


@app.command(no_args_is_help=True)
@command
async def discard(
    session: Session,
    letter_id: LetterId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it has to be said.")],
) -> ExitCode:
    """Gives the run up.

    It is FAILED for good, and what waits for its success is skipped.

    \b
    Examples:
      valkyr dlq discard 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --reason "the customer cancelled"
    """
    async with session.client() as client:
        letter = await client.dead_letters.discard(letter_id, reason=reason)
    return _print_settled(session, letter, "the run is FAILED, and what waits for its success is skipped")


def _row(letter: DeadLetter) -> list[str | Text]:
    why = f"{letter.error_type}: {letter.failure_reason}" if letter.error_type else letter.failure_reason
    return [
        letter.id,
        state_text(letter.resolution),
        moment(letter.quarantined_at),
        letter.node_id,
        letter.failure_type or "-",
        why,
    ]


def _print_settled(session: Session, letter: DeadLetter, then: str) -> ExitCode:
    printer = session.printer
    if printer.as_json:
        printer.document({"deadLetter": document_of(letter)})
        return ExitCode.OK
    printer.line(f"{letter.id}  ", state_text(letter.resolution), f"  {letter.node_id}: {then}")
    if letter.pending:
        asked = letter.requested_resolution or "what you asked for"
        printer.remark(f"{asked} is stored and will be done as soon as the executor answers")
    printer.remark(f"`valkyr trace {letter.execution_id}` shows what becomes of it")
    return ExitCode.OK
