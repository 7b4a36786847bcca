"""The config of a module in two spellings: `moduleData`, JSON text that is data; `config`, JSON with expressions."""

from __future__ import annotations

from typing import Any

import orjson

from valkyr.graph import fields


def expanded(module_data: str) -> dict[str, Any]:
    """`moduleData` as the `config` that means the same: every `${` escaped as `$${`, huge integers as strings.

    ValueError if it is no JSON object.
    """
    value = orjson.loads(module_data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    escaped: dict[str, Any] = escape(value)
    return escaped


def escape(value: Any) -> Any:
    """The template that evaluates to `value`: data made safe to stand in a `config`."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) >= fields.EXACT_INTEGER else value
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}" if abs(value) >= fields.EXACT_INTEGER else int(value)
    return value


def one_of_both(
    module_data: str | None, config: dict[str, Any] | None, path: str, problems: fields.Problems
) -> tuple[str | None, dict[str, Any] | None]:
    """A module given in both spellings keeps its `moduleData` if they mean the same; a problem if they do not."""
    if module_data is None or config is None:
        return module_data, config
    try:
        same = expanded(module_data) == config
    except (ValueError, RecursionError):
        same = False
    if not same:
        problems.add(f"{path}.config", "differs from moduleData; give one of them")
    return module_data, None
