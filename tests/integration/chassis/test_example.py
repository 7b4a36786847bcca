"""Query by example on a real PostgreSQL: strings of any script, nested lists, pages under inserts, plans."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chassis.database import Database
from services.chassis.example.predicates import StringMode
from services.chassis.example.query import Statement, fetch, read_query
from services.chassis.settings import DatabaseSettings
from tests.example_lab import TABLES, TOYS, asking

DAY = datetime(2026, 11, 22, tzinfo=UTC)
PINNED = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off"}
STRINGS = (
    "plain", "PLAIN", "Plain text", "", " ", "100%", "100x", "%", "_", "a_b", "axb", "\\", "a\\b", "\\%", "'", "''",
    '"', "$1", "$1::text", "x' OR 'x'='x", "; drop table public.toy; --", "{}", "[]", "a\nb", "a\tb", "\r\n",
    "\x01\x7f",
    "é", "É", "e\u0301", "ß", "Ünïcode", "ünïcode", "日本語", "日本", "العربية", "עברית", "हिन्दी", "💥", "👨‍👩‍👧",
    "Ω", "ω",
    "Жук", "жук", "\u200b", "\u2028", "\ufeff", "\U0010ffff", "ab" * 500,
)  # fmt: skip


def toy(i: int, **fields: Any) -> dict[str, Any]:
    return {"id": UUID(int=i), "created_date": DAY + timedelta(seconds=i), **fields}


async def add(connection: asyncpg.Connection, *rows: dict[str, Any]) -> None:
    for row in rows:
        numbers = ", ".join(f"${i}" for i in range(1, len(row) + 1))
        await connection.execute(f"insert into public.toy ({', '.join(row)}) values ({numbers})", *row.values())


async def ask(connection: asyncpg.Connection, example: dict[str, Any] | None = None, **fields: Any) -> list[int]:
    """The numbers of the toys of one page, by id unless said otherwise."""
    return (await page(connection, example, **{"orderBy": "id", **fields}))[0]


async def page(
    connection: asyncpg.Connection, example: dict[str, Any] | None = None, **fields: Any
) -> tuple[list[int], str]:
    query = read_query(asking(example, **fields), TOYS)
    rows = await fetch(connection, query.statement("t.id", "public.toy AS t", "t.shelf = $1::text", ["a"]))
    kept, token = query.page(rows)
    return [row["id"].int for row in kept], token


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(
        DatabaseSettings(url=database_url), schema="toys", application_name="toys", hot_settings=PINNED
    )
    async with database.acquire() as connection:
        for statement in TABLES:
            await connection.execute(statement)
    yield database
    await database.close()


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with database.acquire() as connection:
        yield connection


def is_match(stored: str, wanted: str, mode: StringMode, *, ignore_case: bool) -> bool:
    if ignore_case:
        stored, wanted = stored.lower(), wanted.lower()
    return {
        StringMode.EXACT: stored == wanted,
        StringMode.CONTAINS: wanted in stored,
        StringMode.STARTS_WITH: stored.startswith(wanted),
        StringMode.ENDS_WITH: stored.endswith(wanted),
    }[mode]


@pytest.mark.parametrize("ignore_case", [False, True], ids=["case", "any case"])
@pytest.mark.parametrize("mode", StringMode)
async def test_a_string_of_any_script_is_a_literal(
    connection: asyncpg.Connection, mode: StringMode, ignore_case: bool
) -> None:
    rows = [
        toy(i, name=one, labels=json.dumps({"k": one}), config=json.dumps({"a": {"k": one}}))
        for i, one in enumerate(STRINGS)
    ]
    await add(connection, *rows)
    matcher = {"stringMode": mode.value, "ignoreCase": ignore_case}
    for wanted in STRINGS:
        expected = [i for i, one in enumerate(STRINGS) if is_match(one, wanted, mode, ignore_case=ignore_case)]
        for example in ({"name": wanted}, {"labels": {"k": wanted}}, {"config": {"a": {"k": wanted}}}):
            assert await ask(connection, example, matcher=matcher) == expected, (wanted, example)


async def test_every_kind_of_value_finds_its_row_and_no_other(connection: asyncpg.Connection) -> None:
    owner = UUID(int=77)
    values: dict[str, tuple[Any, Any, Any]] = {
        "name": ("x", "y", "x"),
        "count": (5, 6, "5"),
        "revision": (2**63 - 1, 1, str(2**63 - 1)),
        "weight": (2.5, 2.6, "2.5"),
        "broken": (True, False, "TRUE"),
        "ended_at": (DAY, DAY + timedelta(microseconds=1), "2026-11-22T01:00:00+01:00"),
        "took": (timedelta(minutes=2), timedelta(minutes=3), "120s"),
        "state": ("BROKEN", "READY", "broken"),
        "owner_id": (owner, UUID(int=78), owner.hex.upper()),
        "config": ('{"a": [1, 2], "b": 3}', "[1]", {"a": [2]}),
        "width": (3, 4, 3.0),
    }
    paths = {"ended_at": "endTime", "owner_id": "ownerId"}
    await add(
        connection,
        toy(1, **{name: stored for name, (stored, _, _) in values.items()}),
        toy(2, **{name: other for name, (_, other, _) in values.items()}),
        toy(3),
    )
    for name, (_, _, asked) in values.items():
        example = {"size": {"width": asked}} if name == "width" else {paths.get(name, name): asked}
        assert await ask(connection, example) == [1], example
        absent = {"size": None} if name == "width" else {paths.get(name, name): None}
        assert await ask(connection, absent) == ([] if name == "state" else [3]), absent


async def test_null_labels_and_blank_texts_are_absent(connection: asyncpg.Connection) -> None:
    await add(connection, toy(1, note="n", labels='{"k": "v", "l": ""}'), toy(2))
    assert await ask(connection, {"note": None}) == await ask(connection, {"note": ""}) == [2]
    assert await ask(connection, {"note": ""}, matcher={"stringMode": "CONTAINS"}) == [1, 2]
    assert await ask(connection, {"labels": None}) == [2]
    assert await ask(connection, {"labels": {"k": None}}) == [2]
    assert await ask(connection, {"labels": {"l": ""}}) == [1]
    assert await ask(connection, {"labels": {"k": "v", "l": ""}}) == [1]
    assert await ask(connection, {"labels": {"k": "v", "l": "no"}}) == []
    assert await ask(connection, {}) == [1, 2]


async def test_nested_examples_match_inside(connection: asyncpg.Connection) -> None:
    await add(connection, *(toy(i) for i in range(1, 5)))
    await connection.executemany(
        "insert into public.part values ($1, $2, $3, $4)",
        [
            (1, UUID(int=1), "A", "x"),
            (2, UUID(int=1), "B", "y"),
            (3, UUID(int=2), "A", "y"),
            (4, UUID(int=3), "B", ""),
        ],
    )
    await connection.execute("insert into public.wheel values (1, 10, 'm'), (3, 20, 'm'), (3, 10, 'n')")
    cases: list[tuple[Any, list[int]]] = [
        ([{"className": "A"}], [1, 2]),
        ([{"className": "A"}, {"className": "B"}], [1]),
        ([{"className": "A", "target": "y"}], [2]),
        ([{"target": None}], [3]),
        ([{}], [1, 2, 3]),
        ([], [1, 2, 3, 4]),
        (None, [4]),
        ([{"wheels": [{"size": 10, "maker": "m"}]}], [1]),
        ([{"wheels": [{"size": 10}]}], [1, 2]),
        ([{"className": "B", "wheels": None}], [1, 3]),
    ]
    for parts, expected in cases:
        assert await ask(connection, {"parts": parts}) == expected, parts
    either = {"matchAny": True}
    assert await ask(connection, {"parts": [{"className": "B", "target": "y"}]}, matcher=either) == [1, 2, 3]
    assert await ask(connection, {"id": UUID(int=4).hex, "parts": [{"target": "x"}]}, matcher=either) == [1, 4]


async def test_match_any_widens_the_example_and_neither_the_scope_nor_a_range(connection: asyncpg.Connection) -> None:
    await add(connection, toy(1, name="x"), toy(2, count=5), toy(3), toy(4, name="x", shelf="another"))
    example, either = {"name": "x", "count": 5}, {"matchAny": True}
    assert await ask(connection, example, matcher=either) == [1, 2]
    assert await ask(connection, example) == []
    late = [{"field": "createTime", "startTime": "2026-11-22T00:00:02Z", "endTime": "2026-11-22T00:00:04Z"}]
    assert await ask(connection, example, matcher=either, timeRanges=late) == [2]
    assert await ask(connection, timeRanges=late) == [2, 3]


async def test_what_is_ignored_does_not_restrict(connection: asyncpg.Connection) -> None:
    await add(connection, toy(1, name="x", count=1), toy(2, name="x", count=2))
    assert await ask(connection, {"name": "x", "count": 9}, matcher={"ignoredPaths": ["count"]}) == [1, 2]


ORDERS = ("", "createTime", "name", "name desc", "count desc, name", "count, name desc, createTime", "took",
          "weight desc", "broken, revision desc", "state desc, endTime", "endTime desc", "id desc")  # fmt: skip
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=2)
_FIELDS = st.fixed_dictionaries(
    {
        "name": st.none() | st.sampled_from(["a", "b", "B"]) | _TEXT,
        "count": st.none() | st.integers(0, 2),
        "revision": st.none() | st.sampled_from([0, 2**63 - 1]),
        "weight": st.none() | st.floats(),
        "broken": st.none() | st.booleans(),
        "took": st.none() | st.integers(-1, 1).map(lambda seconds: timedelta(seconds=seconds, microseconds=1)),
        "state": st.sampled_from(["READY", "BROKEN"]),
        "ended_at": st.none() | st.integers(0, 2).map(lambda micros: DAY + timedelta(microseconds=micros)),
        "created_date": st.integers(0, 2).map(lambda micros: DAY + timedelta(microseconds=micros)),
    }
)


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
    rows=st.lists(_FIELDS, max_size=12),
    added=st.lists(_FIELDS, max_size=6),
    order_by=st.sampled_from(ORDERS),
    size=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_pages_hold_every_row_once_and_in_order_whatever_is_inserted_between_them(
    runner: tuple[asyncio.Runner, asyncpg.Connection],
    rows: Sequence[dict[str, Any]],
    added: Sequence[dict[str, Any]],
    order_by: str,
    size: int,
    seed: int,
) -> None:
    async def walk(connection: asyncpg.Connection) -> tuple[list[int], list[int]]:
        ids = random.Random(seed).sample(range(1, 1000), len(rows) + len(added))
        await connection.execute("truncate public.toy")
        await add(connection, *({"id": UUID(int=i), **row} for i, row in zip(ids, rows, strict=False)))
        late = [{"id": UUID(int=i), **row} for i, row in zip(ids[len(rows) :], added, strict=True)]
        seen, token = await page(connection, orderBy=order_by, pageSize=size)
        while token:
            if late:
                await add(connection, late.pop())
            more, token = await page(connection, orderBy=order_by, pageSize=size, pageToken=token)
            seen += more
        whole, _ = await page(connection, orderBy=order_by)
        old = set(ids[: len(rows)])
        assert len(seen) == len(set(seen))
        assert old <= set(seen)
        return seen, [i for i in whole if i in set(seen)]

    loop, connection = runner
    seen, whole = loop.run(walk(connection))
    assert seen == whole


@pytest.fixture
async def many(connection: asyncpg.Connection) -> asyncpg.Connection:
    """20,000 toys with two parts each, and the indexes that a room would have."""
    for statement in (
        """insert into public.toy (id, name, count, created_date, state) select
            ('00000000-0000-0000-0000-' || lpad(to_hex(i), 12, '0'))::uuid, 'Toy ' || i, i % 1000,
            '2026-11-22Z'::timestamptz + i * interval '1 s', case i % 500 when 0 then 'BROKEN' else 'READY' end
            from generate_series(1, 20000) i""",
        """insert into public.part select i * 2 + p, ('00000000-0000-0000-0000-' || lpad(to_hex(i), 12, '0'))::uuid,
            'Class' || (i % 2000 + p), '' from generate_series(1, 20000) i, generate_series(0, 1) p""",
        "create index toy_newest on public.toy (shelf, created_date, id)",
        "create index toy_name on public.toy (shelf, name text_pattern_ops)",
        "create index toy_lower on public.toy (shelf, lower(name) text_pattern_ops)",
        "create index toy_count on public.toy (shelf, count)",
        "create index toy_broken on public.toy (created_date) where state = 'BROKEN'",
        "create index part_class on public.part (class_name, toy_id)",
        "create index part_toy on public.part (toy_id)",
        "analyze",
    ):
        await connection.execute(statement)
    return connection


async def plan(connection: asyncpg.Connection, example: dict[str, Any], **fields: Any) -> str:
    query = read_query(asking(example, **fields), TOYS)
    statement = query.statement("t.id", "public.toy AS t", "t.shelf = $1::text", ["a"])
    rows = await fetch(connection, Statement(f"EXPLAIN {statement.text}", statement.parameters))
    return "\n".join(row[0] for row in rows)


async def test_indexes_serve_what_is_asked(many: asyncpg.Connection) -> None:
    starts = {"stringMode": "STARTS_WITH"}
    served = {
        "toy_name": [
            await plan(many, {"name": "Toy 77"}),
            await plan(many, {"name": "Toy 777"}, matcher=starts),
        ],
        "toy_lower": [
            await plan(many, {"name": "tOY 77"}, matcher={"ignoreCase": True}),
            await plan(many, {"name": "tOY 777"}, matcher={**starts, "ignoreCase": True}),
        ],
        "toy_count": [await plan(many, {"count": "7"})],
        "toy_broken": [await plan(many, {"state": "broken"})],
        "part_class": [await plan(many, {"parts": [{"className": "Class7"}]})],
        "toy_newest": [await plan(many, {}), await plan(many, {}, orderBy="createTime")],
        "toy_pkey": [await plan(many, {"id": UUID(int=7).hex})],
    }
    for index, plans in served.items():
        for one in plans:
            assert index in one, one
            assert "Seq Scan on toy" not in one, one


async def test_a_later_page_is_a_walk_along_the_index_from_its_place(many: asyncpg.Connection) -> None:
    _, token = await page(many, pageSize=500)
    told = await plan(many, {}, pageSize=500, pageToken=token)
    assert "Index Cond: ((shelf = 'a'::text) AND (ROW(created_date, id) <" in told, told
    assert "Sort" not in told, told


async def test_a_list_is_planned_for_its_values_and_leaves_the_session_alone(
    connection: asyncpg.Connection,
) -> None:
    names = ", ".join(f"current_setting('{name}')" for name in PINNED)
    (inside,) = await fetch(connection, Statement(f"select {names}", ()))
    assert list(inside) == ["force_custom_plan", "on", "on"]
    assert list(await connection.fetchrow(f"select {names}")) == list(PINNED.values())


async def test_shapes_of_examples_do_not_pile_up_in_the_session(connection: asyncpg.Connection) -> None:
    for i in range(20):
        await ask(connection, {"labels": {str(j): "x" for j in range(i)}})
    kept = await connection.fetchval("select count(*) from pg_prepared_statements where statement like '%place_1%'")
    assert kept <= 1
