"""The catalogue of modules, over a real channel: registered, listed, and held against what is saved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf import json_format

from services.graph_store.app import App, open_app
from services.graph_store.settings import CatalogueSettings, GraphStoreSettings
from tests.builders import a_graph
from tests.postgres import patient
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import InvalidGraph, LimitExceeded, RequestIdReused, ValkyrError
from valkyr.graph.model import Graph, Module
from valkyr.modules import builtin_modules
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph
from valkyr.rpc.status import from_rpc_error

COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def a_module(name: str, **fields: Any) -> pb.ModuleSpec:
    """A class; `fields` as JSON has them."""
    module = json_format.ParseDict({"className": name, **fields}, pb.ModuleSpec(), max_recursion_depth=200)
    assert isinstance(module, pb.ModuleSpec)
    return module


def counting(config: dict[str, Any] | str, name: str = "Counter") -> Graph:
    module = Module("a", name, module_data=config) if isinstance(config, str) else (name, config)
    return a_graph("a", modules={"a": module})


def a_save(graph: Graph, **fields: Any) -> pb.SaveGraphRequest:
    request = pb.SaveGraphRequest(**fields)
    fill_from_graph(request, graph)
    return request


async def register(stub: Any, *modules: pb.ModuleSpec, **fields: Any) -> Sequence[pb.ModuleSpec]:
    answer = await stub.RegisterModules(pb.RegisterModulesRequest(modules=modules, **fields))
    registered: Sequence[pb.ModuleSpec] = answer.modules
    return registered


async def errors_of(stub: Any, graph: Graph, namespace: str = "") -> list[tuple[str, str]]:
    request = pb.ValidateGraphRequest(namespace=namespace)
    fill_from_graph(request, graph)
    answer = await stub.ValidateGraph(request)
    return [(error.code, error.path) for error in answer.errors]


async def refusal(call: Any) -> ValkyrError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def names(stub: Any, namespace: str = "") -> list[str]:
    answer = await stub.ListModules(pb.ListModulesRequest(namespace=namespace))
    return [module.class_name for module in answer.modules]


@asynccontextmanager
async def another_replica(url: str, **settings: Any) -> AsyncIterator[GraphStoreServiceStub]:
    async with open_app(GraphStoreSettings(database=patient(url), **settings)) as app:
        channel = open_channel(app.server.address)
        try:
            yield GraphStoreServiceStub(channel)
        finally:
            await channel.close()


async def test_what_comes_with_valkyr_is_in_every_catalogue(stub: GraphStoreServiceStub) -> None:
    answer = await stub.ListModules(pb.ListModulesRequest(namespace="new"))
    assert [module.class_name for module in answer.modules] == sorted(builtin_modules())
    assert all(module.built_in and module.description for module in answer.modules)
    http = next(module for module in answer.modules if module.class_name == "HttpRequestModule")
    assert http.config_schema["required"] == ["url"]
    assert answer.catalogue_revision == 0
    short = await stub.ListModules(pb.ListModulesRequest(without_schemas=True))
    assert not any(module.HasField("config_schema") for module in short.modules)


async def test_a_registered_module_is_listed_as_it_was_said(stub: GraphStoreServiceStub) -> None:
    said = a_module(
        "Counter",
        description="Counts.",
        configSchema=COUNT,
        pool="gpu",
        target="http:counter",
        retry={"maxAttempts": 7, "backoffBaseDelay": "0.5s"},
        timeout="30s",
        dedupe={"scope": "GLOBAL", "ttl": "3600s"},
    )
    (answered,) = await register(stub, said)
    assert (answered.registered_by, answered.built_in, answered.HasField("update_time")) == ("tester", False, True)
    listed = await stub.ListModules(pb.ListModulesRequest())
    assert next(module for module in listed.modules if module.class_name == "Counter") == answered
    answered.ClearField("registered_by")
    answered.ClearField("update_time")
    assert answered == said
    assert listed.catalogue_revision == 1
    assert "Counter" not in await names(stub, "elsewhere")


async def test_configs_are_checked_from_the_registration_on(stub: GraphStoreServiceStub) -> None:
    graph = counting({"count": "many"})
    saved = await stub.SaveGraph(a_save(graph))
    assert [warning.code for warning in saved.warnings] == ["UNKNOWN_MODULE"]
    await register(stub, a_module("Counter", configSchema=COUNT))
    assert await errors_of(stub, graph) == [("BAD_MODULE_DATA", "modules[0].config.count")]
    assert await errors_of(stub, counting({"count": "${trigger.n}"})) == []
    assert await errors_of(stub, counting('{"count": "many"}')) == [("BAD_MODULE_DATA", "modules[0].moduleData")]
    error = await refusal(stub.SaveGraph(a_save(graph)))
    assert isinstance(error, InvalidGraph)
    assert error.details.violations[0].field == "modules[0].config.count"
    assert '"many" is not an integer' in error.message
    good = await stub.SaveGraph(a_save(counting({"count": 3})))
    assert not good.warnings
    assert await errors_of(stub, graph, "elsewhere") == []


async def test_what_was_right_when_it_was_saved_is_restored_only_if_it_still_is(stub: GraphStoreServiceStub) -> None:
    first = await stub.SaveGraph(a_save(counting({"count": "many"})))
    second = await stub.SaveGraph(a_save(counting({"count": 3}), workflow=first.workflow))
    restore = pb.RestoreVersionRequest(workflow_id=second.workflow.id, version=1, current_version=2)
    await register(stub, a_module("Counter", configSchema=COUNT))
    error = await refusal(stub.RestoreVersion(restore))
    assert isinstance(error, InvalidGraph)
    assert (await stub.GetGraph(pb.GetGraphRequest(workflow_id=second.workflow.id))).graph.workflow.version == 2
    await register(stub, a_module("Counter"))
    assert (await stub.RestoreVersion(restore)).graph.workflow.version == 3


async def test_drafts_may_not_fit_but_are_not_published(stub: GraphStoreServiceStub) -> None:
    await register(stub, a_module("Counter", configSchema=COUNT))
    saved = await stub.SaveGraph(a_save(counting({"count": 3})))
    graph = pb.Graph()
    fill_from_graph(graph, counting({"count": "many"}))
    draft = await stub.SaveDraft(pb.SaveDraftRequest(workflow_id=saved.workflow.id, graph=graph))
    assert [error.path for error in draft.errors] == ["modules[0].config.count"]
    error = await refusal(stub.PublishDraft(pb.PublishDraftRequest(workflow_id=saved.workflow.id)))
    assert isinstance(error, InvalidGraph)


async def test_a_replica_knows_at_once_what_another_has_registered(
    stub: GraphStoreServiceStub, graph_store_database_url: str
) -> None:
    graph = counting({"count": "many"})
    async with another_replica(graph_store_database_url) as other:
        for number, replica in enumerate([other, other, stub, stub, other, other, stub, stub, stub, other]):
            await register(stub, a_module("Counter", configSchema=COUNT if number % 2 else {"type": "object"}))
            expected = [("BAD_MODULE_DATA", "modules[0].config.count")] if number % 2 else []
            assert await errors_of(replica, graph) == expected
            assert await errors_of(replica, counting({}, name="Unknown")) == []
        resolved = await other.ResolveVersions(pb.ResolveVersionsRequest())
        assert resolved.catalogue_revision == 10


async def test_a_module_that_is_said_again_stays_as_it_was(app: App, stub: GraphStoreServiceStub) -> None:
    (first,) = await register(stub, a_module("Counter", configSchema=COUNT))
    channel = open_channel(app.server.address, principal="another")
    again = await register(GraphStoreServiceStub(channel), a_module("Counter", configSchema=COUNT), a_module("New"))
    await channel.close()
    assert [(module.class_name, module.registered_by) for module in again] == [
        ("Counter", "tester"),
        ("New", "another"),
    ]
    assert again[0] == first
    answer = await stub.ListModules(pb.ListModulesRequest())
    assert answer.catalogue_revision == 2


async def test_a_repeated_registration_gets_the_first_answer_and_overwrites_nothing(
    stub: GraphStoreServiceStub,
) -> None:
    request = pb.RegisterModulesRequest(modules=[a_module("Counter", configSchema=COUNT)], request_id="r1")
    first = await stub.RegisterModules(request)
    await register(stub, a_module("Counter", description="newer"))
    assert await stub.RegisterModules(request) == first
    listed = await stub.ListModules(pb.ListModulesRequest())
    assert next(module for module in listed.modules if module.class_name == "Counter").description == "newer"
    request.modules[0].description = "other"
    error = await refusal(stub.RegisterModules(request))
    assert isinstance(error, RequestIdReused)


async def test_i04_a_registration_leaves_one_audit_event_and_what_changes_nothing_none(
    stub: GraphStoreServiceStub, graph_store_database_url: str
) -> None:
    await register(stub, a_module("B"), a_module("A"))
    await register(stub, a_module("B"), a_module("A"))
    await register(stub, a_module("B", pool="gpu"), a_module("C"))
    listed = await stub.ListAuditEvents(pb.ListAuditEventsRequest())
    assert [(event.action, event.principal, event.workflow_id, event.message) for event in listed.events] == [
        ("modules.registered", "tester", "", "adds C; replaces B"),
        ("modules.registered", "tester", "", "adds B, A"),
    ]
    newest, oldest = listed.events
    assert [(event.from_version, event.to_version) for event in (newest, oldest)] == [(1, 2), (0, 1)]
    assert newest.from_hash != newest.to_hash
    assert oldest.from_hash == ""
    connection = await asyncpg.connect(graph_store_database_url)
    assert await connection.fetchval("SELECT count(*) FROM graph_store.audit_event") == 2
    await connection.close()


async def test_registrations_at_once_follow_each_other(
    stub: GraphStoreServiceStub, graph_store_database_url: str
) -> None:
    async with another_replica(graph_store_database_url) as other:
        await asyncio.gather(
            *[
                register(replica, a_module("Same", description=str(i)), a_module(f"M{i}"))
                for i, replica in enumerate([stub, other] * 5)
            ]
        )
        listed = await other.ListModules(pb.ListModulesRequest(without_schemas=True))
        events = (await stub.ListAuditEvents(pb.ListAuditEventsRequest())).events
    assert listed.catalogue_revision == 10
    assert {f"M{i}" for i in range(10)} < {module.class_name for module in listed.modules}
    assert [(event.from_version, event.to_version) for event in events] == [(i - 1, i) for i in range(10, 0, -1)]


async def test_a_request_sent_twice_at_once_is_one_registration(
    stub: GraphStoreServiceStub, graph_store_database_url: str
) -> None:
    request = pb.RegisterModulesRequest(modules=[a_module("M")], request_id="r")
    async with another_replica(graph_store_database_url) as other:
        answers = await asyncio.gather(*[replica.RegisterModules(request) for replica in [stub, other] * 4])
        events = (await stub.ListAuditEvents(pb.ListAuditEventsRequest())).events
    assert all(answer == answers[0] for answer in answers)
    assert len(events) == 1


async def test_a_change_of_the_catalogue_is_no_change_of_a_workflow(stub: GraphStoreServiceStub) -> None:
    watch = stub.WatchWorkflows(pb.WatchWorkflowsRequest())
    await anext(aiter(watch))
    await register(stub, a_module("M"))
    saved = await stub.SaveGraph(a_save(a_graph("a")))
    told: list[str] = []
    while not told:
        told += [change.workflow.id for change in (await anext(aiter(watch))).changes]
    assert told == [saved.workflow.id]
    watch.cancel()


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a class without a name": ({"className": ""}, "modules[0].className", "is empty"),
    "one that comes with Valkyr": ({"className": "LogModule"}, "modules[0].className", "comes with Valkyr"),
    "a schema that is none": (
        {"configSchema": {"properties": {"a": {"type": "strng"}}}},
        "modules[0].configSchema.properties.a.type",
        "strng",
    ),
    "another dialect": (
        {"configSchema": {"$schema": "http://json-schema.org/draft-07/schema#"}},
        "modules[0].configSchema.$schema",
        "2020-12",
    ),
    "another document": (
        {"configSchema": {"$ref": "file:///etc/passwd"}},
        "modules[0].configSchema.$ref",
        "another document",
    ),
    "a pattern that is none": (
        {"configSchema": {"properties": {"a": {"pattern": "("}}}},
        "modules[0].configSchema.properties.a.pattern",
        "no regular expression",
    ),
    "NUL in a schema": ({"configSchema": {"const": "\x00"}}, "modules[0].configSchema", "NUL"),
    "NUL in a pool": ({"pool": "a\x00"}, "modules[0].pool", "NUL"),
    "a schema that is too large": (
        {"configSchema": {"description": "x" * 65_536}},
        "modules[0].configSchema",
        "at most 65,536",
    ),
    "a description that is too long": ({"description": "x" * 10_001}, "modules[0].description", "at most 10,000"),
    "a class name that is too long": ({"className": "x" * 513}, "modules[0].className", "at most 512"),
    "a target that is too long": ({"target": "x" * 501}, "modules[0].target", "at most 500"),
    "a timeout of nothing": ({"timeout": "0s"}, "modules[0].timeout", "not more than zero"),
    "equals of no scope": ({"dedupe": {"ttl": "60s"}}, "modules[0].dedupe.scope", "takes one of WORKFLOW, GLOBAL"),
    "equals for no time": ({"dedupe": {"scope": "GLOBAL", "ttl": "0s"}}, "modules[0].dedupe.ttl", "not more than zero"),
    "equals for too long": (
        {"dedupe": {"scope": "WORKFLOW", "ttl": "2592001s"}},
        "modules[0].dedupe.ttl",
        "reused for 30 days",
    ),
    "no attempts": ({"retry": {"maxAttempts": 0}}, "modules[0].retry.maxAttempts", "too few"),
}


@pytest.mark.parametrize("case", BAD)
async def test_i25_what_is_wrong_is_named_and_nothing_is_registered(stub: GraphStoreServiceStub, case: str) -> None:
    fields, path, words = BAD[case]
    error = await refusal(register(stub, a_module("M", **fields), a_module("Fine")))
    assert type(error).__name__ in ("InvalidRequest", "LimitExceeded")
    assert error.details.violations[0].field.startswith(path)
    assert words in error.details.violations[0].description
    assert "Fine" not in await names(stub)


async def test_a_class_is_said_once(stub: GraphStoreServiceStub) -> None:
    error = await refusal(register(stub, a_module("M"), a_module("M")))
    assert error.details.violations[0].field == "modules[1].className"
    error = await refusal(register(stub))
    assert error.details.violations[0].field == "modules"


async def test_the_number_of_modules_is_bounded_at_once_and_in_all(
    stub: GraphStoreServiceStub, graph_store_database_url: str
) -> None:
    thousand = [a_module(f"M{i}") for i in range(1_000)]
    error = await refusal(register(stub, *thousand, a_module("More")))
    assert isinstance(error, LimitExceeded)
    assert len(await register(stub, *thousand)) == 1_000
    async with another_replica(graph_store_database_url, catalogue=CatalogueSettings(modules=1_001)) as other:
        await register(other, a_module("M0", pool="p"), a_module("One"))
        error = await refusal(register(other, a_module("Two")))
        assert isinstance(error, LimitExceeded)
        assert "would have 1,002 modules; at most 1,001" in error.message
        await register(other, a_module("One", pool="p"))
    sizes = CatalogueSettings(modules=2_000, schema_bytes=len('{"description":""}') + 100)
    async with another_replica(graph_store_database_url, catalogue=sizes) as other:
        await register(other, a_module("Large", configSchema={"description": "x" * 100}))
        error = await refusal(register(other, a_module("Large", configSchema={"description": "x" * 101})))
        assert isinstance(error, LimitExceeded)
        assert "would have 119 bytes as JSON; at most 118" in error.message


async def test_a_list_goes_on_where_its_page_ended(stub: GraphStoreServiceStub) -> None:
    await register(stub, *[a_module(name) for name in ("Zed", "alpha", "Ärger", "Fa", "Counter")])
    expected = sorted([*builtin_modules(), "Zed", "alpha", "Ärger", "Fa", "Counter"])
    for size in (1, 2, 3, 7, 100):
        found: list[str] = []
        token = ""
        while True:
            page = await stub.ListModules(pb.ListModulesRequest(page_size=size, page_token=token))
            assert len(page.modules) <= size
            found += [module.class_name for module in page.modules]
            token = page.next_page_token
            if not token:
                break
        assert found == expected


async def test_large_schemas_come_in_pages_that_fit_into_messages(stub: GraphStoreServiceStub) -> None:
    numbers = {"enum": list(range(10_000))}
    large = [f"Large{i:03}" for i in range(120)]
    for start in range(0, 120, 40):
        await register(stub, *[a_module(name, configSchema=numbers) for name in large[start : start + 40]])
    found, token, pages = [], "", 0
    while True:
        page = await stub.ListModules(pb.ListModulesRequest(page_size=1_000, page_token=token))
        found += [module.class_name for module in page.modules if not module.built_in]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert found == large
    assert pages > 1
    assert await errors_of(stub, counting({"x": 1}, name="Large007")) == [("BAD_MODULE_DATA", "modules[0].config")]


async def test_a_hostile_schema_costs_a_save_of_its_class_and_nobody_else(stub: GraphStoreServiceStub) -> None:
    parts: dict[str, Any] = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    doubling = {"$defs": {**parts, "a40": {"required": ["x"]}}, "$ref": "#/$defs/a0", "unevaluatedProperties": False}
    patterns: dict[str, Any] = {"patternProperties": {f"^a{i}x": {} for i in range(64)}}
    await register(stub, a_module("Doubling", configSchema=doubling), a_module("Patterns", configSchema=patterns))
    assert await errors_of(stub, counting({}, name="Doubling")) == [("BAD_MODULE_DATA", "modules[0].config")]
    many = counting({f"a{i}": 1 for i in range(4_000)}, name="Patterns")
    assert await errors_of(stub, many) == [("LIMIT_EXCEEDED", "modules[0].config")]
    assert await errors_of(stub, counting({"a1": 7}, name="Patterns")) == []


@pytest.mark.parametrize(
    ("pattern", "fit"), [("^a{}x$", 64), ("^[a-z0-9-]{{1,63}}{}$", 16), ("^[a-z]{{500}}{}$", 4), ("(?!a)b{}", 21)]
)
async def test_patterns_of_a_schema_are_bounded_together(stub: GraphStoreServiceStub, pattern: str, fit: int) -> None:
    properties = {f"p{i}": {"pattern": pattern.format(i)} for i in range(fit)}
    await register(stub, a_module("Fits", configSchema={"properties": properties}))
    properties[f"p{fit}"] = {"pattern": pattern.format(fit)}
    too_many = pb.RegisterModulesRequest(modules=[a_module("TooMany", configSchema={"properties": properties})])
    error = await refusal(stub.RegisterModules(too_many))
    assert error.details.violations[0].field.startswith("modules[0].configSchema.properties.p")
    assert "at most 524,288 are allowed; use fewer" in error.message


@pytest.mark.parametrize("token", ["!", "AAAA", "x" * 50])
async def test_a_token_of_another_list_is_refused(stub: GraphStoreServiceStub, token: str) -> None:
    error = await refusal(stub.ListModules(pb.ListModulesRequest(page_token=token)))
    assert error.details.violations[0].field == "pageToken"
