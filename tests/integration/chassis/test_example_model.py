"""Random examples on random rows: PostgreSQL finds what a plain reading of the example finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis.example.predicates import StringMode
from services.chassis.example.query import fetch, read_query
from tests.example_lab import TABLES, TOYS, asking

WORDS = st.sampled_from(["", "a", "A", "ab", "b%", "_", "\\", "é", "É", "aé", "日"])
NUMBERS = st.integers(0, 2)
PART = st.fixed_dictionaries(
    {"className": WORDS, "target": WORDS, "wheels": st.lists(st.fixed_dictionaries({"size": NUMBERS}), max_size=2)}
)
TOY = st.fixed_dictionaries(
    {
        "name": st.none() | WORDS,
        "count": st.none() | NUMBERS,
        "labels": st.dictionaries(st.sampled_from(["k", "a.b"]), WORDS, max_size=2),
        "size": st.fixed_dictionaries({"width": st.none() | NUMBERS, "height": st.none() | NUMBERS}),
        "parts": st.lists(PART, max_size=2),
    }
)
_WHEELS = st.fixed_dictionaries({}, optional={"size": NUMBERS})
EXAMPLE = st.fixed_dictionaries(
    {},
    optional={
        "name": st.none() | WORDS,
        "count": st.none() | NUMBERS | NUMBERS.map(str),
        "labels": st.none() | st.dictionaries(st.sampled_from(["k", "a.b"]), st.none() | WORDS, max_size=2),
        "size": st.none() | st.fixed_dictionaries({}, optional={"width": st.none() | NUMBERS, "height": NUMBERS}),
        "parts": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "className": WORDS,
                    "target": st.none() | WORDS,
                    "wheels": st.none() | st.lists(_WHEELS, max_size=2),
                },
            ),
            max_size=2,
        ),
    },
)


class Model:
    """What an example means, said once more."""

    def __init__(self, mode: StringMode, *, ignore_case: bool, match_any: bool) -> None:
        self.mode, self.ignore_case = mode, ignore_case
        self.enough: Callable[[Sequence[bool]], bool] = any if match_any else all

    def finds(self, example: Mapping[str, Any], toy: Mapping[str, Any]) -> bool:
        answers = list(self._object(example, toy))
        return not answers or self.enough(answers)

    def _object(self, example: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[bool]:
        for name, wanted in example.items():
            has = row[name]
            if name in ("parts", "wheels"):
                yield from (
                    [not has] if wanted is None else (any(self.finds(one, item) for item in has) for one in wanted)
                )
            elif name == "labels":
                yield from (
                    [not has]
                    if wanted is None
                    else (
                        key not in has if one is None else key in has and self._text(has[key], one)
                        for key, one in wanted.items()
                    )
                )
            elif isinstance(has, Mapping):
                yield from [set(has.values()) == {None}] if wanted is None else self._object(wanted, has)
            elif wanted is None:
                yield has == "" if name == "target" else has is None
            elif name in ("count", "width", "height"):
                yield has is not None and has == int(wanted)
            else:
                yield has is not None and self._value(has, wanted)

    def _value(self, has: Any, wanted: Any) -> bool:
        return self._text(has, wanted) if isinstance(has, str) else bool(has == wanted)

    def _text(self, has: str, wanted: str) -> bool:
        if self.ignore_case:
            has, wanted = has.lower(), wanted.lower()
        match self.mode:
            case StringMode.EXACT:
                return has == wanted
            case StringMode.CONTAINS:
                return wanted in has
            case StringMode.STARTS_WITH:
                return has.startswith(wanted)
            case StringMode.ENDS_WITH:
                return has.endswith(wanted)


async def store(connection: asyncpg.Connection, toys: Sequence[Mapping[str, Any]]) -> None:
    await connection.execute("truncate public.toy, public.part, public.wheel")
    parts = 0
    for i, toy in enumerate(toys):
        await connection.execute(
            "insert into public.toy (id, name, count, labels, width, height) values ($1, $2, $3, $4, $5, $6)",
            UUID(int=i),
            toy["name"],
            toy["count"],
            json.dumps(toy["labels"]),
            toy["size"]["width"],
            toy["size"]["height"],
        )
        for part in toy["parts"]:
            parts += 1
            values = (parts, UUID(int=i), part["className"], part["target"])
            await connection.execute("insert into public.part values ($1, $2, $3, $4)", *values)
            for wheel in part["wheels"]:
                await connection.execute("insert into public.wheel values ($1, $2, 'm')", parts, wheel["size"])


@pytest.fixture
def runner(database_url: str) -> Iterator[tuple[asyncio.Runner, asyncpg.Connection]]:
    """A loop and a connection of their own, since a property runs outside of any loop."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database_url))
        for statement in TABLES:
            runner.run(connection.execute(statement))
        yield runner, connection
        runner.run(connection.close())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    toys=st.lists(TOY, min_size=1, max_size=4),
    examples=st.lists(EXAMPLE, min_size=1, max_size=6),
    mode=st.sampled_from(StringMode),
    ignore_case=st.booleans(),
    match_any=st.booleans(),
)
def test_an_example_finds_what_it_means(
    runner: tuple[asyncio.Runner, asyncpg.Connection],
    toys: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
    mode: StringMode,
    ignore_case: bool,
    match_any: bool,
) -> None:
    matcher = {"stringMode": mode.value, "ignoreCase": ignore_case, "matchAny": match_any}
    model = Model(mode, ignore_case=ignore_case, match_any=match_any)

    async def ask(connection: asyncpg.Connection) -> None:
        await store(connection, toys)
        for example in examples:
            query = read_query(asking(example, matcher=matcher, orderBy="id"), TOYS)
            rows = await fetch(connection, query.statement("t.id", "public.toy AS t", "true"))
            assert [row["id"].int for row in rows] == [i for i, toy in enumerate(toys) if model.finds(example, toy)]

    loop, connection = runner
    loop.run(ask(connection))
