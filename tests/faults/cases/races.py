"""Many listeners answer one question at once: the race of ``tests.race``."""

from __future__ import annotations

from tests import race
from tests.faults.case import Extent, Report, case, chance
from tests.race import Race
from tests.servers import RedisServer

RESPONDERS, PROCESSES = 64, 4


@case(
    "64 listeners answer at once",
    "exactly one owns the dialog; every other one is told by whom; each handle is dropped once",
    is_short=True,
)
async def on_good_connections(extent: Extent) -> Report:
    return await raced(extent.of(100, 1000, 10_000), 0.0)


@case(
    "64 listeners answer at once, and a tenth of all replies is lost",
    "the same: what is asked again gets its first answer, and nothing happens twice",
    is_short=True,
)
async def with_lost_replies(extent: Extent) -> Report:
    return await raced(extent.of(60, 200, 10_000), 0.1)


async def raced(dialogs: int, drop: float) -> Report:
    """So many dialogs, each with a probability that a reply is lost."""
    seed = chance(f"race {drop}").randrange(2**32)
    with RedisServer() as server:
        outcome = await race.run(Race(dialogs, RESPONDERS, PROCESSES, drop, seed), server.url)
    known = {
        "winners": (outcome.winners, dialogs),
        "losers told": (outcome.losers_told, dialogs * (RESPONDERS - 1)),
        "handles": (outcome.drops, dialogs * (RESPONDERS + 1)),
    }
    report = Report(runs=outcome.lost if drop else dialogs, violations=outcome.violations)
    report.checked["dialogs"] = len(outcome.history.dialogs)
    for what, (many, expected) in known.items():
        report.checked[what] = many
        if many != expected:
            report.violations.append(f"{many} {what} instead of {expected}")
    return report
