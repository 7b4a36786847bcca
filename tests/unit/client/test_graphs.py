"""client.graphs: validates before it saves, and brings all findings."""

from __future__ import annotations

from typing import Any

import pytest

from valkyr import errors
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.client import Client
from valkyr.graph.model import Edge, Graph, Module, Node, WorkflowInfo

A_WORKFLOW = "0198c0de-0000-7000-8000-000000000001"
A_GRAPH = Graph(
    nodes=(Node("a"), Node("b")),
    edges=(Edge("e1", "a", "b"),),
    modules=(Module("a", "NoopModule", config={}), Module("b", "NoopModule", config={})),
)
A_CYCLE = Graph(nodes=A_GRAPH.nodes, edges=(Edge("e1", "a", "b"), Edge("e2", "b", "a")), modules=A_GRAPH.modules)


def saved(version: int = 1) -> pb.SaveGraphResponse:
    answer = pb.SaveGraphResponse(workflow=pb.Workflow(id=A_WORKFLOW, version=version))
    answer.nodes.add(node_id="a")
    answer.node_id_to_task_id["a"] = "t1"
    return answer


async def test_a_document_is_saved_with_its_own_workflow(script: Any, client: Client) -> None:
    script.answer("SaveGraph", saved(4))
    document = {"workflow": {"id": A_WORKFLOW, "version": 3}, "nodes": [{"nodeId": "a"}]}
    answer = await client.graphs.save(document, message="why")
    assert answer.workflow.version == 4
    assert answer.node_id_to_task_id == {"a": "t1"}
    (request,) = script.requests("SaveGraph")
    assert request.workflow.version == 3
    assert request.message == "why"
    assert request.request_id


async def test_a_graph_is_saved_under_the_workflow_and_version_given(script: Any, client: Client) -> None:
    script.answer("SaveGraph", saved())
    await client.graphs.save(A_GRAPH, workflow=WorkflowInfo(name="orders"), version=2)
    (request,) = script.requests("SaveGraph")
    assert request.workflow.name == "orders"
    assert request.version == 2
    assert [edge.edge_id for edge in request.edges] == ["e1"]


async def test_i03_a_graph_with_errors_is_refused_before_any_call(script: Any, client: Client) -> None:
    with pytest.raises(errors.InvalidGraph, match="a -> b -> a") as caught:
        await client.graphs.save(A_CYCLE)
    assert [finding.code for finding in caught.value.findings if finding.is_error] == ["CYCLE"]
    assert caught.value.details.violations
    assert not script.received


async def test_namespace_and_message_of_a_document_are_used(script: Any, address: str) -> None:
    script.answer("SaveGraph", saved())
    script.answer("ValidateGraph", pb.ValidateGraphResponse(valid=True))
    document = {"namespace": "shop", "message": "why", "nodes": [{"nodeId": "a"}]}
    async with Client(address, address) as unnamed, Client(address, address, namespace="shop") as same:
        for client in (unnamed, same):
            await client.graphs.save(document)
            await client.graphs.validate(document)
        await unnamed.graphs.save(A_GRAPH)
    assert [(save.namespace, save.message) for save in script.requests("SaveGraph")] == [
        ("shop", "why"),
        ("shop", "why"),
        ("default", ""),
    ]
    assert [validation.namespace for validation in script.requests("ValidateGraph")] == ["shop", "shop"]


async def test_a_document_that_contradicts_its_caller_is_refused_before_any_call(script: Any, address: str) -> None:
    nodes = [{"nodeId": "a"}]
    async with Client(address, address, namespace="default") as client:
        with pytest.raises(errors.InvalidRequest, match="namespace: the document is of 'shop'"):
            await client.graphs.save({"workflow": {"namespace": "shop"}, "nodes": nodes})
        with pytest.raises(errors.InvalidRequest, match="message: the document says 'why'"):
            await client.graphs.save({"message": "why", "nodes": nodes}, message="because")
    assert not script.received


async def test_a_refused_save_and_a_local_validation_name_the_wrong_configs_too(script: Any, client: Client) -> None:
    nodes = (Node("a"), Node("b"), Node("c"))
    modules = (Module("a", "DelayModule", config={"duration": []}), Module("b", "Mine"), Module("c", "NoopModule"))
    graph = Graph(nodes=nodes, edges=A_CYCLE.edges, modules=modules)
    with pytest.raises(errors.InvalidGraph) as caught:
        await client.graphs.save(graph)
    codes = [finding.code for finding in caught.value.findings]
    assert codes == ["CYCLE", "BAD_MODULE_DATA", "UNKNOWN_MODULE", "ORPHAN_NODE"]
    assert await client.graphs.validate(graph, local=True) == caught.value.findings
    assert not script.received


async def test_a_config_that_only_the_catalogue_here_refuses_is_for_the_server_to_judge(
    script: Any, client: Client
) -> None:
    script.answer("SaveGraph", saved())
    modules = (Module("a", "DelayModule", config={"duration": []}), Module("b", "NoopModule", config={}))
    await client.graphs.save(Graph(nodes=A_GRAPH.nodes, edges=A_GRAPH.edges, modules=modules))


async def test_what_only_the_server_finds_comes_with_all_its_findings(script: Any, client: Client) -> None:
    script.answer("SaveGraph", errors.InvalidGraph("the graph has 1 error"))
    script.answer(
        "ValidateGraph",
        pb.ValidateGraphResponse(
            errors=[common_pb2.Finding(severity=common_pb2.Finding.ERROR, code="BAD_MODULE_DATA", path="modules[0]")],
            warnings=[common_pb2.Finding(severity=common_pb2.Finding.WARNING, code="UNKNOWN_MODULE")],
        ),
    )
    with pytest.raises(errors.InvalidGraph) as caught:
        await client.graphs.save(A_GRAPH)
    assert [finding.code for finding in caught.value.findings] == ["BAD_MODULE_DATA", "UNKNOWN_MODULE"]


async def test_a_stale_version_names_the_current_one(script: Any, client: Client) -> None:
    differences = [errors.Difference("CHANGED", "NODE", "a", "label", None, '"A"')]
    script.answer(
        "SaveGraph",
        errors.VersionConflict("version 2 is stale", metadata={"currentVersion": "5"}, differences=differences),
    )
    with pytest.raises(errors.VersionConflict) as caught:
        await client.graphs.save(A_GRAPH, version=2)
    assert caught.value.current_version == 5
    assert list(caught.value.differences) == differences
    assert not caught.value.is_truncated


async def test_a_config_too_deep_to_be_sent_is_found_here_beside_all_else(client: Client) -> None:
    config: Any = 1
    for _ in range(40):
        config = [config]
    modules = (Module("a", "NoopModule", config={"x": config}), Module("b", "DelayModule", config={"duration": []}))
    found = await client.graphs.validate(Graph(nodes=A_GRAPH.nodes, edges=A_GRAPH.edges, modules=modules))
    assert [finding.code for finding in found if finding.is_error] == ["LIMIT_EXCEEDED", "BAD_MODULE_DATA"]


async def test_local_validation_makes_no_call(script: Any, client: Client) -> None:
    assert [finding.code for finding in await client.graphs.validate(A_CYCLE, local=True)] == ["CYCLE"]
    assert not script.received


async def test_what_is_no_graph_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"nodes\[0\]"):
        await client.graphs.save({"nodes": [{"nodeId": 0}]})
    with pytest.raises(errors.InvalidRequest, match="expected a Graph or a document"):
        await client.graphs.save("a -> b")  # type: ignore[arg-type]


async def test_reading_gives_workflow_and_graph(script: Any, client: Client) -> None:
    graph = pb.Graph(workflow=pb.Workflow(id=A_WORKFLOW, name="orders", version=2))
    graph.nodes.add(node_id="a", label="A")
    script.answer("GetGraph", pb.GetGraphResponse(graph=graph))
    stored = await client.graphs.get(A_WORKFLOW, version=2)
    assert stored.workflow.name == "orders"
    assert stored.graph.nodes == (Node("a", label="A"),)
    assert script.requests("GetGraph")[0].version == 2


async def test_versions_are_resolved_in_one_call(script: Any, client: Client) -> None:
    script.answer("ResolveVersions", pb.ResolveVersionsResponse(versions={"w1": 3}, missing_ids=["w2"]))
    resolved = await client.graphs.resolve(["w1", "w2"])
    assert resolved.versions == {"w1": 3}
    assert resolved.missing_ids == ("w2",)


async def test_history_and_search_come_in_pages(script: Any, client: Client) -> None:
    script.answer("ListVersions", pb.ListVersionsResponse(versions=[pb.Version(version=2, author="ada")]))
    script.answer("FindWorkflows", pb.FindWorkflowsResponse(workflows=[pb.Workflow(id="w1", name="orders")]))
    (version,) = await client.graphs.versions("w1").all()
    (workflow,) = await client.graphs.find(example={"name": "orders"}).all()
    assert (version.version, version.author) == (2, "ada")
    assert workflow.id == "w1"
    assert script.requests("FindWorkflows")[0].example["name"] == "orders"
