"""valkyr modules: the catalogue of module classes that graphs are held against."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.graph_files import PlacedFinding, place, read_document
from valkyr.cli.located import LocatedDocument, Unreadable
from valkyr.cli.printing import moment
from valkyr.cli.session import Session, command
from valkyr.errors import InvalidRequest
from valkyr.graph.catalogue import CatalogueModule, defaults_to_document, modules_from_document
from valkyr.graph.findings import Finding, Severity
from valkyr.module import registered_modules
from valkyr.modules.described import described

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="The catalogue of modules: schemas of configs, and defaults.",
    help="""The catalogue of modules: what their configs have to be, and defaults where a node says nothing.

    Saves are held against it: a config that does not fit is refused with the place that is wrong. Classes that are not
    in it are used all the same, unchecked, with a warning.
    """,
)


@app.command(no_args_is_help=True)
@command
async def register(
    session: Session,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input.", show_default=False)
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Register what this Python module has; may be repeated."),
    ] = None,
) -> ExitCode:
    """Puts module classes into the catalogue; those that are there already are replaced.

    A file holds `modules`: for each a `className`, and if wanted `description`, `configSchema` (JSON Schema 2020-12),
    `pool`, `target`, `retry`, `timeout` and `dedupe`. With --import they come from functions with @module: the schema
    from the model of their configs.

    \b
    Examples:
      valkyr modules register modules.yaml
      valkyr modules register --import my_modules
    """
    if (file is None) == (not python):
        raise InvalidRequest("say which modules: a file, or --import", hint="valkyr modules register --help")
    document = None
    try:
        if file is not None:
            document = read_document(file)
        wanted = modules_from_document(document.value) if document else _imported(python or [])
        async with session.client() as client:
            registered = await client.modules.register(wanted)
    except Unreadable as error:
        finding = Finding(Severity.ERROR, error.code, error.path, str(error), error.hint)
        refused = InvalidRequest(f"{file} cannot be read as a list of modules", hint=error.hint)
        session.printer.refused(refused, ExitCode.BAD_INPUT, [PlacedFinding(file or "", error.position, finding)])
        return ExitCode.BAD_INPUT
    except InvalidRequest as error:
        if document is None or not error.details.violations:
            raise
        session.printer.refused(error, ExitCode.BAD_INPUT, _placed(document, error))
        return ExitCode.BAD_INPUT
    if session.printer.as_json:
        session.printer.document({"modules": document_of(registered)})
        return ExitCode.OK
    for module in registered:
        session.printer.line(f"registered {module.class_name}  {_said(module)}")
    return ExitCode.OK


@app.command(name="list")
@command
async def list_(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 1000,
) -> ExitCode:
    """Lists the catalogue by class name: what was registered, and what comes with Valkyr.

    \b
    Examples:
      valkyr modules list
      valkyr modules list --json        with the schemas
    """
    async with session.client() as client:
        pages = client.modules.list(with_schemas=session.printer.as_json, page_size=min(limit, 1000))
        modules = await pages.first(limit)
    if session.printer.as_json:
        session.printer.document({"modules": document_of(modules)})
        return ExitCode.OK
    session.printer.table(MODULE_COLUMNS, [_row(module) for module in modules])
    return ExitCode.OK


MODULE_COLUMNS = ("CLASS", "DEFAULTS", "REGISTERED", "BY", "")


def _row(module: CatalogueModule) -> list[str]:
    first = module.description.partition("\n")[0]
    if module.built_in:
        return [module.class_name, _said(module), "comes with Valkyr", "", first]
    return [module.class_name, _said(module), moment(module.updated_at), module.registered_by, first]


def _said(module: CatalogueModule) -> str:
    """Its defaults on one line: pool gpu, target http:mine, retry 7 attempts."""
    said = defaults_to_document(module)
    retry, dedupe = said.pop("retry", {}), said.pop("dedupe", None)
    words = [f"{key} {value}" for key, value in said.items()]
    if "maxAttempts" in retry:
        words.append(f"{retry['maxAttempts']} attempts")
    if "backoffBaseDelay" in retry or "backoffMaxDelay" in retry:
        words.append(f"back-off {retry.get('backoffBaseDelay', '')}..{retry.get('backoffMaxDelay', '')}")
    if dedupe is not None:
        words.append(f"dedupe {dedupe['scope']} for {dedupe['ttl']}")
    return ", ".join(words)


def _imported(names: Sequence[str]) -> list[CatalogueModule]:
    """The modules that these Python modules register, those that they import included. InvalidRequest."""
    sys.path.insert(0, "")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InvalidRequest(
                f"{name} cannot be imported: {error!r}", hint="run it in the folder of the file, or set PYTHONPATH"
            ) from error
    found = [described(spec) for spec in registered_modules().values()]
    if not found:
        raise InvalidRequest(f"{', '.join(names)}: no function there has @module")
    return found


def _placed(document: LocatedDocument, error: InvalidRequest) -> list[PlacedFinding]:
    listed = isinstance(document.value, list)
    placed = []
    for violation in error.details.violations:
        path = violation.field.removeprefix("modules") if listed else violation.field
        message = f"{violation.field}: {violation.description}"
        placed.append(place(document, Finding(Severity.ERROR, error.reason, path, message)))
    return placed
