"""Lists by example on the command line, against a running stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.local.stack import LocalStack
from tests.forked_cli import ForkedCli
from tests.free_ports import a_port_base
from tests.shell import Shell
from tests.waiting import wait_until

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
