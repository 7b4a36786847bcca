"""Lists by example on the command line, against a running stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.local.stack import LocalStack
from tests.forked_cli import ForkedCli
from tests.free_ports import a_port_base
from tests.shell import Shell
from tests.waiting import wait_until
from valkyr.api.executor.v1 import runner_pb2
from valkyr.api.executor.v1.runner_pb2_grpc import RunnerServiceStub
from valkyr.api.graph.v1.graph_pb2 import ModuleSpec
from valkyr.rpc.channel import open_blocking_channel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ORDERS = """
workflow: {name: orders, labels: {team: shop}, description: All orders}
nodes: [{nodeId: charge_card}, {nodeId: mail}]
edges: [{edgeId: then, source: charge_card, target: mail}]
modules:
  - {nodeId: charge_card, className: FailModule, config: {type: PERMANENT, message: the card was declined}}
  - {nodeId: mail, className: LogModule, config: {message: "${trigger.order}"}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("home"), a_port_base()) as stack:
        yield stack


def test_every_list_finds_by_example(stack: LocalStack, tmp_path: Path, forked_cli: ForkedCli) -> None:
    shell = Shell(tmp_path, stack.port_base, forked_cli)

    def found(*command: str, **example: Any) -> list[Any]:
        done = shell.run(*command, "--example", json.dumps(example), "--json")
        assert done.returncode == 0, done.stderr
        (items,) = json.loads(done.stdout).values()
        return list(items)

    assert shell.run("graph", "save", shell.write("orders.yaml", ORDERS)).returncode == 0
    for order in (17, 18):
        payload = json.dumps({"order": order})
        assert shell.run("run", "orders", "--payload", payload, "--wait").returncode == 1

    (workflow,) = found("graph", "find", labels={"team": "shop"}, modules=[{"className": "FailModule"}])
    assert workflow["name"] == "orders"
    assert [one["id"] for one in found("graph", "find", "--match", "contains", "--ignore-case", name="ORD")] == [
        workflow["id"]
    ]
    assert found("graph", "find", nodes=[{"nodeId": "ship"}]) == []

    (execution,) = found("execution", "list", "--since", "1h", state="failed", triggerPayload={"order": 17})
    assert execution["workflowId"] == workflow["id"]
    assert found("execution", "list", "--until", "1h", state="FAILED") == []

    runs = found("run", "list", "--order-by", "startTime", nodeId="charge_card", attempts=[{"outcome": "PERMANENT"}])
    assert [run["state"] for run in runs] == ["QUARANTINED"] * 2
    assert runs[0]["executionId"] == execution["id"]
    (shown,) = shell.run("run", "list", "--execution", execution["id"], "--state", "quarantined").stdout.splitlines()[
        1:
    ]
    assert shown.split()[:3] == [execution["id"], "charge_card", "QUARANTINED"]

    given = {"trigger": {"order": 18}}
    wait_until(lambda: len(found("dlq", "list", originalInputs=given)) == 1, "the letter has arrived")
    (letter,) = found("dlq", "list", "--match", "contains", failureReason="declined", originalInputs=given)
    assert letter["nodeId"] == "charge_card"
    assert found("breaker", "list", state="OPEN") == []


def test_runners_are_listed_and_one_is_told_to_take_nothing_new(
    stack: LocalStack, tmp_path: Path, forked_cli: ForkedCli
) -> None:
    shell = Shell(tmp_path, stack.port_base, forked_cli)
    channel = open_blocking_channel(stack.addresses["executor"])
    request = runner_pb2.RegisterRunnerRequest(
        runner_id="gpu-1",
        incarnation=str(uuid4()),
        pool="gpu",
        modules=[ModuleSpec(class_name="Render")],
        capacity=7,
        host="rack9",
    )
    RunnerServiceStub(channel).RegisterRunner(request, timeout=30)
    channel.close()

    _, own, gpu = shell.run("runners", "list").stdout.splitlines()
    assert own.split()[0] == "default"
    assert gpu.split()[:6] == ["gpu", "gpu-1", "ACTIVE", "0", "of", "7"]
    assert gpu.split()[-2:] == ["rack9", "1"]
    [listed] = json.loads(shell.run("runners", "list", "--pool", "gpu", "--json").stdout)["runners"]
    assert (listed["id"], listed["state"], listed["classNames"]) == ("gpu-1", "ACTIVE", ["Render"])
    assert shell.run("runners", "list", "--pool", "none").stderr.strip() == "no runners of pool none"

    done = shell.run("runners", "drain", "gpu-1")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["gpu-1", "DRAINING"])
    unknown = shell.run("runners", "drain", "gpu-2")
    assert unknown.returncode == 4
    assert "there is no runner 'gpu-2' in this namespace" in unknown.stderr
