"""Reads a settings file. Imported only where there is one: most local stacks have none, and the parser is not small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from services.chassis.settings import SettingsError


def read_yaml(file: Path) -> Any:
    """What the file holds. SettingsError if it cannot be read, or is no YAML."""
    try:
        return YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {file} cannot be read: {error}") from error
    except YAMLError as error:
        raise SettingsError(f"the settings file {file} is no YAML{_where(error)}: {_problem(error)}") from error


def _where(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    return f" at line {mark.line + 1}" if mark is not None else ""


def _problem(error: YAMLError) -> str:
    return str(getattr(error, "problem", None) or error)
