"""Plain values -> YAML 1.2 text."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML


def yaml_of(document: dict[str, Any]) -> str:
    """The document as YAML 1.2 in block style."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()
