"""A replica becomes the primary under load: by hand, by Sentinel, in a Cluster.

Two farms talk on it, one that takes the word of the primary alone (``memory``), and one whose
successes a replica has, too (``replica``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import cycle

from tests import failovers
from tests.failovers import DURABILITIES, GROUNDS, LISTENERS, MISSED, Outcome, offset, strike
from tests.faults.case import Extent, Report, case, chance
from tests.faults.load import Load, Loss, judge, talking
from tests.proxy import Proxy
from tests.servers import RedisServer, await_agreement
from workers.embedded import HOST

HOLDS = (
    "no dialog has two owners, nobody hears twice or waits for ever; at `replica` nothing is "
    "forgotten, at `memory` it is counted"
)
LOSSES = {"memory": Loss.SOME, "replica": Loss.NOTHING}
MANNERS = ("killed ahead", "split", "killed")
"""Primaries die while the replica lags, take writes beside their successor, or simply die."""


@case("a replica promoted by hand", HOLDS, is_short=True)
async def by_hand(extent: Extent) -> Report:
    report = Report()
    for _ in range(extent.of(1, 1, 10)):
        await promoted(extent.of(2, 6, 10), report)
    return report


async def promoted(times: int, report: Report) -> None:
    """So often, of the same two servers in turn."""
    with RedisServer() as one, one.replica() as other:
        primary, replica = one, other
        async with Proxy(HOST, primary.port) as proxy:
            async with talking(proxy.url, DURABILITIES, report) as load:
                for manner in manners(times):
                    await load.calm()
                    await promote(primary, replica, proxy, manner, load)
                    primary, replica = replica, primary
            await load.settle(lambda: primary, LOSSES)


def manners(many: int) -> Iterable[str]:
    """So many, in turn."""
    return (manner for manner, _ in zip(cycle(MANNERS), range(many), strict=False))


async def promote(
    primary: RedisServer, replica: RedisServer, proxy: Proxy, manner: str, load: Load
) -> None:
    """The replica is promoted, and clients are led to it; then the former primary follows."""
    if manner == "split":
        await asyncio.to_thread(replica.promote)
        await asyncio.to_thread(goes_on, primary)
    else:
        await asyncio.to_thread(strike, primary, replica, manner)
        await asyncio.to_thread(replica.promote)
    proxy.target = (HOST, replica.port)
    proxy.cut()
    await load.recovers(f"promoted by hand, {manner}")
    if manner != "split":
        await asyncio.to_thread(primary.restart)
    await asyncio.to_thread(primary.follow, replica)


def goes_on(primary: RedisServer) -> None:
    """It takes so many writes more that nobody else ever hears of."""
    start = offset(primary)
    await_agreement(lambda: offset(primary) > start + MISSED, "writes at the former primary")


@case("a replica promoted by Sentinel", HOLDS, is_short=True)
async def by_sentinel(extent: Extent) -> Report:
    return await failed_over("sentinel", extent)


@case("a replica promoted in a Cluster", HOLDS, is_short=True)
async def in_a_cluster(extent: Extent) -> Report:
    return await failed_over("cluster", extent)


async def failed_over(ground: str, extent: Extent) -> Report:
    """The drill of ``tests.failovers``: primaries die, or freeze and come back."""
    draws, report = chance(ground), Report()
    for _ in range(extent.of(1, 1, 10)):
        with GROUNDS[ground]() as made:
            times = extent.of(2, 5, 10)
            outcomes = await failovers.play(made, times, draws.randrange(2**32))
        note(outcomes, times, f"promoted by {ground}", report)
    return report


def note(outcomes: list[Outcome], times: int, what: str, report: Report) -> None:
    """What so many failovers of the same servers came to."""
    report.runs += times
    for outcome in outcomes:
        # Who heard late is told below, once for each failover.
        kept = [fault for fault in outcome.faults if " heard again after " not in fault]
        report.violations += [f"{outcome.durability}: {fault}" for fault in kept]
        judge(outcome.talk, report, LOSSES[outcome.durability])
    heard = [outcome.heard_after for outcome in outcomes]
    for number in range(times):
        these = slice(number * LISTENERS, (number + 1) * LISTENERS)
        report.recovers(max(max(each[these]) for each in heard), what)
