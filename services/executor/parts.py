"""Everything that runs in an executor, wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.chassis.database import Database, connect
from services.chassis.health import Health
from services.chassis.settings import PORT_OFFSETS
from services.executor.breakers.wiring import Breakers
from services.executor.catalogue import Catalogue
from services.executor.deadlines import Deadlines
from services.executor.defaults import Defaults
from services.executor.dispatcher import Dispatcher
from services.executor.executions import Executions
from services.executor.facts import ExecutionCache
from services.executor.feed import Feed
from services.executor.gateways import DlqGateway, GraphStoreGateway
from services.executor.handoff import Handoff
from services.executor.hints import Hints
from services.executor.holding import Holding
from services.executor.interventions import Interventions
from services.executor.lanes import Means
from services.executor.leasing import Leasing
from services.executor.lending import Lending
from services.executor.model import LeasePolicy, new_id
from services.executor.modules import Modules, load_modules
from services.executor.outbox import Outbox
from services.executor.own_pool import InProcessTransport
from services.executor.plans import Plans
from services.executor.probes import Probes
from services.executor.progress import Progress
from services.executor.reaper import LEAST_QUIET, QuietPeriod, Reaper, end_older_incarnations
from services.executor.reporting import Reporting
from services.executor.reusing import Reusing
from services.executor.runner_id import kept_runner_id
from services.executor.runners import OWN_POOLS, Runners, silent_after
from services.executor.settings import ExecutorSettings, ReachSettings, RunnerSettings
from services.executor.signals import Signals
from services.executor.starts import Starts
from services.executor.store.leases import register_runner
from services.executor.store.session import PINNED_PLANNER, Session
from services.executor.timers import Timers
from services.executor.transaction import Rules
from services.executor.versions import Versions
from valkyr.errors import ValkyrError
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.events import LeaseEnded
from valkyr.flow.results import Release
from valkyr.modules import EmailRules, GrpcRules, HttpRules, builtin_modules
from valkyr.runner.worker import Worker
from valkyr.telemetry import get_logger

Loops = Callable[["Parts"], Mapping[str, Coroutine[Any, Any, None]]]
"""What is to run for as long as the executor does, by name."""

log = get_logger(__name__)


class Parts:
    """Everything that runs in an executor, wired."""

    def __init__(self, settings: ExecutorSettings, database: Database) -> None:
        runner = settings.runner
        self.settings = settings
        self.database = database
        self.health = Health()
        self.signals = Signals()
        self.session = Session(database, unsure=self.signals.anything)
        self.lease = LeasePolicy(runner.id or kept_runner_id(settings.home), new_id(), runner.lease.duration)
        self.modules = load_modules(runner.modules)
        self.said = Modules(self.modules, _retry_policy(settings))
        self.gateway = GraphStoreGateway(settings.graph_store or _neighbour(settings, "graph-store"))
        self.dlq = DlqGateway(settings.dlq or _neighbour(settings, "dlq"))
        self.breakers = Breakers(settings.breaker or _neighbour(settings, "breaker"))
        self.defaults = Defaults(self.session, self.gateway)
        self.gateway.on_catalogue = self.defaults.heard
        self.plans = Plans(
            self.session,
            self.gateway,
            self.defaults,
            target_of=self.said.target_before,
            dedupe_of=self.said.dedupe_of,
        )
        self.cache = ExecutionCache(self.session, self.plans)
        self._make_pool()
        self.worker.on_room = self.handoff.ready.wake.set
        self._make_progress()
        self._make_answers()
        self._make_leasing()
        self._make_upkeep()
        self._make_service()
        self._tasks: list[asyncio.Task[None]] = []
        self._database_was_away = False
        self.died = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    def _make_pool(self) -> None:
        runner = self.settings.runner
        self.transport = InProcessTransport(self.lease, self._connect)
        self.worker = Worker(
            self.transport,
            self.modules,
            concurrency=runner.concurrency,
            heartbeat_interval=runner.lease.heartbeat_interval,
            unknown_as_noop=runner.unknown_as_noop,
            settings=_module_settings(self.settings.runner),
        )
        self.handoff = Handoff(
            self.worker,
            self.signals.open_door(runner.pool),
            self.breakers.mirror,
            pool=runner.pool,
            class_names=frozenset(name for name, spec in self.modules.items() if not spec.control),
            serves_all=runner.unknown_as_noop,
        )

    def _make_progress(self) -> None:
        settings = self.settings
        self._timeouts = {name: spec.timeout for name, spec in self.modules.items() if spec.timeout is not None}
        self.progress = Progress(
            self.session,
            self.cache,
            self.handoff,
            self.signals,
            modules=self.said,
            calls=self.breakers.outcomes,
            lease=self.lease,
            rules=Rules(self._timeouts, settings.runner.cancel_grace, settings.runner.retry.max_requeues),
        )
        self.transport.attach(self.progress)
        self.versions = Versions(self.session, self.gateway)
        self.starts = Starts(
            self.session,
            self.versions,
            self.plans,
            self.cache,
            self.progress,
            self.handoff,
            self.signals,
            lease=self.lease,
            modules=self.said,
            runs_limit=settings.limits.runs_per_start,
        )

    def _make_answers(self) -> None:
        """What clients ask, and are told."""
        self.feed = Feed(self.session, self.signals)
        self.hints = Hints(self.database, self.session, self.signals, self.feed, me=self.lease.incarnation)
        self.executions = Executions(self.session, self.cache, self.feed)
        database = self.settings.database
        self.interventions = Interventions(
            self.session,
            self.cache,
            self.progress,
            self.executions,
            at_once=max(1, database.pool_size // 2),
            patience=database.acquire_timeout,
        )

    def _make_leasing(self) -> None:
        """What brings runs to the own pool."""
        self.leasing = Leasing(self.handoff, self.progress, self.lease)
        self.dispatcher = Dispatcher(
            self.session,
            self.cache,
            self.handoff,
            self.leasing,
            mirror=self.breakers.mirror,
            turn=self.breakers.turn,
        )
        self.probes = Probes(
            self.session,
            self.cache,
            self.handoff,
            self.leasing,
            self.signals,
            mirror=self.breakers.mirror,
            outcomes=self.breakers.outcomes,
            permits=self.breakers.gateway,
            turn=self.breakers.turn,
            slots=self.settings.runner.concurrency,
            timeouts=self._timeouts,
        )

    def _make_upkeep(self) -> None:
        """What goes on whether or not anybody asks."""
        self.quiet = QuietPeriod(max(LEAST_QUIET, 5 * self.settings.runner.lease.heartbeat_interval))
        reusing = Reusing(self.session, self.progress, self.signals)
        self.timers = Timers(self.session, self.cache, self.progress, reusing)
        self.deadlines = Deadlines(self.session, self.progress)
        self.outbox = Outbox(self.session, self.cache, self.dlq)
        self.reaper = Reaper(
            self.session,
            self.progress,
            lease=self.lease,
            quiet=self.quiet,
            held=lambda: set(self.worker.live),
        )

    def _make_service(self) -> None:
        """For runners that call over the network."""
        duration = self.settings.runner.lease.duration
        self.runners = Runners(self.session, self.progress, lease_duration=duration)
        means = Means(
            self.session,
            self.cache,
            self.progress,
            self.signals,
            self.breakers,
            duration,
            silent_after(self.settings.runner.lease.heartbeat_interval),
            self._timeouts,
        )
        self.lending = Lending(means, self.runners)
        self.holding = Holding(self.session, self.progress, self.runners, lease_duration=duration)
        self.reporting = Reporting(self.progress, self.runners)
        self.catalogue = Catalogue(self.gateway, built_in=builtin_modules())

    async def _connect(self) -> Any:
        connection = await connect(self.settings.database, "valkyr executor heartbeats")
        for name, value in PINNED_PLANNER.items():
            await connection.execute(f"SET {name} = {value}")
        return connection

    async def start(self, loops: Loops) -> None:
        """Hears of breakers, registers the own pool, ends what an earlier incarnation left leased, starts the loops."""
        runner = self.settings.runner
        self._tasks = _started(self.breakers.loops())
        await self.breakers.first_look()
        async with self.session.transaction() as tx:
            await register_runner(
                tx, self.lease, self.handoff.serving, namespace=OWN_POOLS, capacity=runner.concurrency
            )
        ended = await end_older_incarnations(self.session, self.progress, self.lease)
        if ended:
            log.warning("leases.of_older_incarnation_ended", count=ended, runner_id=self.lease.runner_id)
        self._working = asyncio.create_task(self.worker.run(), name="worker")
        self._working.add_done_callback(self._worker_ended)
        self._tasks += _started(loops(self))

    async def note_outages(self) -> None:
        """The reaper keeps quiet after the database came back: heartbeats could not reach it either."""
        away = "database" in self.health.problems
        if self._database_was_away and not away:
            self.quiet.begin()
        self._database_was_away = away

    async def look_after_runners(self) -> None:
        await self.runners.look_after(self.lease.runner_id)

    async def forget_requests(self) -> timedelta | None:
        """Of pauses and resumes, when they have been kept for long enough."""
        return await self.interventions.forget_requests(self.settings.requests.kept)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        """The worker ends by draining only; anything else takes the executor out of service, to be restarted."""
        if task.cancelled() or task.exception() is None:
            return
        log.critical("worker.died", error=str(task.exception()), exc_info=task.exception())
        self.health.mark("worker", f"the worker died: {task.exception()}")
        self.died.set()

    async def drain(self) -> None:
        """Takes nothing new; started runs finish within the grace, the others are handed back. Runners that wait for
        runs are let go."""
        self.handoff.close()
        self.lending.drain()
        await asyncio.gather(self.worker.drain(self.settings.runner.drain_grace), self._give_back())

    async def _give_back(self) -> None:
        """Releases what was being leased as the drain began. If that fails, the next incarnation ends these leases."""
        runs = await self.handoff.returned()
        if not runs:
            return
        refs = [run.ref for run in runs]
        try:
            await self.progress.apply(
                [LeaseEnded(UUID(ref.execution_id), UUID(ref.run_id), ref.epoch, Release()) for ref in refs]
            )
        except ValkyrError as error:
            log.warning("leases.not_given_back", count=len(refs), error=str(error))

    async def close(self) -> None:
        """Stops at once what `drain` has left."""
        self.handoff.close()
        if self._working is not None:
            await self.worker.drain(timedelta())
            self._working.cancel()
        for task in self._tasks:
            task.cancel()
        everything = [*self._tasks, *([self._working] if self._working else [])]
        for outcome in await asyncio.gather(*everything, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("executor.loop_ended", error=str(outcome), exc_info=outcome)
        self.lending.drain()
        await self.lending.close()
        await self.starts.close()
        await self.reporting.close()
        await self.versions.close()
        await self.feed.close()
        await self.transport.close()
        await self.gateway.close()
        await self.dlq.close()
        await self.breakers.close()


def _started(loops: Mapping[str, Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(loop, name=name) for name, loop in loops.items()]


def _neighbour(settings: ExecutorSettings, room: str) -> str:
    """Another service of the same local stack."""
    port = settings.server.port - PORT_OFFSETS["executor"] + PORT_OFFSETS[room]
    return f"127.0.0.1:{port}"


def _module_settings(runner: RunnerSettings) -> Mapping[str, Any]:
    """What the modules that come with Valkyr read in `context.settings`."""
    return {
        "http": HttpRules(**_reach(runner.http)),
        "grpc": GrpcRules(**_reach(runner.grpc)),
        "email": EmailRules(**_reach(runner.email), credentials_folder=runner.email.credentials_folder),
    }


def _reach(settings: ReachSettings) -> dict[str, Any]:
    return {
        "allow_hosts": frozenset(host.lower() for host in settings.allow_hosts),
        "allow_networks": settings.allow_networks,
    }


def _retry_policy(settings: ExecutorSettings) -> RetryPolicy:
    retry = settings.runner.retry
    return RetryPolicy(
        max_attempts=retry.max_attempts,
        max_lost_leases=retry.max_lost_leases,
        backoff_base=timedelta(milliseconds=retry.backoff_base_ms),
        backoff_max=timedelta(milliseconds=retry.backoff_max_ms),
    )
