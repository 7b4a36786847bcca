"""Fixtures that every layer shares: the PostgreSQL of the run, and databases for one test each."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.forked_cli import ForkedCli
from tests.postgres import PostgresForTests, name_the_folder, wait_for_the_end

# How long an example takes says more of the machine than of the code.
settings.register_profile("valkyr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("valkyr")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "e2e: starts real processes")
    config.addinivalue_line("markers", "chaos: kills, stops or starves what it tests")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell's background jobs have it: programs that tests start would inherit it, and hear no Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        name_the_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        wait_for_the_end()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresForTests]:
    """The PostgreSQL 18 of this run; `postgres.admin_url` is the superuser's."""
    server = PostgresForTests()
    server.cluster.start()
    yield server
    server.cluster.stop(wait=False)


@pytest.fixture(scope="session")
def forked_cli() -> Iterator[ForkedCli]:
    """`forked_cli.run("graph", "list", environment=...)`: a process of its own that has nothing to import."""
    with ForkedCli() as cli:
        yield cli


@pytest.fixture
def database_url(postgres: PostgresForTests) -> Iterator[str]:
    """A fresh, empty database of this test's own, as `postgresql://valkyr@/name?host=/folder&port=5432`."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def migrated_database_url(postgres: PostgresForTests) -> Iterator[Callable[..., str]]:
    """Call it with rooms: a fresh database with their migrations applied. Call it again for another database."""
    from services.chassis.migrate import upgrade

    with contextlib.ExitStack() as databases:
        yield lambda *rooms: databases.enter_context(postgres.database(postgres.template(rooms, upgrade)))


@pytest.fixture
def graph_store_database_url(migrated_database_url: Callable[..., str]) -> str:
    """A fresh database with the graph store's schema."""
    return migrated_database_url("graph_store")


@pytest.fixture
def executor_database_url(migrated_database_url: Callable[..., str]) -> str:
    """A fresh database with the executor's schema."""
    return migrated_database_url("executor")
