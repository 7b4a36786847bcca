"""Whether module classes can be put into a catalogue. Only this needs what checks schemas, so it stands apart."""

from __future__ import annotations

from collections.abc import Sequence

from valkyr.graph import fields
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.limits import DEFAULT_LIMITS, Limits
from valkyr.graph.schemas import BadSchema, compile_schema

MAX_DESCRIPTION = 10_000


def check_modules(
    modules: Sequence[CatalogueModule], problems: fields.Problems, *, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Whether they can be registered together: names, sizes, schemas. What is wrong goes into `problems`."""
    first: dict[str, int] = {}
    for index, module in enumerate(modules):
        path = f"modules[{index}]"
        earlier = first.setdefault(module.class_name, index)
        if not module.class_name:
            problems.add(f"{path}.className", "is empty; name the class as graphs do")
        elif earlier != index:
            problems.add(
                f"{path}.className", f"{fields.shown(module.class_name)} is modules[{earlier}] too; say it once"
            )
        _check_texts(module, path, problems, limits)
        if module.config_schema is not None:
            try:
                compile_schema(module.config_schema)
            except BadSchema as error:
                at = error.path if error.path[:1] in ("", ".", "[") else f".{error.path}"
                problems.add(f"{path}.configSchema{at}", str(error))


def _check_texts(module: CatalogueModule, path: str, problems: fields.Problems, limits: Limits) -> None:
    bounded = (
        ("className", module.class_name, limits.id_chars),
        ("description", module.description, MAX_DESCRIPTION),
        ("pool", module.pool, limits.id_chars),
        ("target", module.target, limits.target_chars),
    )
    for name, value, limit in bounded:
        fields.check_text(value, f"{path}.{name}", problems)
        if len(value) > limit:
            problems.add(f"{path}.{name}", f"has {len(value):,} characters; at most {limit:,} are allowed")
