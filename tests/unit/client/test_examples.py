"""Lists by example as the client sends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import json_format

from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.api.executor.v1 import executor_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.client import Client, Matcher, StringMode, TimeRange
from valkyr.client.examples import ListQuery
from valkyr.errors import InvalidRequest, LimitExceeded

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MATCHER = Matcher(StringMode.STARTS_WITH, ignore_case=True, match_any=True, ignored_paths=["a", "b.c"])
SENT = {
    "example": {"name": "x"},
    "matcher": {"stringMode": "STARTS_WITH", "ignoreCase": True, "matchAny": True, "ignoredPaths": ["a", "b.c"]},
    "orderBy": "name desc",
    "timeRanges": [{"field": "t", "startTime": "2026-11-22T12:00:00Z"}],
}


class Colour(StrEnum):
    RED = "RED"


def sent(query: ListQuery) -> dict[str, Any]:
    request = graph_pb2.FindWorkflowsRequest()
    query.put_into(request)
    message: dict[str, Any] = json_format.MessageToDict(request)
    return message


def test_nothing_asked_is_nothing_sent() -> None:
    assert sent(ListQuery()) == {}
    assert sent(ListQuery(example={})) == {}


def test_values_of_python_are_sent_in_the_words_that_every_list_takes() -> None:
    example = {
        "at": datetime(2026, 11, 22, 13, 30, tzinfo=timezone(timedelta(hours=1))),
        "took": timedelta(days=1, microseconds=1),
        "id": UUID(int=7),
        "big": 2**53,
        "colour": Colour.RED,
        "none": None,
        "parts": ({"n": 5, "is": True, "x": 2.5},),
    }
    assert sent(ListQuery(example))["example"] == {
        "at": "2026-11-22T13:30:00+01:00",
        "took": "86400.000001s",
        "id": "00000000-0000-0000-0000-000000000007",
        "big": "9007199254740992",
        "colour": "RED",
        "none": None,
        "parts": [{"n": 5, "is": True, "x": 2.5}],
    }


@pytest.mark.parametrize(
    ("query", "path", "said"),
    [
        (ListQuery({"a": [{"b": datetime(2026, 1, 1)}]}), "example.a[0].b", "has no time zone"),  # noqa: DTZ001
        (ListQuery({"a": {1: "x"}}), "example.a", "keys of a JSON object are strings"),
        (ListQuery({"a": object()}), "example.a", "which JSON cannot hold"),
        (ListQuery({"a": float("nan")}), "example.a", "no JSON number"),
        (ListQuery(time_ranges=[TimeRange("t", datetime(2026, 1, 1))]), "timeRanges[0].startTime", "has no time zone"),  # noqa: DTZ001
        (ListQuery(time_ranges=[TimeRange("t", end=datetime(2026, 1, 1))]), "timeRanges[0].endTime", "no time zone"),  # noqa: DTZ001
    ],
    ids=["time", "key", "object", "nan", "start", "end"],
)
def test_what_cannot_be_sent_is_named(query: ListQuery, path: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent(query)
    assert refused.value.details.violations[0].field == path
    assert said in refused.value.message


def test_an_example_that_is_too_deep_is_refused_here() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = {"d": deep}
    with pytest.raises(LimitExceeded):
        sent(ListQuery(deep))


@pytest.mark.parametrize(
    ("rpc", "answer"),
    [
        ("FindWorkflows", graph_pb2.FindWorkflowsResponse()),
        ("ListExecutions", executor_pb2.ListExecutionsResponse()),
        ("ListRuns", executor_pb2.ListRunsResponse()),
        ("ListDeadLetters", dlq_pb2.ListDeadLettersResponse()),
        ("ListBreakers", breaker_pb2.ListBreakersResponse()),
    ],
)
async def test_every_list_sends_what_it_is_asked_with_every_page(
    script: Any, client: Client, rpc: str, answer: Any
) -> None:
    first = type(answer)(next_page_token="more")
    script.answer(rpc, first, answer)
    lists: dict[str, Any] = {
        "FindWorkflows": client.graphs.find,
        "ListExecutions": client.executions.list,
        "ListRuns": client.executions.list_runs,
        "ListDeadLetters": client.dead_letters.list,
        "ListBreakers": client.breakers.list,
    }
    pages = lists[rpc](
        example={"name": "x"}, matcher=MATCHER, order_by="name desc", time_ranges=[TimeRange("t", NOON)], page_size=7
    )
    assert await pages.all() == []
    requests = [json_format.MessageToDict(request) for request in script.requests(rpc)]
    assert requests == [
        {"namespace": "default", "pageSize": 7, **SENT},
        {"namespace": "default", "pageSize": 7, "pageToken": "more", **SENT},
    ]
