"""`python -m tests.chaos.saving --strikes 1500`: exit code 1 at the first problem, with what does not hold."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.saving.campaign import Campaign, Victim, open_campaign
from tests.chaos.saving.contest import PATIENT, WRITERS, open_contest
from tests.chaos.saving.house import open_house


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.chaos.saving", description=__doc__)
    parser.add_argument("--strikes", type=int, default=1_500, help="all victims alike (default 1,500)")
    parser.add_argument("--victims", nargs="+", choices=[victim.name for victim in Victim], help="all by default")
    parser.add_argument("--rounds", type=int, default=200, help="of fifty writers on one version (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="decides their order (default 1)")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    victims = [Victim[name] for name in chosen.victims] if chosen.victims else list(Victim)
    with tempfile.TemporaryDirectory(prefix="valkyr-saves-") as folder:
        campaign, problems = asyncio.run(_run(Path(folder), victims, chosen))
    for kind, statements in campaign.statements.items():
        print(f"a save that {kind}:")
        for statement in statements:
            print(f"  {campaign.tally.places[kind, statement]:4} strikes at {statement[:90]}")
    print(f"{campaign.summary()}")
    print(f"{WRITERS} writers on one version: {chosen.rounds} rounds, {len(problems)} problems")
    print(f"in {time.monotonic() - began:.0f} s")
    for problem in (*campaign.ledger.problems[:20], *problems[:20]):
        print(f"  {problem}")
    return 1 if campaign.ledger.problems or problems else 0


async def _run(folder: Path, victims: Sequence[Victim], chosen: argparse.Namespace) -> tuple[Campaign, list[str]]:
    """The strikes, then the contest of the writers."""
    struck, contested = folder / "struck", folder / "contested"
    struck.mkdir()
    contested.mkdir()
    async with open_house(struck) as house, open_campaign(house, chosen.seed) as campaign:
        for number in (signal.SIGINT, signal.SIGTERM):  # all is checked that was done so far
            asyncio.get_running_loop().add_signal_handler(number, campaign.stop)
        points = itertools.islice(itertools.cycle(campaign.points(victims)), chosen.strikes)
        await campaign.strike_each(list(points), tell=lambda text: print(text, flush=True))
    async with (
        open_house(contested, **PATIENT) as house,
        open_contest([replica.service.address for replica in house.replicas]) as contest,
    ):
        return campaign, await contest.rounds(chosen.rounds) + await contest.counted(1)


if __name__ == "__main__":
    sys.exit(main())
