"""A sample of `make campaign-save`: saves that are struck at some of their statements, and fifty writers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.saving.campaign import Point, Victim, open_campaign
from tests.chaos.saving.contest import PATIENT, open_contest
from tests.chaos.saving.graphs import Kind
from tests.chaos.saving.house import open_house
from tests.chaos.saving.ledger import Answer
from tests.chaos.saving.proxy import Phase

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

COMMIT = "COMMIT;"
AT_THE_COMMIT = [
    Point(Kind.CHANGE, COMMIT, Phase.SENT, Victim.CONNECTION),
    Point(Kind.CREATE, COMMIT, Phase.ANSWERED, Victim.CONNECTION),
    Point(Kind.CHANGE, COMMIT, Phase.SENT, Victim.GRAPH_STORE),
    Point(Kind.CHANGE, COMMIT, Phase.ANSWERED, Victim.POSTGRES),
    Point(Kind.UNCHANGED, COMMIT, Phase.ANSWERED, Victim.CONNECTION),
]


async def test_i01_i03_i04_saves_that_are_struck_at_a_statement_are_whole_or_nothing_and_repeated_get_the_first_answer(
    tmp_path: Path,
) -> None:
    async with open_house(tmp_path) as house:
        async with open_campaign(house, seed=1) as campaign:
            elsewhere = [point for point in campaign.points() if point.statement != COMMIT]
            some = [next(point for point in elsewhere if point.victim is victim) for victim in Victim]
            await campaign.strike_each([*AT_THE_COMMIT, *some])
        assert campaign.ledger.problems == []
        assert sum(campaign.tally.struck.values()) == len(AT_THE_COMMIT) + len(some)
        assert campaign.tally.lost == 4
        # The rival may have saved between a strike and the repetition, which is rightly refused then.
        refused = sum(sent.answer is Answer.REFUSED for sent in campaign.ledger.sent)
        assert len(some) - refused <= campaign.tally.undone <= len(some)
        assert campaign.ledger.reads > 20, "hardly anybody read meanwhile"


async def test_i02_of_fifty_writers_on_one_version_one_wins_and_each_loser_is_told_what_is_current(
    tmp_path: Path,
) -> None:
    async with open_house(tmp_path, victims=1, **PATIENT) as house:
        addresses = [replica.service.address for replica in house.replicas]
        async with open_contest(addresses) as contest:
            assert await contest.rounds(3) == []
        async with open_contest(addresses, writers=6) as contest:
            assert await contest.counted(3) == []
