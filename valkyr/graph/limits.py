"""How large a graph may be. Values at a limit pass, values over it are LIMIT_EXCEEDED."""

from __future__ import annotations

from dataclasses import dataclass

CARRIED_DEPTH = 32
"""Levels of objects and lists in a `google.protobuf.Struct` or `Value`: protobuf reads no message nested deeper than
100, an object takes three of them, and the answers that a config or a payload stands in take the rest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, characters (of ids, targets and labels), bytes of UTF-8 (of configs and expressions), levels (of JSON:
    `json_depth` of `moduleData`, which travels as text, `config_depth` of `config`, which does not).

    Expressions are counted by their `${` and their conditions, once where a text is repeated: compiling them costs.
    """

    nodes: int = 10_000
    edges: int = 50_000
    config_bytes: int = 256 * 1024
    json_depth: int = 64
    config_depth: int = CARRIED_DEPTH
    label_chars: int = 1_000
    id_chars: int = 512
    target_chars: int = 500
    expression_bytes: int = 4 * 1024
    expressions: int = 60_000


DEFAULT_LIMITS = Limits()
