"""Every limit at its exact boundary, through the server: n passes, n + 1 is refused by field, value and mend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from services.graph_store.app import open_app
from services.graph_store.settings import GraphStoreSettings, LimitSettings
from tests.builders import a_graph
from tests.contract.graph_store.test_errors import ID, a_save, error_of
from tests.graphs_at_limits import LIMITS
from tests.postgres import patient
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import InvalidGraph, InvalidRequest, LimitExceeded
from valkyr.graph.limits import DEFAULT_LIMITS
from valkyr.graph.model import Graph, Node
from valkyr.rpc.channel import MAX_MESSAGE_BYTES, open_channel
from valkyr.rpc.graphs import fill_from_graph, graph_from_proto
from valkyr.rpc.status import from_rpc_error

COUNTED = [name for name in LIMITS if "depth" not in name]


def saving(graph: Graph) -> pb.SaveGraphRequest:
    request = pb.SaveGraphRequest()
    fill_from_graph(request, graph)
    return request


def one_level_deeper(graph: Graph) -> pb.SaveGraphRequest:
    """What a client would refuse to send."""
    request = saving(graph)
    config = Struct()
    config.fields["x"].struct_value.CopyFrom(request.modules[0].config)
    request.modules[0].config.CopyFrom(config)
    return request


async def refusal_of(stub: GraphStoreServiceStub, request: pb.SaveGraphRequest, path: str) -> str:
    """What is said of the field, by the save and by the validation, which agree; nothing is stored."""
    error = await error_of(stub.SaveGraph(request))
    assert isinstance(error, InvalidGraph)
    (bad,) = error.details.violations
    checked = pb.ValidateGraphRequest(nodes=request.nodes, edges=request.edges, modules=request.modules)
    (found,) = (await stub.ValidateGraph(checked)).errors
    assert (bad.field, bad.description) == (found.path, f"{found.code}: {found.message}")
    assert (found.code, found.path) == ("LIMIT_EXCEEDED", path)
    assert found.hint
    assert error.hint.startswith(found.hint)
    assert len((await stub.FindWorkflows(pb.FindWorkflowsRequest())).workflows) == 0
    return bad.description


@pytest.mark.parametrize("name", LIMITS)
async def test_i25_a_graph_at_a_limit_is_saved_and_read_and_one_over_it_is_refused(
    stub: GraphStoreServiceStub, name: str
) -> None:
    make, limit, path = LIMITS[name]
    too_deep = name == "depth of a config"
    over = one_level_deeper(make(limit)) if too_deep else saving(make(limit + 1))
    said = await refusal_of(stub, over, path)
    assert f"at most {limit:,} are allowed" in said
    if name in COUNTED:
        assert f"{limit + 1:,}" in said
    saved = await stub.SaveGraph(saving(make(limit)))
    read = await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id))
    assert graph_from_proto(read.graph)[1] == make(limit)


@pytest.fixture
async def strict(graph_store_database_url: str) -> AsyncIterator[GraphStoreServiceStub]:
    """A graph store with limits of its own."""
    limits = LimitSettings(nodes=3, edges=2, config_bytes=30, json_depth=2, label_chars=12, id_chars=10, expressions=2)
    settings = GraphStoreSettings(database=patient(graph_store_database_url), limits=limits)
    async with open_app(settings) as app:
        channel = open_channel(app.server.address)
        yield GraphStoreServiceStub(channel)
        await channel.close()


def of_nodes(ids: str) -> Graph:
    return Graph(tuple(map(Node, ids)))


def with_config(text: str) -> Graph:
    return a_graph("a", modules={"a": ("M", {"x": text})})


OF_SETTINGS: dict[str, tuple[Graph, Graph, str, str]] = {
    "nodes": (of_nodes("abc"), of_nodes("abcd"), "nodes", "4 nodes; at most 3"),
    "edges": (a_graph("a -> b -> c"), a_graph("a -> b -> c, a -> c"), "edges", "3 edges; at most 2"),
    "config": (with_config("x" * 22), with_config("x" * 23), "modules[0].config", "31 bytes; at most 30"),
    "label": (
        Graph((Node("a", "x" * 12),)),
        Graph((Node("a", "x" * 13),)),
        "nodes[0].label",
        "13 characters; at most 12",
    ),
    "id": (a_graph("a" * 10), Graph((Node("a" * 11),)), "nodes[0].nodeId", "11 characters; at most 10"),
    "expressions": (with_config("${1} ${2}"), with_config("${1}${2}${3}"), "modules[0].config.x", "more than 2"),
}


@pytest.mark.parametrize("name", OF_SETTINGS)
async def test_limits_of_the_settings_hold_at_the_server(strict: GraphStoreServiceStub, name: str) -> None:
    within, over, path, words = OF_SETTINGS[name]
    said = await refusal_of(strict, saving(over), path)
    assert words in said
    assert (await strict.SaveGraph(saving(within))).workflow.version == 1


def of_workflow(**fields: Any) -> pb.SaveGraphRequest:
    request = a_save()
    request.workflow.MergeFrom(pb.Workflow(**fields))
    return request


REQUESTS: dict[str, tuple[Callable[[int], pb.SaveGraphRequest], int, str]] = {
    "namespace": (lambda size: a_save(namespace="n" * size), 255, "namespace"),
    "name": (lambda size: of_workflow(name="ü" * size), 255, "workflow.name"),
    "description": (lambda size: of_workflow(description="ü" * size), 10_000, "workflow.description"),
    "labels": (lambda size: of_workflow(labels={f"{n}": "" for n in range(size)}), 64, "workflow.labels"),
    "key of a label": (lambda size: of_workflow(labels={"k" * size: ""}), 255, "workflow.labels."),
    "value of a label": (lambda size: of_workflow(labels={"k": "v" * size}), 255, "workflow.labels.'k'"),
    "message": (lambda size: a_save(message="ü" * size), 10_000, "message"),
    "request id": (lambda size: a_save(request_id="r" * size), 255, "requestId"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_i25_what_is_said_beside_the_graph_has_limits_too(stub: GraphStoreServiceStub, name: str) -> None:
    make, limit, path = REQUESTS[name]
    error = await error_of(stub.SaveGraph(make(limit + 1)))
    assert isinstance(error, InvalidRequest)
    (bad,) = error.details.violations
    assert bad.field.startswith(path)
    assert f"{limit:,}" in bad.description
    assert f"{limit + 1:,}" in bad.description or name == "namespace"
    assert (await stub.SaveGraph(make(limit))).workflow.version == 1


async def test_i25_lists_are_asked_for_a_thousand_at_a_time(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    await stub.ResolveVersions(pb.ResolveVersionsRequest(workflow_ids=[ID] * 1_000))
    await stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID, page_size=1_000))
    await stub.FindWorkflows(pb.FindWorkflowsRequest(page_size=1_000))
    refused = {
        "workflowIds": stub.ResolveVersions(pb.ResolveVersionsRequest(workflow_ids=[ID] * 1_001)),
        "pageSize": stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID, page_size=1_001)),
    }
    for path, call in refused.items():
        error = await error_of(call)
        assert isinstance(error, InvalidRequest)
        assert [bad.field for bad in error.details.violations] == [path]


def a_message_of(size: int) -> pb.ValidateGraphRequest:
    """As large as said: the names of classes that nobody knows."""
    request = pb.ValidateGraphRequest()
    request.nodes.add(node_id="a")
    text = "x" * 500_000
    while request.ByteSize() + len(text) + 100 < size:
        request.modules.add(node_id="a", class_name=text)
    last = request.modules.add(node_id="a")
    last.class_name = "x" * (size - request.ByteSize() - 8)
    last.class_name += "x" * (size - request.ByteSize())
    assert request.ByteSize() == size
    return request


async def whole(call: Callable[..., Any], request: Any, field: str) -> list[Any]:
    """All items of a list, page by page; every page but the last stopped short of a thousand."""
    items: list[Any] = []
    request.page_size = 1_000
    while not items or request.page_token:
        answer = await call(request)
        assert answer.ByteSize() <= MAX_MESSAGE_BYTES
        items += getattr(answer, field)
        request.page_token = answer.next_page_token
        assert len(items) < 1_000
    return items


async def test_a_page_ends_where_what_is_large_fills_it(stub: GraphStoreServiceStub) -> None:
    wide = "\U0001d11e"
    labels = {wide * 252 + f"{number:03}": wide * 255 for number in range(64)}
    ids = []
    for _ in range(60):
        request = saving(a_graph("a"))
        request.workflow.description = wide * 10_000
        request.workflow.labels.update(labels)
        ids.append((await stub.SaveGraph(request)).workflow.id)
    found = await whole(stub.FindWorkflows, pb.FindWorkflowsRequest(), "workflows")
    assert [workflow.id for workflow in found] == ids[::-1]
    assert sum(workflow.ByteSize() for workflow in found) > 8 * 1024 * 1024


async def test_a_page_of_history_ends_where_long_messages_fill_it(stub: GraphStoreServiceStub) -> None:
    request = a_save("a")
    for number in range(220):
        request.workflow.version = number
        request.nodes[0].label = f"edit {number}"
        request.message = "\U0001d11e" * 10_000
        await stub.SaveGraph(request)
    versions = await whole(stub.ListVersions, pb.ListVersionsRequest(workflow_id=ID), "versions")
    assert [version.version for version in versions] == list(range(220, 0, -1))
    events = await whole(stub.ListAuditEvents, pb.ListAuditEventsRequest(workflow_id=ID), "events")
    assert [event.to_version for event in events] == list(range(220, 0, -1))
    assert sum(event.ByteSize() for event in events) > 8 * 1024 * 1024


async def test_a_message_of_sixteen_mebibytes_is_read_and_a_larger_one_is_refused_by_either_end(
    app: Any, stub: GraphStoreServiceStub
) -> None:
    largest, larger = a_message_of(MAX_MESSAGE_BYTES), a_message_of(MAX_MESSAGE_BYTES + 1)
    assert {found.code for found in (await stub.ValidateGraph(largest)).errors} >= {"LIMIT_EXCEEDED"}
    unbounded = grpc.aio.insecure_channel(app.server.address, options=[("grpc.max_send_message_length", -1)])
    for ends in (stub, GraphStoreServiceStub(unbounded)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ends.ValidateGraph(larger)
        error = from_rpc_error(caught.value)
        assert isinstance(error, LimitExceeded)
        assert "16 MiB" in str(error)
        assert f"{MAX_MESSAGE_BYTES + 1}" in str(error)
        assert error.hint
    await unbounded.close()


def test_the_limits_are_those_that_the_documentation_names() -> None:
    limits = DEFAULT_LIMITS
    assert (limits.nodes, limits.edges, limits.config_bytes) == (10_000, 50_000, 256 * 1024)
    assert (limits.json_depth, limits.label_chars, limits.id_chars, limits.expression_bytes) == (64, 1_000, 512, 4_096)
