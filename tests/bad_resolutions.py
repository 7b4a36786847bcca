"""Bodies of resolutions that nobody can carry out: each server that takes them refuses all of them alike."""

from __future__ import annotations

from typing import Any


def _nested(levels: int) -> Any:
    return [_nested(levels - 1)] if levels else 1


BAD_INPUTS: dict[str, tuple[Any, str, str]] = {
    "null": (None, "inputs", "null is no object"),
    "list": ([1], "inputs", "[1] is no object"),
    "text": ("text", "inputs", '"text" is no object'),
    "no-nodes": ({"trigger": 1}, "inputs.nodes", "is missing"),
    "no-trigger": ({"nodes": {}}, "inputs.trigger", "is missing"),
    "unknown-part": ({"trigger": 1, "nodes": {}, "x": 1}, "inputs.x", "is unknown"),
    "nodes-list": ({"trigger": 1, "nodes": [1]}, "inputs.nodes", "[1] is no object"),
    "nodes-null": ({"trigger": 1, "nodes": None}, "inputs.nodes", "null is no object"),
    "node-number": (
        {"trigger": 1, "nodes": {"b": {}, "a": 3}},
        "inputs.nodes.a",
        '3 is no object; takes {"outputs": 3}',
    ),
    "node-null": ({"trigger": 1, "nodes": {"a": None}}, "inputs.nodes.a", "null is no object"),
    "too-large": ({"trigger": "x" * 4 * 1024 * 1024, "nodes": {}}, "inputs", "over 4,194,304"),
    "too-deep": ({"trigger": _nested(40), "nodes": {}}, "inputs", "deeper than 32 levels"),
}
"""Each with the field that is named, and what is said of it."""

BAD_REASONS: dict[str, tuple[str, str]] = {
    "too-long": ("x" * 2_001, "has 2,001 characters; at most 2,000 are allowed"),
    "nul": ("a\x00", "holds a NUL character"),
}
