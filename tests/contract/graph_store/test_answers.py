"""What GraphStoreService answers, over a real channel and through grpcurl."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import orjson
import pytest
from google.protobuf import json_format

from services.graph_store.app import App
from tests.builders import a_graph
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.client import Client
from valkyr.errors import InvalidGraph, ValkyrError, VersionConflict
from valkyr.graph.document import content_hash, graph_from_document
from valkyr.graph.model import Module, WorkflowInfo
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph, graph_from_proto
from valkyr.rpc.status import from_rpc_error

ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
SERVICE = "valkyr.api.graph.v1.GraphStoreService"
V1_BODY = {
    "workflow": {"id": ID, "description": "Order fulfilment", "version": 5},
    "nodes": [
        {"nodeId": "0", "label": "Start\nhere", "position": {"x": -120.5, "y": 0}},
        {"nodeId": "pay", "label": "", "position": {"x": 240, "y": 12345678901234}},
        {"nodeId": "Pay", "label": "支付"},
    ],
    "edges": [{"edgeId": "e1", "source": "0", "target": "pay"}, {"edgeId": "e2", "source": "0", "target": "Pay"}],
    "modules": [
        {"nodeId": "pay", "className": "HttpCall", "moduleData": '{"url": "${not.evaluated}", "n": 9007199254740993}'}
    ],
    "version": 5,
}


def a_save(graph: Any, **fields: Any) -> pb.SaveGraphRequest:
    request = pb.SaveGraphRequest(**fields)
    fill_from_graph(request, graph)
    return request


async def grpcurl(app: App, *arguments: str, data: str | None = None) -> tuple[int, str]:
    """Exit code, and what it printed on both streams."""
    program = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or "grpcurl"
    flags = ["-plaintext", "-max-time", "20", *(["-d", "@"] if data is not None else [])]
    process = await asyncio.create_subprocess_exec(
        program,
        *flags,
        app.server.address,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate((data or "").encode())
    return process.returncode or 0, output.decode()


async def test_grpcurl_saves_the_v1_body_unchanged(app: App, stub: GraphStoreServiceStub) -> None:
    code, output = await grpcurl(app, f"{SERVICE}/SaveGraph", data=orjson.dumps(V1_BODY).decode())
    assert code == 0, output
    # As clients read it: names in either spelling that JSON of protobuf may have.
    answer = json_format.MessageToDict(json_format.Parse(output, pb.SaveGraphResponse()))
    assert (answer["workflow"]["id"], answer["workflow"]["version"]) == (ID, 1)
    assert answer["workflow"]["description"] == "Order fulfilment"
    assert answer["nodeIdToTaskId"].keys() == {"0", "pay", "Pay"}
    assert answer["edgeIdToConnectionId"].keys() == {"e1", "e2"}
    assert answer["moduleIdMapping"].keys() == {"pay"}
    assert answer["modules"][0]["moduleData"] == V1_BODY["modules"][0]["moduleData"]  # type: ignore[index]
    assert answer["nodes"][0]["position"] == {"x": -120.5}
    assert "position" not in answer["nodes"][2]
    assert {warning["code"] for warning in answer["warnings"]} == {"MISSING_MODULE", "UNKNOWN_MODULE"}
    code, output = await grpcurl(app, f"{SERVICE}/SaveGraph", data=orjson.dumps(V1_BODY).decode())
    assert code != 0
    assert "VERSION_CONFLICT" in output
    saved_again = {**V1_BODY, "version": 1, "workflow": {**V1_BODY["workflow"], "version": 1}}  # type: ignore[dict-item]
    code, output = await grpcurl(app, f"{SERVICE}/SaveGraph", data=orjson.dumps(saved_again).decode())
    assert orjson.loads(output)["unchanged"] is True


async def test_grpcurl_lists_and_describes_the_service(app: App) -> None:
    assert SERVICE in (await grpcurl(app, "list"))[1]
    code, output = await grpcurl(app, "describe", SERVICE)
    assert code == 0, output
    assert "rpc SaveGraph ( .valkyr.api.graph.v1.SaveGraphRequest )" in output


@pytest.mark.parametrize(
    "body",
    ['{"nodes": [{"nodeId": "a", "priority": "high"}]}', '{"knoten": []}', '{"version": 99999999999}', "nonsense"],
)
async def test_grpcurl_is_told_what_is_wrong(app: App, body: str) -> None:
    code, output = await grpcurl(app, f"{SERVICE}/SaveGraph", data=body)
    assert code != 0
    assert "Internal" not in output


async def test_an_answer_holds_the_graph_its_ids_and_its_hash(stub: GraphStoreServiceStub) -> None:
    graph = a_graph("a -> b, a -> b", modules={"b": None})
    saved = await stub.SaveGraph(a_save(graph, workflow=pb.Workflow(name="n", labels={"k": "v"})))
    assert graph_from_proto(saved)[1] == graph
    assert saved.workflow.content_hash == content_hash(graph)
    assert (saved.workflow.name, dict(saved.workflow.labels), saved.workflow.namespace) == ("n", {"k": "v"}, "default")
    assert [node.task_id for node in saved.nodes] == [saved.node_id_to_task_id[node.node_id] for node in saved.nodes]
    assert {edge.edge_id: edge.connection_id for edge in saved.edges} == dict(saved.edge_id_to_connection_id)
    assert {module.node_id: module.module_id for module in saved.modules} == dict(saved.module_id_mapping)
    assert [warning.code for warning in saved.warnings] == ["PARALLEL_EDGE", "MISSING_MODULE"]
    read = (await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id))).graph
    assert (read.workflow, list(read.nodes), list(read.edges)) == (
        saved.workflow,
        list(saved.nodes),
        list(saved.edges),
    )
    assert list(read.modules) == list(saved.modules)


@pytest.mark.parametrize("expand", [False, True])
async def test_a_read_can_be_saved_again_and_changes_nothing(stub: GraphStoreServiceStub, expand: bool) -> None:
    graph = a_graph(
        "a -> b -> c",
        modules={
            "a": Module("a", "M", module_data='{"x": "${y}", "big": 12345678901234567890, "f": 1.50}'),
            "b": ("M", {"x": "${1}", "y": "$${", "n": [1, 2.5, None, True, {}]}),
        },
    )
    saved = await stub.SaveGraph(a_save(graph))
    read = (await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id, expand_config=expand))).graph
    assert read.modules[0].HasField("config") is expand
    body = json_format.MessageToDict(read)
    again = await stub.SaveGraph(json_format.ParseDict(body, pb.SaveGraphRequest()))
    assert again.unchanged
    assert again.workflow == saved.workflow


@pytest.mark.parametrize("depth", [1, 28, 29, 30, 31, 32])
@pytest.mark.parametrize("opening", ["[", '{"a":'], ids=["lists", "objects"])
async def test_a_deep_config_comes_back_as_it_was_saved(stub: GraphStoreServiceStub, opening: str, depth: int) -> None:
    config = nested(opening, depth)
    saved = await stub.SaveGraph(a_save(a_graph("a", modules={"a": ("M", config)})))
    read = (await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id))).graph
    assert graph_from_proto(read)[1].modules[0].config == config
    again = await stub.SaveGraph(pb.SaveGraphRequest(workflow=read.workflow, nodes=read.nodes, modules=read.modules))
    assert (again.unchanged, again.workflow) == (True, saved.workflow)


@pytest.mark.parametrize(("opening", "depth"), [('{"a":', 33), ("[", 33), ("[", 49)])
async def test_a_config_deeper_than_answers_carry_is_refused(
    stub: GraphStoreServiceStub, opening: str, depth: int
) -> None:
    request = pb.SaveGraphRequest(nodes=[pb.Node(node_id="a")], modules=[pb.Module(node_id="a", class_name="M")])
    json_format.ParseDict(nested(opening, depth), request.modules[0].config, max_recursion_depth=200)
    with pytest.raises(grpc.RpcError) as caught:
        await stub.SaveGraph(request)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidGraph)
    assert [violation.field for violation in error.details.violations] == ["modules[0].config"]
    assert "nested deeper than 32 levels" in error.message
    answer = await stub.ValidateGraph(pb.ValidateGraphRequest(nodes=request.nodes, modules=request.modules))
    assert [(found.code, found.path) for found in answer.errors] == [("LIMIT_EXCEEDED", "modules[0].config")]


@pytest.mark.parametrize("depth", [*range(28, 36), 48, 49, 64, 65])
@pytest.mark.parametrize("opening", ["[", '{"a":'], ids=["lists", "objects"])
async def test_the_sdk_saves_a_deep_config_unchanged_or_refuses_it(app: App, opening: str, depth: int) -> None:
    config = nested(opening, depth)
    graph = a_graph("a", modules={"a": ("NoopModule", config)})
    async with Client(app.server.address) as client:
        if depth > 32:
            with pytest.raises(InvalidGraph, match="nested deeper than 32 levels"):
                await client.graphs.save(graph)
            found = [found for found in await client.graphs.validate(graph) if found.is_error]
            assert [(one.code, one.path) for one in found] == [("LIMIT_EXCEEDED", "modules[0].config")]
            return
        saved = await client.graphs.save(graph)
        assert (await client.graphs.get(saved.workflow.id)).graph == graph
        again = WorkflowInfo(id=saved.workflow.id, version=1)
        assert (await client.graphs.save(saved.graph, workflow=again)).unchanged


@pytest.mark.parametrize("depth", [32, 33, 64])
async def test_module_data_may_be_deeper_and_is_then_not_expanded(stub: GraphStoreServiceStub, depth: int) -> None:
    data = orjson.dumps(nested('{"a":', depth)).decode()
    saved = await stub.SaveGraph(a_save(a_graph("a", modules={"a": Module("a", "M", module_data=data)})))
    read = (await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id, expand_config=True))).graph
    assert read.modules[0].module_data == data
    assert read.modules[0].HasField("config") is (depth <= 32)
    again = await stub.SaveGraph(pb.SaveGraphRequest(workflow=read.workflow, nodes=read.nodes, modules=read.modules))
    assert again.unchanged


def nested(opening: str, depth: int) -> Any:
    """An object around lists or objects, `depth` levels in all."""
    closing = "]" if opening == "[" else "}"
    return orjson.loads('{"x":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}")


async def test_a_try_out_answers_and_saves_nothing(stub: GraphStoreServiceStub) -> None:
    tried = await stub.SaveGraph(a_save(a_graph("a -> b"), workflow=pb.Workflow(id=ID), validate_only=True))
    assert (tried.workflow.id, tried.workflow.version, len(tried.node_id_to_task_id)) == (ID, 1, 2)
    assert (await stub.ResolveVersions(pb.ResolveVersionsRequest(workflow_ids=[ID]))).missing_ids == [ID]


async def test_validation_answers_every_finding_and_saves_nothing(stub: GraphStoreServiceStub) -> None:
    request = pb.ValidateGraphRequest()
    fill_from_graph(request, a_graph("a -> b -> a, c, d -> d", modules={"c": None}))
    answer = await stub.ValidateGraph(request)
    assert not answer.valid
    assert sorted(error.code for error in answer.errors) == ["CYCLE", "SELF_LOOP"]
    assert sorted(warning.code for warning in answer.warnings) == ["MISSING_MODULE", "ORPHAN_NODE"]
    assert {error.code: list(error.node_ids) for error in answer.errors} == {"CYCLE": ["a", "b"], "SELF_LOOP": ["d"]}
    assert not (await stub.FindWorkflows(pb.FindWorkflowsRequest())).workflows


async def test_the_configs_of_known_modules_are_checked(stub: GraphStoreServiceStub) -> None:
    request = pb.ValidateGraphRequest()
    fill_from_graph(request, a_graph("a, b", modules={"a": ("DelayModule", {"duration": 5}), "b": "Nope"}))
    answer = await stub.ValidateGraph(request)
    assert [(error.code, error.path) for error in answer.errors] == [("BAD_MODULE_DATA", "modules[0].config.duration")]
    assert "UNKNOWN_MODULE" in [warning.code for warning in answer.warnings]


async def test_lists_page_and_resolve(stub: GraphStoreServiceStub) -> None:
    version = 0
    for number in range(3):
        request = a_save(a_graph(f"a -> b{number}"), workflow=pb.Workflow(id=ID, name="n"), message=f"m{number}")
        request.version = version
        version = (await stub.SaveGraph(request)).workflow.version
    first = await stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID, page_size=2))
    rest = await stub.ListVersions(
        pb.ListVersionsRequest(workflow_id=ID, page_size=2, page_token=first.next_page_token)
    )
    assert [(v.version, v.author, v.message) for v in [*first.versions, *rest.versions]] == [
        (3, "tester", "m2"),
        (2, "tester", "m1"),
        (1, "tester", "m0"),
    ]
    assert rest.next_page_token == ""
    whole = await stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID, page_size=3))
    assert (len(whole.versions), whole.next_page_token) == (3, "")
    other = (await stub.SaveGraph(a_save(a_graph("x")))).workflow.id
    page = await stub.FindWorkflows(pb.FindWorkflowsRequest(page_size=1))
    last = await stub.FindWorkflows(pb.FindWorkflowsRequest(page_size=1, page_token=page.next_page_token))
    assert [workflow.id for workflow in [*page.workflows, *last.workflows]] == [other, ID]
    assert last.next_page_token == ""
    upper = ID.upper()
    unknown = ID.replace("9d52", "9D53")
    resolved = await stub.ResolveVersions(pb.ResolveVersionsRequest(workflow_ids=[upper, unknown, other]))
    assert dict(resolved.versions) == {upper: 3, other: 1}
    assert list(resolved.missing_ids) == [unknown]


async def test_i04_i23_the_audit_event_names_the_caller_and_its_trace(app: App, graph_store_database_url: str) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    principal = "0B0E7A52-9D1C-4C59-8F43-0A8F1F0D8A11"
    channel = open_channel(app.server.address, principal=principal)
    stub = GraphStoreServiceStub(channel)
    await stub.SaveGraph(a_save(a_graph("a")), metadata=(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),))
    await channel.close()
    connection = await asyncpg.connect(graph_store_database_url)
    (event,) = await connection.fetch("select * from graph_store.audit_event")
    await connection.close()
    assert (event["principal_name"], str(event["principal_id"])) == (principal, principal.lower())
    assert event["trace_id"] == trace_id


async def test_i02_of_fifty_clients_that_save_at_once_one_wins(app: App, stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save(a_graph("a"), workflow=pb.Workflow(id=ID)))
    channels = [open_channel(app.server.address, principal=f"client {number}") for number in range(50)]

    async def save(number: int) -> pb.SaveGraphResponse | ValkyrError:
        request = a_save(a_graph(f"a -> b{number}"), workflow=pb.Workflow(id=ID), version=1)
        try:
            return await GraphStoreServiceStub(channels[number]).SaveGraph(request)  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)

    outcomes = await asyncio.gather(*(save(number) for number in range(50)))
    await asyncio.gather(*(channel.close() for channel in channels))
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, pb.SaveGraphResponse)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, VersionConflict)]
    assert len(losers) == 49
    assert {loser.current_version for loser in losers} == {2}
    read = await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))
    assert list(read.graph.nodes) == list(winner.nodes)


async def test_every_real_graph_is_saved_and_read_back_or_refused(stub: GraphStoreServiceStub) -> None:
    folder = Path(__file__).parents[2] / "data" / "graphs"
    index = orjson.loads((folder / "index.json").read_bytes())["graphs"]
    refused = {"cycle", "dangling-edge", "duplicate-edge-id"}
    for entry in index:
        body = (folder / entry["file"]).read_text()
        # Some share a name.
        request = json_format.Parse(body, pb.SaveGraphRequest(namespace=entry["file"]))
        if refused & set(entry["verdict"]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.SaveGraph(request)
            assert isinstance(from_rpc_error(caught.value), InvalidGraph), entry["file"]
            continue
        saved = await stub.SaveGraph(request)
        read = await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id, namespace=entry["file"]))
        assert graph_from_proto(read.graph)[1] == graph_from_document(orjson.loads(body)), entry["file"]
        assert len(saved.node_id_to_task_id) == entry["expected"]["n_nodes"]
        assert len(saved.edge_id_to_connection_id) == entry["expected"]["n_edges"]
