"""What BreakerService answers, over a real channel and through grpcurl."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import orjson
import pytest

from services.breaker import watch as watch_module
from services.breaker.app import App, open_app
from services.breaker.settings import BreakerSettings
from services.breaker.watch import SILENCE
from tests.contract.breaker.calls import ask, get, report, trip
from tests.contract.breaker.conftest import TARGET, MovableClock
from tests.executor_stack import PATIENCE
from valkyr.api.breaker.v1 import breaker_pb2 as pb
from valkyr.api.breaker.v1.breaker_pb2_grpc import BreakerServiceStub
from valkyr.rpc.channel import open_channel

SERVICE = "valkyr.api.breaker.v1.BreakerService"
Outcome = pb.PermitDecision.Outcome
FAILURE = pb.CallOutcome.FAILURE


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


@asynccontextmanager
async def stub_of(settings: BreakerSettings, clock: MovableClock) -> AsyncIterator[BreakerServiceStub]:
    """Another process's worth of a breaker."""
    async with open_app(settings, clock=clock) as app:
        channel = open_channel(app.server.address, principal="tester")
        try:
            yield BreakerServiceStub(channel)
        finally:
            await channel.close()


async def test_grpcurl_lists_describes_and_calls_the_service(app: App) -> None:
    assert SERVICE in (await grpcurl(app, "list"))[1]
    code, output = await grpcurl(app, "describe", SERVICE)
    assert code == 0, output
    assert "rpc AcquirePermits ( .valkyr.api.breaker.v1.AcquirePermitsRequest )" in output
    outcomes = [{"target": TARGET, "result": "FAILURE", "reportId": f"r:{number}"} for number in range(5)]
    code, output = await grpcurl(app, f"{SERVICE}/ReportOutcomes", data=orjson.dumps({"outcomes": outcomes}).decode())
    assert code == 0, output
    assert orjson.loads(output)["answers"] == ["COUNTED"] * 5
    code, output = await grpcurl(app, f"{SERVICE}/ListBreakers", data='{"states": ["OPEN"]}')
    [breaker] = orjson.loads(output)["breakers"]
    assert (breaker["state"], breaker["failureCount"], breaker["generation"]) == ("OPEN", 5, 1)
    assert breaker["policy"]["timeoutDuration"] == "30s"


async def test_a_target_never_heard_of_is_answered_as_it_would_be(stub: BreakerServiceStub) -> None:
    breaker = await get(stub)
    assert (breaker.namespace, breaker.target, breaker.state, breaker.generation) == (
        "default",
        TARGET,
        pb.Breaker.CLOSED,
        0,
    )
    assert breaker.policy.failure_threshold == 5
    assert breaker.policy.on_unavailable == pb.Policy.ALLOW
    assert not breaker.HasField("update_time")


async def test_the_way_of_an_outage(stub: BreakerServiceStub, clock: MovableClock) -> None:
    [allowed] = await ask(stub, "a")
    assert (allowed.outcome, allowed.generation, allowed.target) == (Outcome.ALLOWED, 0, TARGET)
    await trip(stub)
    [denied] = await ask(stub, "a")
    assert (denied.outcome, denied.generation) == (Outcome.DENIED, 1)
    assert denied.retry_after.ToTimedelta() == timedelta(seconds=30)
    opened = await get(stub)
    assert (opened.state, opened.failure_count, opened.episode_id) == (pb.Breaker.OPEN, 5, denied.episode_id)
    assert opened.next_retry_time.ToDatetime() - opened.opened_time.ToDatetime() == timedelta(seconds=30)
    clock.advance(seconds=30)
    first, second, third = await ask(stub, "a", "b", "c")
    assert [first.outcome, second.outcome, third.outcome] == [Outcome.PERMIT, Outcome.PERMIT, Outcome.DENIED]
    assert first.permit_id
    assert not third.permit_id
    assert (await get(stub)).permits_in_flight == 2
    for decision in (first, second):
        permit = decision.permit_id
        assert await report(stub, "SUCCESS", permit_id=permit, generation=2, report_id=permit) == ["COUNTED"]
    closed = await get(stub)
    assert (closed.state, closed.generation, closed.failure_count, closed.permits_in_flight) == (
        pb.Breaker.CLOSED,
        3,
        0,
        0,
    )
    assert closed.episode_id == opened.episode_id
    assert not closed.HasField("next_retry_time")


async def test_one_call_may_be_about_many_namespaces(stub: BreakerServiceStub) -> None:
    outcomes = [
        pb.CallOutcome(target=TARGET, result=FAILURE, report_id=f"{namespace}-{number}:1", namespace=namespace)
        for namespace in ("", "two", "three")
        for number in range(5 if namespace == "two" else 1)
    ]
    answer = await stub.ReportOutcomes(pb.ReportOutcomesRequest(namespace="one", outcomes=outcomes))
    assert set(answer.answers) == {pb.ReportOutcomesResponse.COUNTED}
    states = {
        namespace: (await stub.GetBreaker(pb.GetBreakerRequest(namespace=namespace, target=TARGET))).breaker
        for namespace in ("one", "two", "three", "default")
    }
    assert {name: (b.state, b.failure_count) for name, b in states.items()} == {
        "one": (pb.Breaker.CLOSED, 1),
        "two": (pb.Breaker.OPEN, 5),
        "three": (pb.Breaker.CLOSED, 1),
        "default": (pb.Breaker.CLOSED, 0),
    }
    requests = [pb.PermitRequest(target=TARGET, run_id="r", namespace=name) for name in ("two", "")]
    decisions = (await stub.AcquirePermits(pb.AcquirePermitsRequest(namespace="one", requests=requests))).decisions
    assert [decision.outcome for decision in decisions] == [Outcome.DENIED, Outcome.ALLOWED]


async def test_empty_batches_are_answered_empty(stub: BreakerServiceStub) -> None:
    assert await ask(stub) == []
    assert await report(stub) == []


async def test_the_largest_batches_are_answered(stub: BreakerServiceStub) -> None:
    results = ["SUCCESS", "FAILURE"] * 5_000
    assert set(await report(stub, *results)) == {"COUNTED"}
    outcomes = [
        pb.CallOutcome(target=f"t-{number}", result=FAILURE, report_id=f"{number}:1") for number in range(10_000)
    ]
    answer = await stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes))
    assert len(answer.answers) == 10_000
    assert len(await ask(stub, *(f"run-{number}" for number in range(1_000)))) == 1_000


async def test_lists_page_by_target_and_filter(stub: BreakerServiceStub) -> None:
    for number in range(5):
        await report(stub, "FAILURE", target=f"http:{number}_%")
    await trip(stub, "smtp:mail")
    request = pb.ListBreakersRequest(page_size=2)
    targets: list[str] = []
    while True:
        page = await stub.ListBreakers(request)
        assert len(page.breakers) <= 2
        targets += [breaker.target for breaker in page.breakers]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert targets == [*(f"http:{number}_%" for number in range(5)), "smtp:mail"]
    by_prefix = await stub.ListBreakers(pb.ListBreakersRequest(target_prefix="http:3_%"))
    assert [breaker.target for breaker in by_prefix.breakers] == ["http:3_%"]
    opened = await stub.ListBreakers(pb.ListBreakersRequest(states=[pb.Breaker.OPEN, pb.Breaker.HALF_OPEN]))
    assert [breaker.target for breaker in opened.breakers] == ["smtp:mail"]
    assert not (await stub.ListBreakers(pb.ListBreakersRequest(namespace="elsewhere"))).breakers


async def test_a_watch_begins_with_a_snapshot_and_goes_on_with_changes(stub: BreakerServiceStub) -> None:
    await trip(stub, "before")
    call = stub.WatchBreakers(pb.WatchBreakersRequest(all_namespaces=True))
    async with asyncio.timeout(PATIENCE):
        first = await call.read()
        assert (first.snapshot, first.snapshot_complete) == (True, True)
        assert [breaker.target for breaker in first.breakers] == ["before"]
        assert first.default_policy.half_open_permits == 2
        await trip(stub, "after")
        while not (news := await call.read()).breakers:
            pass
    assert (news.snapshot, news.snapshot_complete) == (False, False)
    assert [(breaker.target, breaker.state) for breaker in news.breakers] == [("after", pb.Breaker.OPEN)]
    call.cancel()


async def test_a_watch_says_something_every_five_seconds(
    stub: BreakerServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(seconds=5) > SILENCE
    monkeypatch.setattr(watch_module, "SILENCE", timedelta(milliseconds=50))
    call = stub.WatchBreakers(pb.WatchBreakersRequest())
    assert (await call.read()).snapshot_complete
    async with asyncio.timeout(PATIENCE):
        assert not (await call.read()).breakers
    call.cancel()


async def test_i20_a_restart_changes_nothing(
    settings: BreakerSettings, clock: MovableClock, stub: BreakerServiceStub
) -> None:
    await trip(stub)
    await report(stub, "FAILURE", "FAILURE", target="other")
    before = [await get(stub), await get(stub, "other")]
    async with stub_of(settings, clock) as again:
        assert [await get(again), await get(again, "other")] == before


async def test_i17_a_trip_at_one_replica_reaches_the_watchers_of_another(
    settings: BreakerSettings, clock: MovableClock, stub: BreakerServiceStub
) -> None:
    async with stub_of(settings, clock) as other:
        call = other.WatchBreakers(pb.WatchBreakersRequest())
        assert (await call.read()).snapshot_complete
        await trip(stub)
        async with asyncio.timeout(PATIENCE):
            while not (news := await call.read()).breakers:
                pass
        assert news.breakers[0].state == pb.Breaker.OPEN
        call.cancel()


async def test_switched_off_it_lets_everything_pass_and_forgets_nothing(
    settings: BreakerSettings, clock: MovableClock, stub: BreakerServiceStub
) -> None:
    await trip(stub)
    async with stub_of(settings.model_copy(update={"enabled": False}), clock) as off:
        assert [decision.outcome for decision in await ask(off, "a", "b")] == [Outcome.ALLOWED] * 2
        assert await report(off, "FAILURE", "SUCCESS", generation=1, report_id="x") == ["IGNORED"] * 2
        assert (await get(off)).state == pb.Breaker.CLOSED
        listed = await off.ListBreakers(pb.ListBreakersRequest())
        assert [breaker.state for breaker in listed.breakers] == [pb.Breaker.CLOSED]
        assert not (await off.ListBreakers(pb.ListBreakersRequest(states=[pb.Breaker.OPEN]))).breakers
        call = off.WatchBreakers(pb.WatchBreakersRequest())
        first = await call.read()
        assert (first.snapshot_complete, len(first.breakers)) == (True, 0)
        call.cancel()
    assert (await get(stub)).state == pb.Breaker.OPEN


async def test_the_callers_name_stands_beside_the_transition(
    stub: BreakerServiceStub, breaker_database_url: str
) -> None:
    await trip(stub)
    connection = await asyncpg.connect(breaker_database_url)
    try:
        row = await connection.fetchrow("select principal_name, report_id from breaker.transition")
    finally:
        await connection.close()
    assert tuple(row) == ("tester", f"{TARGET}-4:1")


@pytest.mark.parametrize("target", ["x" * 500, "支付:网关", "http:[::1]:8080", " ", "a\nb", "%_\\'\""])
async def test_targets_are_taken_as_they_are(stub: BreakerServiceStub, target: str) -> None:
    assert await report(stub, "FAILURE", target=target, report_id="r:1") == ["COUNTED"]
    breaker = await get(stub, target)
    assert (breaker.target, breaker.failure_count) == (target, 1)
    listed = await stub.ListBreakers(pb.ListBreakersRequest(target_prefix=target))
    assert [breaker.target for breaker in listed.breakers] == [target]
