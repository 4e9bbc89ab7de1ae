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
    return await raced(extent.of(1, 1, 10), extent.of(100, 1000, 1000), 0.0)


@case(
    "64 listeners answer at once, and a tenth of all replies is lost",
    "the same: what is asked again gets its first answer, and nothing happens twice",
    is_short=True,
)
async def with_lost_replies(extent: Extent) -> Report:
    return await raced(extent.of(1, 1, 20), extent.of(60, 200, 500), 0.1)


async def raced(races: int, dialogs: int, drop: float) -> Report:
    """So many races of so many dialogs; ``drop``: the probability that a reply is lost."""
    draws, report = chance(f"race {drop}"), Report()
    for _ in range(races):
        with RedisServer() as server:
            form = Race(dialogs, RESPONDERS, PROCESSES, drop, draws.randrange(2**32))
            note(await race.run(form, server.url), form, report)
    return report


def note(outcome: race.Outcome, form: Race, report: Report) -> None:
    """What one race came to, and what it should have."""
    dialogs = form.dialogs
    known = {
        "winners": (outcome.winners, dialogs),
        "losers told": (outcome.losers_told, dialogs * (RESPONDERS - 1)),
        "handles": (outcome.drops, dialogs * (RESPONDERS + 1)),
    }
    report.runs += outcome.lost if form.drop else dialogs
    report.violations += outcome.violations
    report.checked["dialogs"] += len(outcome.history.dialogs)
    for what, (many, expected) in known.items():
        report.checked[what] += many
        if many != expected:
            report.violations.append(f"{many} {what} instead of {expected}")
