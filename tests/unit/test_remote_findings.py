"""What the campaign of runners calls a problem: each of its checks, broken alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.chaos.remote import live
from tests.chaos.remote.findings import (
    Drains,
    Load,
    Recorded,
    Strikes,
    problems_of_drains,
    problems_of_load,
    problems_of_strikes,
    quantile,
)
from tests.effect_modules import Effect

LIVED = live.Lived(begun=100, done=100, keys_done=100, twice=0, overlaps=())
LOAD = Load(10, 2, 60, 30, 100, 5, 0, 0, Recorded(100, 100, 0, 0, 0, 0), LIVED)
TAKEN = (4.5,) * 9
STRIKES = Strikes(4, 0.5, 3, 1, 12, 4, 0, (), TAKEN, (4.5,) * 3, Recorded(4, 4, 12, 12, 0, 0), replace(LIVED, twice=12))


def of_load(**changes: Any) -> list[str]:
    recorded = {name: changes.pop(name) for name in list(changes) if name in asdict(LOAD.recorded)}
    return list(problems_of_load(replace(LOAD, recorded=replace(LOAD.recorded, **recorded), **changes)))


def of_strikes(**changes: Any) -> list[str]:
    recorded = {name: changes.pop(name) for name in list(changes) if name in asdict(STRIKES.recorded)}
    return list(problems_of_strikes(replace(STRIKES, recorded=replace(STRIKES.recorded, **recorded), **changes)))


def test_where_all_is_well_there_is_no_problem() -> None:
    assert [*of_load(), *of_strikes(), *problems_of_drains(Drains([0.2, 1.0], []))] == []


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        pytest.param(of_load(executions=99), "99 are there", id="an execution is lost"),
        pytest.param(of_load(succeeded=99), "99 of them succeeded", id="an execution does not end"),
        pytest.param(
            of_load(lived=replace(LIVED, keys_done=99)), "99 runs have had an effect", id="a success without an effect"
        ),
        pytest.param(of_load(unreported=1), "1 leases ended unreported, 0 of them as lost", id="taken back"),
        pytest.param(of_load(unreported=1, lost=1), "1 of them as lost", id="expired"),
        pytest.param(of_load(fenced=1), "1 were given up by their runners", id="fenced"),
        pytest.param(of_load(gone=1), "1 runners ended", id="a runner died"),
        pytest.param(of_load(twice=1), "1 runs have ended twice", id="applied twice"),
        pytest.param(of_load(misreported=1), "1 by another attempt", id="of an older attempt"),
        pytest.param(of_load(lived=replace(LIVED, overlaps=[0.1, 1.1])), "live for 1.10 s at once", id="overlap"),
        pytest.param(of_strikes(unreported=13, lost=13), "13 of them as lost", id="more lost than struck"),
        pytest.param(of_strikes(unreported=13), "13 ended unreported", id="more taken back than struck"),
        pytest.param(of_strikes(lost=11), "11 of them as lost", id="struck and not lost"),
        pytest.param(of_strikes(stuck=["lane1: not within 90 s: ..."]), "lane1: not within 90 s", id="stuck"),
        pytest.param(of_strikes(bystanders=1), "1 of a runner beside them", id="a bystander's"),
        pytest.param(of_strikes(after_kills=(*TAKEN[1:], 7.1)), "7.10 s after kill -9", id="late after a kill"),
        pytest.param(of_strikes(after_freezes=(7.1,) * 3), "7.10 s after SIGSTOP", id="late after a freeze"),
        pytest.param(of_strikes(after_kills=TAKEN[1:]), "not all of them were taken over", id="not taken over"),
        pytest.param(list(problems_of_drains(Drains([1.1], []))), "one took 1.10 s", id="a slow drain"),
        pytest.param(list(problems_of_drains(Drains([0.1], [5]))), "exit codes [5]", id="a drain that failed"),
    ],
)
def test_each_check_finds_what_it_is_for(problems: list[str], said: str) -> None:
    [problem] = problems
    assert said in problem


def test_the_smallest_that_so_many_do_not_pass() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [quantile(hundred, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert quantile(hundred[:50], 0.99) == 50
    assert quantile([], 0.99) == 0


def lines(*told: tuple[str, int, int, float]) -> list[Effect]:
    """Of one run: what, attempt, process, when."""
    return [Effect(what, "key", "node", attempt, pid, at) for what, attempt, pid, at in told]


FIRST, SECOND = (("BEGUN", 1, 7, 10.0), ("STOPPED", 1, 7, 20.0)), (("BEGUN", 2, 8, 18.0), ("DONE", 2, 8, 30.0))


@pytest.mark.parametrize(
    ("told", "struck", "overlap"),
    [
        pytest.param((*FIRST, *SECOND), live.Struck(), 2, id="both ended"),
        pytest.param((FIRST[0], *SECOND), live.Struck({7: 17.0}), 0, id="killed before"),
        pytest.param((FIRST[0], *SECOND), live.Struck({7: 19.0}), 1, id="killed meanwhile"),
        pytest.param((FIRST[0], *SECOND), live.Struck(), 12, id="never ended"),
        pytest.param((*FIRST, *SECOND), live.Struck(frozen={7: (12.0, 19.5)}), 0.5, id="thawed, and stopped"),
        pytest.param((*FIRST, *SECOND), live.Struck(frozen={7: (12.0, 25.0)}), 0, id="stopped when it was frozen"),
    ],
)
def test_two_attempts_overlap_for_as_long_as_both_are_live(
    told: tuple[tuple[str, int, int, float], ...], struck: live.Struck, overlap: float, tmp_path: Path
) -> None:
    effects = lines(*told)
    assert list(live.overlaps_of(effects, struck)) == [overlap]
    others = [Effect(what, "other", "node", 1, 9, 1.0) for what in ("BEGUN", "DONE")]
    ledger = tmp_path / "ledger"
    ledger.write_bytes(b"".join(orjson.dumps(asdict(effect)) + b"\n" for effect in (*effects, *others)))
    assert live.read(ledger, struck) == live.Lived(3, 2, 2, 1, [overlap])
