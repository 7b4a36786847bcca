"""What the catalogue says of a module holds where its node says nothing; the graph stays what its author wrote."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services.executor.app import open_app as open_executor
from tests.builders import a_graph
from tests.executor_stack import Stack, eventually, executor_settings
from tests.integration.executor.conftest import OpenStack
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.client import Client
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.model import Graph, Module, Retry
from valkyr.rpc.channel import open_channel
from valkyr.rpc.modules import module_to_proto

SECOND = timedelta(seconds=1)
SAID = CatalogueModule("Mine", pool="gpu", target="http:mine", retry=Retry(max_attempts=7), timeout=9 * SECOND)


async def register(stack: Stack, *modules: CatalogueModule) -> None:
    channel = open_channel(stack.graph_store.server.address)
    request = pb.RegisterModulesRequest(modules=[module_to_proto(module) for module in modules])
    await GraphStoreServiceStub(channel).RegisterModules(request)
    await channel.close()


def calling(**module: Any) -> Graph:
    return a_graph("a", modules={"a": Module("a", "Mine", config={}, **module)})


async def planned(stack: Stack, workflow_id: str) -> Any:
    """The one node of its only version, as the executor has planned it."""
    version = await stack.app.parts.plans.get(("default", UUID(workflow_id), 1))
    return version.plan.nodes[0]


async def test_a_start_has_the_defaults_that_were_registered_before_it(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        workflow_id = await stack.save(calling())
        before = await stack.client.executions.start(workflow_id)
        await register(stack, SAID)
        after = await stack.client.executions.start(workflow_id)
        await register(stack, CatalogueModule("Mine", target="http:other"))
        newest = await stack.client.executions.start(workflow_id, version=1)
        pools = {
            name: (await stack.row(one.id, "a"))["pool"]
            for name, one in {"before": before, "after": after, "newest": newest}.items()
        }
        assert pools == {"before": "default", "after": "gpu", "newest": "default"}
        assert (await planned(stack, workflow_id)).target == "http:other"


async def test_the_graph_stays_what_its_author_wrote(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        await register(stack, SAID)
        saved = await stack.client.graphs.save(calling())
        await stack.client.executions.start(saved.workflow.id)
        node = await planned(stack, saved.workflow.id)
        assert (node.pool, node.target, node.timeout, node.retry) == ("gpu", "http:mine", 9 * SECOND, Retry(7))
        stored = await stack.client.graphs.get(saved.workflow.id)
        assert stored.graph == calling()
        assert stored.workflow.content_hash == saved.workflow.content_hash
        document = await stack.sql.fetchval("SELECT document FROM executor.pinned_graph")
        assert "gpu" not in document


async def test_a_retry_of_the_catalogue_is_what_a_failing_run_has(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        await register(stack, CatalogueModule("BrokenModule", retry=Retry(max_attempts=2, backoff_base=timedelta())))
        execution = await stack.run(
            a_graph("a", modules={"a": Module("a", "BrokenModule", config={"permanent": False})}),
        )
        assert execution.state == "FAILED"
        assert (await stack.runs(execution.id))["a"].attempt == 2


async def test_i16_without_the_graph_store_the_defaults_are_those_known_last(
    make_stack: OpenStack, tmp_path: Path
) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        await register(stack, SAID)
        workflow_id = await stack.save(calling())
        await stack.client.executions.start(workflow_id)
        await stack.graph_store.server.stop()
        settings = executor_settings(
            stack.database_url, tmp_path, "127.0.0.1:1", name="restarted", runner={"concurrency": 0}
        )
        async with open_executor(settings) as app, Client(executor=app.server.address) as client:
            started = await client.executions.start(workflow_id, version=1, timeout=timedelta(seconds=30))
            assert (await stack.row(started.id, "a"))["pool"] == "gpu"


async def test_a_change_reaches_what_is_under_way_though_nothing_is_started(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        workflow_id = await stack.save(calling())
        await stack.client.executions.start(workflow_id)
        assert (await planned(stack, workflow_id)).timeout is None
        await register(stack, SAID)
        await stack.app.parts.defaults.look()

        async def is_new() -> bool:
            return bool((await planned(stack, workflow_id)).timeout == 9 * SECOND)

        await eventually(is_new, "the new timeout in the plan")


async def test_what_changes_no_defaults_changes_no_plan(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        await register(stack, SAID)
        workflow_id = await stack.save(calling())
        await stack.client.executions.start(workflow_id)
        node = await planned(stack, workflow_id)
        await register(stack, CatalogueModule("Another", config_schema={"type": "object"}))
        await stack.client.executions.start(workflow_id)
        assert await planned(stack, workflow_id) is node


async def test_defaults_are_those_of_the_namespace(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        await register(stack, SAID)
        async with Client(stack.graph_store.server.address, stack.app.server.address, namespace="elsewhere") as other:
            saved = await other.graphs.save(calling())
            started = await other.executions.start(saved.workflow.id)
        assert (await stack.row(started.id, "a"))["pool"] == "default"


async def test_a_replica_that_read_newer_defaults_from_the_tables_makes_its_plans_anew(
    make_stack: OpenStack, tmp_path: Path
) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        workflow_id = await stack.save(calling())
        await stack.client.executions.start(workflow_id)
        assert (await planned(stack, workflow_id)).pool == "default"
        await register(stack, SAID)
        settings = executor_settings(
            stack.database_url, tmp_path, stack.graph_store.server.address, name="second", runner={"concurrency": 0}
        )
        async with open_executor(settings) as other, Client(executor=other.server.address) as client:
            await client.executions.start(workflow_id)
        # What is kept in memory was dropped, as with many namespaces, and is read from where the other has written it.
        defaults = stack.app.parts.defaults
        defaults._known.clear()
        defaults._heard.clear()
        assert (await planned(stack, workflow_id)).pool == "gpu"
