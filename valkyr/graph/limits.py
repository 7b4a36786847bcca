"""How large a graph may be. Values at a limit pass, values over it are LIMIT_EXCEEDED."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, characters (of ids and labels), bytes of UTF-8 (of configs and expressions), levels (of JSON).

    Expressions are counted by their `${` and their conditions, once where a text is repeated: compiling them costs.
    """

    nodes: int = 10_000
    edges: int = 50_000
    config_bytes: int = 256 * 1024
    json_depth: int = 64
    label_chars: int = 1_000
    id_chars: int = 512
    expression_bytes: int = 4 * 1024
    expressions: int = 60_000


DEFAULT_LIMITS = Limits()
