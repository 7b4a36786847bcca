"""Where a stack keeps its things, and the locks that say who is alive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.local.errors import StackError
from services.local.home import LOG_LIMIT, PROJECT, SOCKET_PATH_LIMIT, FileLock, Home, home_at, make_private


def test_the_default_home_lies_beside_the_project() -> None:
    assert home_at(None).folder == PROJECT / ".valkyr"
    assert home_at("").folder == PROJECT / ".valkyr"


def test_a_relative_home_becomes_absolute() -> None:
    assert home_at("here/there").folder == Path.cwd() / "here/there"


def test_a_socket_lies_in_the_home_where_its_path_is_short_enough() -> None:
    assert Home(Path("/srv/valkyr")).socket_folder() == Path("/srv/valkyr/run")


@pytest.mark.parametrize("length", [SOCKET_PATH_LIMIT - 25, 200])
def test_a_socket_of_a_deep_home_lies_in_the_temp_folder(length: int) -> None:
    home = Home(Path("/" + "ü" * (length // 2) + "x" * 30))
    folder = home.socket_folder()
    assert len(os.fsencode(folder / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT
    assert folder == home.socket_folder()
    assert folder != Home(home.folder / "other").socket_folder()


def test_a_socket_folder_that_somebody_else_has_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StackError, match="not a folder of this user"):
        make_private(tmp_path / "link", os.geteuid())
    make_private(tmp_path / "fresh", os.geteuid())
    make_private(tmp_path / "fresh", os.geteuid())


def test_a_home_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be used") as caught:
        Home(tmp_path / "file").create()
    assert "VALKYR_HOME" in caught.value.hint


def test_a_large_log_is_put_aside_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with home.log("it").open("wb") as log:
        log.truncate(LOG_LIMIT + 1)
    assert not home.log("it").exists()
    assert (home.logs / "it.log.1").stat().st_size == LOG_LIMIT + 1


def test_a_log_that_grows_while_it_is_written_is_begun_anew_and_kept_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with home.log("it").open("ab", buffering=0) as writer:
        for text in (b"first", b"second"):
            writer.write(text * 10)
            home.shorten_logs(limit=20)
            assert home.log("it").stat().st_size == 0
            assert (home.logs / "it.log.1").read_bytes() == text * 10
        writer.write(b"short")
        home.shorten_logs(limit=20)
        assert home.log("it").read_bytes() == b"short"
    assert sorted(path.name for path in home.logs.iterdir()) == ["it.log", "it.log.1"]


def test_an_exclusive_lock_excludes_and_a_shared_one_is_shared(tmp_path: Path) -> None:
    one, two, three = (FileLock(tmp_path / "lock") for _ in range(3))
    assert one.try_acquire(shared=True)
    assert two.try_acquire(shared=True)
    assert not three.acquire(timeout=0.01)
    one.release()
    assert not three.try_acquire()
    two.release()
    assert three.try_acquire()
    assert not one.try_acquire(shared=True)
    three.release()
