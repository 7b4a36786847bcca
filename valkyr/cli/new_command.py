"""valkyr new: a project of one's own to begin with, whose tests pass."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from valkyr.cli.exits import ExitCode
from valkyr.cli.session import Session
from valkyr.errors import AlreadyExists, InvalidRequest

SUFFIX = ".in"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_TAKEN = frozenset({"graphs", "tests", "valkyr"})
_NEEDED = frozenset({"pytest"})
"""By the project, and perhaps not installed here."""


async def new(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project, such as my-payments.")],
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where it is put; by default its name, here.", show_default=False),
    ] = None,
) -> ExitCode:
    """Makes a project of your own: a module, a graph, and tests of both that pass.

    \b
    Examples:
      valkyr new my-payments
      valkyr new my-payments --into ~/projects/payments
    """
    package = package_of(name)
    folder = (into or Path(name)).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} is there already, and not empty", hint="choose another NAME, or another --into")
    try:
        written = _write(files("valkyr.cli") / "new_project", folder, {"name": name, "package": package})
    except OSError as error:
        raise InvalidRequest(f"{error.filename}: {error.strerror}", hint="choose another --into") from None
    if session.printer.as_json:
        session.printer.document({"folder": str(folder), "files": [str(path) for path in written]})
        return ExitCode.OK
    for path in written:
        session.printer.line(str(path))
    session.printer.remark(f"next: cd {folder} && pip install -e '.[dev]' && pytest; README.md says how to run it")
    return ExitCode.OK


def package_of(name: str) -> str:
    """What Python imports. InvalidRequest if it could not."""
    package = name.lower().replace("-", "_")
    if package in sys.stdlib_module_names:
        raise InvalidRequest.of_field(
            "NAME", f"{name!r} is a module of Python's own, which the project would hide", hint=f"take my-{name}, say"
        )
    if package in _NEEDED or package in _installed():
        raise InvalidRequest.of_field(
            "NAME",
            f"{name!r} is an installed package, which the project would hide",
            hint=f"take my-{name}, say",
        )
    if not _NAME.fullmatch(name) or keyword.iskeyword(package) or package in _TAKEN:
        raise InvalidRequest.of_field(
            "NAME", f"{name!r} cannot be the name of a Python package; take letters, digits and dashes: my-payments"
        )
    return package


def _installed() -> frozenset[str]:
    """What can be imported beside what is in this folder, and what it is called where that is something else."""
    found = packages_distributions()
    names = {*found, *(name for called in found.values() for name in called)}
    return frozenset(name.lower().replace("-", "_") for name in names) - _TAKEN


def _write(source: Traversable, target: Path, words: dict[str, str]) -> list[Path]:
    """The files written, in order. PACKAGE in a name is the package."""
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        path = target / entry.name.removesuffix(SUFFIX).replace("PACKAGE", words["package"])
        if entry.is_dir():
            written += _write(entry, path, words)
        elif entry.name.endswith(SUFFIX):
            path.write_text(Template(entry.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
            written.append(path)
    return written
