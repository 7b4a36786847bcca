"""MergeGraph over a real channel: what it answers, and every error that it documents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_graph
from tests.contract.graph_store.test_errors import ID, a_save, error_of
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import InvalidRequest, VersionNotFound, WorkflowNotFound
from valkyr.rpc.graphs import fill_from_graph

OTHER = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f81"


def a_merge(
    arrows: str, *, base: int | None = 1, workflow: pb.Workflow | None = None, **fields: Any
) -> pb.MergeGraphRequest:
    """A graph that began as version `base`; it says nothing of its workflow unless told to."""
    request = pb.MergeGraphRequest(workflow_id=ID, base_version=base, mine=pb.Graph(workflow=workflow), **fields)
    fill_from_graph(request.mine, a_graph(arrows))
    return request


def ids(graph: pb.Graph) -> tuple[list[str], list[str]]:
    return [node.node_id for node in graph.nodes], [edge.edge_id for edge in graph.edges]


async def test_the_changes_of_both_stand_and_nothing_is_saved(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a -> b"))
    await stub.SaveGraph(a_save("a -> b -> theirs", version=1))
    merged = await stub.MergeGraph(a_merge("a -> b, a -> mine"))
    nodes, edges = ids(merged.graph)
    assert (set(nodes), set(edges)) == ({"a", "b", "theirs", "mine"}, {"a->b", "b->theirs", "a->mine"})
    assert (merged.current_version, merged.graph.workflow.version, merged.graph.workflow.id) == (2, 2, ID)
    assert (merged.graph.workflow.name, merged.graph.workflow.namespace) == ("orders", "default")
    assert merged.total_conflicts == len(merged.conflicts) == len(merged.errors) == 0
    assert (await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))).graph.workflow.version == 2


async def test_what_was_merged_can_be_saved_as_it_is(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a -> b"))
    await stub.SaveGraph(a_save("a -> b -> theirs", version=1))
    merged = (await stub.MergeGraph(a_merge("a -> b, a -> mine"))).graph
    saved = await stub.SaveGraph(
        pb.SaveGraphRequest(
            workflow=merged.workflow, nodes=merged.nodes, edges=merged.edges, modules=merged.modules,
            settings=merged.settings,
        )
    )  # fmt: skip
    assert saved.workflow.version == 3


async def test_conflicts_come_with_the_three_values_and_without_a_graph(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a -> b"))
    theirs = a_save("a -> b", version=1)
    theirs.nodes[0].label = "theirs"
    await stub.SaveGraph(theirs)
    request = a_merge("a -> b")
    request.mine.nodes[0].label = "mine"
    answer = await stub.MergeGraph(request)
    assert not answer.HasField("graph")
    assert (answer.total_conflicts, answer.current_version) == (1, 2)
    kind, part = common_pb2.Conflict.BOTH_CHANGED, common_pb2.Difference.NODE
    assert list(answer.conflicts) == [
        common_pb2.Conflict(
            kind=kind, part=part, id="a", path="label", base='"a"', current='"theirs"', mine='"mine"'
        )
    ]  # fmt: skip


async def test_a_merge_that_makes_a_cycle_says_so(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a, b"))
    await stub.SaveGraph(a_save("a -> b", version=1))
    answer = await stub.MergeGraph(a_merge("b -> a"))
    assert [found.code for found in answer.errors] == ["CYCLE"]
    assert answer.HasField("graph")
    assert not answer.conflicts


async def test_nodes_that_both_moved_stand_where_the_sent_graph_has_them(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    theirs = a_save("a", version=1)
    theirs.nodes[0].position.x = 1
    await stub.SaveGraph(theirs)
    request = a_merge("a")
    request.mine.nodes[0].position.x = 2
    answer = await stub.MergeGraph(request)
    assert (list(answer.both_moved), answer.graph.nodes[0].position.x) == (["a"], 2)


async def test_without_a_workflow_it_says_nothing_of_name_description_and_labels(stub: GraphStoreServiceStub) -> None:
    await _described(stub)
    merged = (await stub.MergeGraph(a_merge("a"))).graph.workflow
    assert (merged.name, merged.description, dict(merged.labels)) == ("renamed", "what it is", {"team": "x"})


async def test_with_a_workflow_description_and_labels_are_merged_and_no_name_keeps_it(
    stub: GraphStoreServiceStub,
) -> None:
    await _described(stub)
    mine = pb.Workflow(description="what it is", labels={"team": "x", "mine": "y"})
    merged = (await stub.MergeGraph(a_merge("a", workflow=mine))).graph.workflow
    assert (merged.name, merged.description) == ("renamed", "what it is")
    assert dict(merged.labels) == {"team": "x", "mine": "y"}
    mine.description = "mine"
    theirs = a_save("a", version=2)
    theirs.workflow.description = "theirs"
    theirs.workflow.name = "renamed"
    await stub.SaveGraph(theirs)
    answer = await stub.MergeGraph(a_merge("a", workflow=mine))
    assert [(each.part, each.path) for each in answer.conflicts] == [(common_pb2.Difference.WORKFLOW, "description")]


async def _described(stub: GraphStoreServiceStub) -> None:
    """Version 1 is described, version 2 has another name."""
    for version, name in enumerate(("orders", "renamed")):
        request = a_save("a", version=version)
        request.workflow.MergeFrom(pb.Workflow(name=name, description="what it is", labels={"team": "x"}))
        await stub.SaveGraph(request)


async def test_an_archived_workflow_can_be_merged(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.ArchiveWorkflow(pb.ArchiveWorkflowRequest(workflow_id=ID))
    assert (await stub.MergeGraph(a_merge("a, b"))).HasField("graph")


async def test_the_version_may_stand_in_the_graph(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    mine = pb.Workflow(id=ID, version=1)
    assert (await stub.MergeGraph(a_merge("a, b", base=None, workflow=mine))).current_version == 1
    await stub.SaveGraph(a_save("b", version=1))
    error = await error_of(stub.MergeGraph(a_merge("a", base=2, workflow=mine)))
    assert [each.field for each in error.details.violations] == ["baseVersion"]


async def test_what_began_as_nothing_is_merged_with_what_others_have_made_meanwhile(
    stub: GraphStoreServiceStub,
) -> None:
    await stub.SaveGraph(a_save("a, theirs"))
    answer = await stub.MergeGraph(a_merge("a, mine", base=0))
    assert ids(answer.graph)[0] == ["a", "theirs", "mine"]
    request = a_merge("a", base=0)
    request.mine.nodes[0].label = "mine"
    [conflict] = (await stub.MergeGraph(request)).conflicts
    assert (conflict.kind, conflict.id) == (common_pb2.Conflict.BOTH_ADDED, "a")


async def test_workflows_and_versions_that_are_not_there(stub: GraphStoreServiceStub) -> None:
    assert isinstance(await error_of(stub.MergeGraph(a_merge("a"))), WorkflowNotFound)
    await stub.SaveGraph(a_save("a"))
    error = await error_of(stub.MergeGraph(a_merge("a", base=2)))
    assert isinstance(error, VersionNotFound)
    assert error.details.metadata["currentVersion"] == "1"
    assert isinstance(await error_of(stub.MergeGraph(a_merge("a", namespace="other"))), WorkflowNotFound)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.MergeGraphRequest(workflow_id="x", mine=pb.Graph()), ["workflowId", "baseVersion"]),
        (pb.MergeGraphRequest(workflow_id=ID, base_version=1), ["mine"]),
        (pb.MergeGraphRequest(workflow_id=ID, base_version=-1, mine=pb.Graph()), ["baseVersion"]),
        (
            pb.MergeGraphRequest(workflow_id=ID, base_version=1, mine=pb.Graph(workflow=pb.Workflow(id=OTHER))),
            ["mine.workflow.id"],
        ),
        (
            pb.MergeGraphRequest(workflow_id=ID, base_version=1, mine=pb.Graph(nodes=[pb.Node(priority=101)])),
            ["mine.nodes[0].priority"],
        ),
    ],
    ids=["id and version", "no graph", "negative version", "another id", "within the graph"],
)
async def test_what_cannot_be_read_is_named(
    stub: GraphStoreServiceStub, request_: pb.MergeGraphRequest, fields: list[str]
) -> None:
    error = await error_of(stub.MergeGraph(request_))
    assert isinstance(error, InvalidRequest)
    assert [each.field for each in error.details.violations] == fields


async def test_of_many_large_conflicts_the_first_fit_and_the_total_is_told(stub: GraphStoreServiceStub) -> None:
    def wide(label: str) -> pb.SaveGraphRequest:
        request = a_save(", ".join(f"n{number}" for number in range(60)))
        for module in request.modules:
            module.module_data = '{"text": "' + label * 200_000 + '"}'
        return request

    await stub.SaveGraph(wide("a"))
    theirs = wide("b")
    theirs.version = 1
    await stub.SaveGraph(theirs)
    mine = a_merge(", ".join(f"n{number}" for number in range(60)))
    for module in mine.mine.modules:
        module.module_data = '{"text": "' + "c" * 200_000 + '"}'
    answer = await stub.MergeGraph(mine)
    assert answer.total_conflicts == 60
    assert [conflict.id for conflict in answer.conflicts] == [f"n{number}" for number in range(20)]


async def test_a_value_that_is_too_long_for_an_answer_is_cut(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    theirs = a_save("a", version=1)
    theirs.nodes[0].label = "theirs"
    await stub.SaveGraph(theirs)
    mine = a_merge("a")
    mine.mine.nodes[0].label = "x" * 1_000_000
    [conflict] = (await stub.MergeGraph(mine)).conflicts
    assert conflict.mine.endswith("x…")
    assert len(conflict.mine) == 256 * 1024
