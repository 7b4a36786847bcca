"""Whether a schema can be given to the fast validator, which cannot be stopped: written out it has to stay small."""

from __future__ import annotations

from typing import Any

from valkyr.graph.schemas.parts import Parts, subschemas

MAX_WRITTEN_OUT = 1_000
"""Parts, options and names, with every reference replaced by what it leads to."""

_NEVER = frozenset({"unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "uniqueItems", "multipleOf"})
_LISTS = ("enum", "required", "patternProperties", "type")


def written_out(root: dict[str, Any], parts: Parts) -> int | None:
    """How large the schema is; None where it is too large, or holds something whose cost is not that of its size."""
    if not all(pattern.linear for pattern in parts.patterns.values()) or len(parts.patterns) > 20:
        return None
    left = MAX_WRITTEN_OUT
    pending: list[Any] = [root]
    while pending:
        schema = pending.pop()
        left -= 1
        if left < 0:
            return None
        if isinstance(schema, bool):
            continue
        if not _NEVER.isdisjoint(schema):
            return None
        left -= sum(len(schema.get(keyword, ())) for keyword in _LISTS)
        pending.extend(inner for keyword, _, inner in subschemas(schema) if keyword not in ("$defs", "definitions"))
        if "$ref" in schema:
            pending.append(parts.refs[id(schema)])
    return MAX_WRITTEN_OUT - left
