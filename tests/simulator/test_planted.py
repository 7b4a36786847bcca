"""The bugs that `make campaign-mutants` plants can still be planted, and one that is planted is found."""

from __future__ import annotations

import pytest

from tests.simulator import mutants
from tests.simulator.bug import Bug
from tests.simulator.mutants import NOTHING, ROOT, try_bug
from tests.simulator.planted import BUGS


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_text_that_a_bug_replaces_stands_once_in_its_file(bug: Bug) -> None:
    text = (ROOT / bug.file).read_text()
    assert text.count(bug.before) == 1
    compile(text.replace(bug.before, bug.after), bug.file, "exec")


def test_bugs_have_names_of_their_own() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_a_planted_bug_is_found() -> None:
    bug = next(bug for bug in BUGS if bug.name == "a quarantine is not told to the DLQ")
    verdict = try_bug(bug, schedules=100)
    assert verdict.schedules is not None
    assert verdict.by == "I15"


def test_where_nothing_is_planted_nothing_is_found() -> None:
    verdict = try_bug(NOTHING, schedules=20)
    assert (verdict.schedules, verdict.by) == (None, "nothing")


def test_a_bug_whose_schedules_do_not_end_is_no_bug_that_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "TIME_LIMIT", 0.01)
    verdict = try_bug(NOTHING, schedules=20)
    assert (verdict.schedules, verdict.by) == (None, "no end")


def test_a_bug_whose_text_is_gone_is_no_bug_that_was_found() -> None:
    verdict = try_bug(Bug("gone", "valkyr/retry.py", "no such text", ""), schedules=1)
    assert verdict.schedules is None
