"""From YAML and environment variables to one tree, and from pydantic's errors to sentences that name key and source."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from services.chassis.settings import (
    DEFAULT_PORT_BASE,
    PORT_OFFSETS,
    SECTIONS,
    TOP_LEVEL_VARIABLES,
    RoomSettings,
    SettingsError,
    SettingsModel,
)
from valkyr.telemetry import escaped

Model = TypeVar("Model", bound=RoomSettings)
AnyModel = TypeVar("AnyModel", bound=SettingsModel)
Tree = dict[str, Any]

_COMMON = ("database", "server", "telemetry")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")
_SECTIONS_BY_VARIABLE = {f"VALKYR_{section.replace('-', '_').upper()}": section for section in SECTIONS}


class Sources:
    """Where the settings of one process come from."""

    def __init__(self, environ: Mapping[str, str], config_file: Path | None) -> None:
        self._environ = environ
        self._file = config_file or (Path(environ["VALKYR_CONFIG"]) if environ.get("VALKYR_CONFIG") else None)
        self._variables: dict[tuple[str, ...], str] = {}
        self._problems: list[str] = []

    def load(self, model: type[Model], section: str) -> Model:
        """SettingsError with every problem, one a line."""
        tree = _merged(self._from_file(), self._from_environment())
        tree.setdefault("server", {})
        room = _mapping(tree, section)
        data = {**room, **{name: _merged(_mapping(tree, name), _mapping(room, name)) for name in _COMMON}}
        data["server"].setdefault("port", self._port(section))
        self._short_forms(data, section)
        settings = self._validated(model, data, section)
        if settings is None or self._problems:
            raise SettingsError(_message(self._problems), self._problems)
        return settings

    def _validated(self, model: type[AnyModel], data: Tree, section: str) -> AnyModel | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            self._problems += [self._sentence(detail, model, section) for detail in error.errors()]
            return None

    def _from_file(self) -> Tree:
        if self._file is None:
            return {}
        from services.chassis.settings_file import read_yaml

        tree = read_yaml(self._file)
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            raise SettingsError(f"the settings file {self._file} takes a mapping of {', '.join(SECTIONS)}")
        for key in tree:
            if key not in SECTIONS:
                self._problems.append(f"{key}: unknown section in {self._file}{_nearest(str(key), SECTIONS)}")
        sections = {key: section for key, section in self._resolved(tree).items() if section is not None}
        for key, section in sections.items():
            if key in SECTIONS and not isinstance(section, dict):
                self._problems.append(f"{key}: takes a mapping, not {_shown(section)}")
        return {key: section for key, section in sections.items() if isinstance(section, dict)}

    def _resolved(self, node: Any) -> Any:
        """`${NAME}` and `${NAME:default}` from the environment; a key whose variable is unset is as if not written."""
        if isinstance(node, dict):
            items = {str(key): self._resolved(item) for key, item in node.items()}
            return {key: item for key, item in items.items() if item is not _UNSET}
        if isinstance(node, list):
            return [item for item in map(self._resolved, node) if item is not _UNSET]
        match = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
        if match is None:
            return node
        default = _UNSET if match[2] is None else match[2]
        return self._environ.get(match[1]) or default

    def _from_environment(self) -> Tree:
        tree: Tree = {}
        for name, value in self._environ.items():
            if not name.startswith("VALKYR_") or name in TOP_LEVEL_VARIABLES:
                continue
            head, *rest = name.split("__")
            section = _SECTIONS_BY_VARIABLE.get(head)
            if section is None or not rest or not all(rest):
                self._problems.append(f"{name}: unknown variable{_nearest(name, _known_names())}")
                continue
            path = (section, *(part.lower().replace("_", "-") for part in rest))
            self._variables[path] = name
            _put(tree, path, value)
        return tree

    def _port(self, section: str) -> int:
        text = self._environ.get("VALKYR_PORT_BASE") or str(DEFAULT_PORT_BASE)
        highest = 65535 - max(PORT_OFFSETS.values())
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= highest:
            self._problems.append(f"VALKYR_PORT_BASE: {text!r} is no port; takes a number from 1 to {highest}")
            return 0
        return int(text) + PORT_OFFSETS.get(section, 0)

    def _short_forms(self, data: Tree, section: str) -> None:
        url = self._environ.get("VALKYR_DATABASE_URL")
        if url and not {("database", "url"), (section, "database", "url")} & self._variables.keys():
            self._variables[("database", "url")] = "VALKYR_DATABASE_URL"
            data["database"]["url"] = url
        if self._environ.get("VALKYR_HOME"):
            data["home"] = self._environ["VALKYR_HOME"]

    def _sentence(self, detail: ErrorDetails, model: type[SettingsModel], section: str) -> str:
        path = tuple(str(part) for part in detail["loc"])
        common = path[:1] and path[0] in _COMMON
        full = path if common else (section, *path)
        key = ".".join(full)
        variable = self._variables.get((section, *path)) or self._variables.get(path)
        source = f" (from {variable})" if variable else ""
        if detail["type"] == "missing":
            return f"{key}: is missing{_how_to_give(full)}"
        if detail["type"] == "extra_forbidden":
            return f"{key}{source}: unknown key{_nearest(path[-1], _keys_beside(model, path))}"
        return f"{key}{source}: {_shown(detail['input'])} - {_expectation(detail)}{_description(model, path)}"


_UNSET = object()


def _message(problems: list[str]) -> str:
    count = "one setting is wrong" if len(problems) == 1 else f"{len(problems)} settings are wrong"
    return "\n".join([f"{count}:", *(f"  {problem}" for problem in problems)])


def _merged(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, item in above.items():
        beneath = merged.get(key)
        merged[key] = _merged(beneath, item) if isinstance(beneath, dict) and isinstance(item, dict) else item
    return merged


def _mapping(tree: Tree, key: str) -> Tree:
    """A section as a mapping; anything else is left under a key that no model knows, so that it is named as wrong."""
    section = tree.get(key)
    if section is None:
        return {}
    return section if isinstance(section, dict) else {str(section): None}


def _put(tree: Tree, path: Iterable[str], value: str) -> None:
    *above, last = path
    for part in above:
        beneath = tree.get(part)
        tree = tree.setdefault(part, {}) if isinstance(beneath, dict) or beneath is None else {}
    tree[last] = value


def _known_names() -> list[str]:
    return [*TOP_LEVEL_VARIABLES, *(f"{head}__..." for head in _SECTIONS_BY_VARIABLE)]


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def _model_at(model: type[Any], path: Iterable[str]) -> type[Any] | None:
    for part in path:
        fields = getattr(model, "model_fields", {})
        field = next((field for name, field in fields.items() if part in (name, field.alias)), None)
        if field is None or not hasattr(field.annotation, "model_fields"):
            return None
        model = field.annotation
    return model


def _keys_beside(model: type[Any], path: tuple[str, ...]) -> list[str]:
    parent = _model_at(model, path[:-1])
    return [] if parent is None else [field.alias or name for name, field in parent.model_fields.items()]


def _description(model: type[Any], path: tuple[str, ...]) -> str:
    parent = _model_at(model, path[:-1])
    fields = {} if parent is None else parent.model_fields
    text = next((field.description for name, field in fields.items() if path[-1] in (name, field.alias)), None)
    return f" ({text})" if text else ""


def _expectation(detail: ErrorDetails) -> str:
    message = detail["msg"]
    for prefix in ("Value error, ", "Input should be a ", "Input should be an ", "Input should be "):
        if message.startswith(prefix):
            return ("" if prefix == "Value error, " else "takes ") + message.removeprefix(prefix)
    return message


def _shown(value: object) -> str:
    return escaped(repr(value))[:200]


def _how_to_give(path: tuple[str, ...]) -> str:
    if path[-2:] == ("database", "url"):
        return "; set VALKYR_DATABASE_URL to postgresql://user:password@host/name"
    return f"; set VALKYR_{'__'.join(part.replace('-', '_').upper() for part in path)}"
