"""client.graphs.save: what is transient is tried again, everything else is told at once, with all there is to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tests.builders import a_graph
from tests.scripted_services import ScriptedServices
from valkyr import errors
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.client import Client, SaveProgress, SaveRetry, SaveStage
from valkyr.client.graph_saves import SaveRetries
from valkyr.graph.model import WorkflowInfo

A_WORKFLOW = "0198c0de-0000-7000-8000-000000000001"
A_GRAPH = a_graph("a -> b")
ORDERS = WorkflowInfo(id=A_WORKFLOW, name="orders", version=2)
AWAY = errors.Unavailable("starting up")
SAVED = pb.SaveGraphResponse(workflow=pb.Workflow(id=A_WORKFLOW, version=3))


def a_conflict(*, truncated: bool = True, total: int = 3) -> errors.VersionConflict:
    metadata = {"currentVersion": "5", "editedVersion": "2"}
    more = {"total": str(total), "truncated": "true"} if truncated else {}
    return errors.VersionConflict(
        "version 2 is stale", metadata=metadata | more, differences=[errors.Difference("ADDED", "NODE", "n0")]
    )


def added(count: int, total: int) -> pb.DiffVersionsResponse:
    kinds = common_pb2.Difference
    entries = [kinds(kind=kinds.ADDED, part=kinds.NODE, id=f"n{number}") for number in range(count)]
    return pb.DiffVersionsResponse(from_version=2, to_version=5, differences=entries, total=total)


async def test_a_save_is_sent_again_with_the_same_request_id_until_it_is_answered(script: Any, client: Client) -> None:
    script.answer("SaveGraph", AWAY, errors.Overloaded("too many"), SAVED)
    told: list[SaveRetry] = []
    saved = await client.graphs.save(A_GRAPH, workflow=ORDERS, initial_delay=0.01, on_retry=told.append)
    assert saved.workflow.version == 3
    assert len({request.request_id for request in script.requests("SaveGraph")}) == 1
    assert [(retry.retry, retry.max_retries, type(retry.error)) for retry in told] == [
        (1, 3, errors.Unavailable),
        (2, 3, errors.Overloaded),
    ]


async def test_the_stages_of_a_save_are_told_as_they_begin(script: Any, client: Client) -> None:
    script.answer("SaveGraph", AWAY, SAVED)
    told: list[SaveProgress] = []
    await client.graphs.save(A_GRAPH, workflow=ORDERS, initial_delay=0.01, on_progress=told.append)
    assert told == [
        SaveProgress(SaveStage.VALIDATING, 0),
        SaveProgress(SaveStage.SENDING, 1),
        SaveProgress(SaveStage.WAITING, 1),
        SaveProgress(SaveStage.SENDING, 2),
        SaveProgress(SaveStage.DONE, 2),
    ]


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_save_is_given_up_after_so_many_retries_and_names_its_request_id(
    retries: int, script: Any, client: Client
) -> None:
    script.answer("SaveGraph", AWAY)
    with pytest.raises(errors.Unavailable, match="starting up") as caught:
        await client.graphs.save(A_GRAPH, workflow=ORDERS, max_retries=retries, initial_delay=0.01)
    sent = script.requests("SaveGraph")
    assert len(sent) == retries + 1
    assert caught.value.details.metadata["requestId"] == sent[0].request_id


async def test_an_attempt_that_is_not_answered_in_time_is_followed_by_another(script: Any, client: Client) -> None:
    async def hangs(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    script.answer("SaveGraph", hangs, SAVED)
    timeout = timedelta(seconds=0.3)
    saved = await client.graphs.save(A_GRAPH, workflow=ORDERS, max_retries=50, initial_delay=0.01, timeout=timeout)
    assert saved.workflow.version == 3
    first, *again = script.requests("SaveGraph")
    assert again
    assert all(each == first for each in again)


@pytest.mark.parametrize(
    "error",
    [
        errors.NameTaken("taken"),
        errors.VersionRequired("which?"),
        errors.WorkflowArchived("archived"),
        errors.RequestIdReused("reused"),
        errors.Internal("a bug"),
        a_conflict(truncated=False),
    ],
    ids=lambda error: error.reason,
)
async def test_what_will_not_pass_is_raised_at_once(error: errors.ValkyrError, script: Any, client: Client) -> None:
    script.answer("SaveGraph", error)
    with pytest.raises(type(error)):
        await client.graphs.save(A_GRAPH, workflow=ORDERS)
    assert [received.rpc for received in script.received] == ["SaveGraph"]


async def test_an_invalid_graph_is_not_tried_again_and_brings_all_findings(script: Any, client: Client) -> None:
    script.answer("SaveGraph", errors.InvalidGraph("1 error"))
    finding = common_pb2.Finding(severity=common_pb2.Finding.ERROR, code="BAD_MODULE_DATA", path="modules[0].config")
    script.answer("ValidateGraph", pb.ValidateGraphResponse(errors=[finding]))
    told: list[SaveStage] = []
    with pytest.raises(errors.InvalidGraph) as caught:
        await client.graphs.save(A_GRAPH, workflow=ORDERS, on_progress=lambda progress: told.append(progress.stage))
    assert [(found.code, found.path) for found in caught.value.findings] == [("BAD_MODULE_DATA", "modules[0].config")]
    assert told[-1] is SaveStage.EXPLAINING


@pytest.mark.parametrize(
    "validation", [pb.ValidateGraphResponse(valid=True), errors.Forbidden("no")], ids=["valid by now", "refused"]
)
async def test_findings_that_cannot_be_asked_for_are_those_of_the_refusal(
    validation: Any, script: Any, client: Client
) -> None:
    violations = [errors.Violation("modules[0].config", "BAD_MODULE_DATA: url: is missing")]
    script.answer("SaveGraph", errors.InvalidGraph("1 error", violations=violations))
    script.answer("ValidateGraph", validation)
    with pytest.raises(errors.InvalidGraph, match="1 error") as caught:
        await client.graphs.save(A_GRAPH, workflow=ORDERS)
    (finding,) = caught.value.findings
    assert (finding.code, finding.path, finding.message) == (
        "BAD_MODULE_DATA",
        "modules[0].config",
        "url: is missing",
    )


async def test_i02_a_conflict_whose_diff_did_not_fit_brings_all_of_it(script: Any, client: Client) -> None:
    script.answer("SaveGraph", a_conflict())
    script.answer("DiffVersions", added(3, 3))
    with pytest.raises(errors.VersionConflict) as caught:
        await client.graphs.save(A_GRAPH, workflow=ORDERS)
    (asked,) = script.requests("DiffVersions")
    assert (asked.workflow_id, asked.from_version, asked.to_version) == (A_WORKFLOW, 2, 5)
    assert [difference.id for difference in caught.value.differences] == ["n0", "n1", "n2"]
    assert not caught.value.is_truncated
    assert caught.value.current_version == 5
    assert len(script.requests("SaveGraph")) == 1


async def test_a_conflict_whose_diff_fits_no_message_still_says_how_much_is_missing(
    script: Any, client: Client
) -> None:
    script.answer("SaveGraph", a_conflict(total=100))
    script.answer("DiffVersions", added(50, 100))
    with pytest.raises(errors.VersionConflict) as caught:
        await client.graphs.save(A_GRAPH, workflow=ORDERS)
    assert len(caught.value.differences) == 50
    assert caught.value.is_truncated
    assert caught.value.details.metadata["total"] == "100"


async def test_a_conflict_stays_as_it_came_where_the_rest_cannot_be_had(script: Any, client: Client) -> None:
    script.answer("SaveGraph", a_conflict())
    script.answer("DiffVersions", errors.Internal("a bug"))
    with pytest.raises(errors.VersionConflict) as caught:
        await client.graphs.save(A_GRAPH, workflow=ORDERS)
    assert len(caught.value.differences) == 1
    assert caught.value.is_truncated


async def test_a_server_that_was_never_there_is_not_waited_for_beyond_the_connect_timeout(nowhere: str) -> None:
    told: list[SaveRetry] = []
    async with Client(nowhere, connect_timeout=timedelta(seconds=0.5)) as client:
        with pytest.raises(errors.Unavailable, match="cannot be reached"):
            await client.graphs.save(A_GRAPH, workflow=ORDERS, initial_delay=30, on_retry=told.append)
    assert not told


async def test_a_save_waits_for_a_server_that_is_not_there_yet(script: Any) -> None:
    script.answer("SaveGraph", SAVED)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([ScriptedServices(script)])
    port = server.add_insecure_port("127.0.0.1:0")
    told: list[SaveRetry] = []
    began = asyncio.Event()

    def heard(retry: SaveRetry) -> None:
        told.append(retry)
        began.set()

    async with Client(f"127.0.0.1:{port}", timeout=timedelta(seconds=0.2)) as client:
        saving = asyncio.create_task(
            client.graphs.save(A_GRAPH, workflow=ORDERS, max_retries=50, initial_delay=0.05, on_retry=heard)
        )
        await asyncio.wait_for(began.wait(), 30)
        await server.start()
        assert (await saving).workflow.version == 3
    await server.stop(0)
    assert isinstance(told[0].error, errors.Unavailable | errors.DeadlineExceeded)


@pytest.mark.parametrize(
    "given",
    [{"max_retries": -1}, {"initial_delay": -1.0}, {"initial_delay": float("nan")}, {"initial_delay": 31.0}],
    ids=str,
)
async def test_numbers_that_mean_nothing_are_refused(given: Mapping[str, Any], script: Any, client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match=next(iter(given))):
        await client.graphs.save(A_GRAPH, **given)
    assert not script.received


@pytest.mark.parametrize(
    ("failures", "draw", "seconds"),
    [(1, 0.0, 0.5), (1, 1.0, 1.0), (2, 1.0, 2.0), (3, 1.0, 4.0), (9, 1.0, 30.0)],
    ids=str,
)
def test_delays_double_with_jitter_up_to_a_bound(failures: int, draw: float, seconds: float) -> None:
    retries = SaveRetries.of(10, 1.0, None, None)
    assert retries.delay_after(AWAY, failures, draw=lambda: draw) == timedelta(seconds=seconds)


def test_a_server_that_says_when_is_never_asked_sooner() -> None:
    retries = SaveRetries.of(3, 1.0, None, None)
    wished = errors.Unavailable("restarting", retry_after=timedelta(seconds=8))
    draws: list[Callable[[], float]] = [lambda: 0.0, lambda: 1.0]
    assert [retries.delay_after(wished, 1, draw=draw) for draw in draws] == [
        timedelta(seconds=8),
        timedelta(seconds=12),
    ]


async def test_what_a_callback_raises_ends_the_save(script: Any, client: Client) -> None:
    def gives_up(_retry: SaveRetry) -> None:
        raise KeyError("enough")

    script.answer("SaveGraph", AWAY)
    with pytest.raises(KeyError, match="enough"):
        await client.graphs.save(A_GRAPH, workflow=ORDERS, on_retry=gives_up)
    assert len(script.requests("SaveGraph")) == 1
