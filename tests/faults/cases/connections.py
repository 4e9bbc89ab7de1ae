"""What happens on the way between clients and a Redis that is well."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from broker import Notification
from broker.results import S_OK
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.faults.case import Extent, Report, case, chance
from tests.faults.stage import Stage, broker_of, stage, struck
from tests.proxy import Way
from workers.proof.talk import SETTINGS

REPLY = SETTINGS["reply_timeout"]
CAREFUL: dict[str, Any] = {"resync": 1.0}
"""A subscription that is silent is told from one that has nothing to say by the clock."""


@case("connections cut again and again", "all connect again, and nothing is lost", is_short=True)
async def cut(extent: Extent) -> Report:
    async def strike(stage: Stage, number: int) -> None:
        rng = chance(f"cut {number}")
        for _ in range(8):
            stage.report.checked["connections cut"] += stage.proxy.cut()
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.05, 0.2)))

    return await struck(Report(), "cut", extent.of(1, 6, 60), strike)


@case("connections half open", "calls are asked again elsewhere, and done once", is_short=True)
async def half_open(extent: Extent) -> Report:
    """One direction passes; then what was held back comes late, or never."""
    manners: Iterator[tuple[Way, bool]] = itertools.cycle(
        [("requests", False), ("replies", True), ("requests", True), ("replies", False)]
    )

    async def strike(stage: Stage, _: int) -> None:
        way, is_lost = next(manners)
        stage.proxy.stall(True, only=way)
        await asyncio.sleep(2 * REPLY)
        if is_lost:
            stage.report.checked["connections cut"] += stage.proxy.cut()
        stage.proxy.stall(False)

    return await struck(Report(), "half open", extent.of(2, 4, 40), strike)


@case("connections that fall silent", "whoever owes an answer for too long is given up")
async def silent(extent: Extent) -> Report:
    async def strike(stage: Stage, _: int) -> None:
        """As a router does that forgot them: no end, no word; new ones pass.

        It lasts until all have been given up.
        """
        stage.report.checked["connections silenced"] += stage.proxy.silence()
        await asyncio.sleep(REPLY)

    return await struck(Report(), "silent", extent.of(1, 2, 20), strike, **CAREFUL)


@case("answers late, with jitter", "slower, and nothing else")
async def late(extent: Extent) -> Report:
    async def strike(stage: Stage, number: int) -> None:
        stage.proxy.delay(0.05, 0.2, chance(f"jitter {number}"))
        await asyncio.sleep(3)
        stage.proxy.delay(0)

    return await struck(Report(), "late", extent.of(1, 2, 20), strike)


@case("answers later than anyone waits", "done once, however often it is asked")
async def too_late(extent: Extent) -> Report:
    async def strike(stage: Stage, _: int) -> None:
        stage.proxy.delay(0.75 * REPLY)
        await asyncio.sleep(3 * REPLY)
        stage.proxy.delay(0)

    return await struck(Report(), "too late", extent.of(1, 2, 20), strike)


@case("connections refused for a while", "calls wait; nobody is taken for dead")
async def refused(extent: Extent) -> Report:
    async def strike(stage: Stage, _: int) -> None:
        stage.proxy.refuse(True)
        stage.report.checked["connections cut"] += stage.proxy.cut()
        await asyncio.sleep(2 * REPLY)
        stage.proxy.refuse(False)

    return await struck(Report(), "refused", extent.of(1, 2, 20), strike)


@case("replies dropped at random", "each call is done once, and its first answer counts")
async def dropped(extent: Extent) -> Report:
    async def strike(stage: Stage, number: int) -> None:
        before = stage.proxy.dropped
        stage.proxy.drop_replies(0.2, chance(f"dropped {number}"))
        await asyncio.sleep(2)
        stage.proxy.drop_replies(0)
        stage.report.checked["replies dropped"] += stage.proxy.dropped - before

    return await struck(Report(), "dropped", extent.of(1, 3, 30), strike)


BANDWIDTH = 3_000_000
"""Bytes a second that all connections share, in each direction."""
LARGE = 300_000
MOST = 8


@case("a narrow line and large bodies", "each body arrives whole, once, in order; leases hold")
async def narrow(extent: Extent) -> Report:
    report = Report()
    async with stage(report) as made:
        for number in range(extent.of(1, 1, 10)):
            async with made.broken(f"narrow, {number + 1}"):
                made.proxy.narrow(BANDWIDTH)
                async with (
                    broker_of(made.farm, "large") as source,
                    broker_of(made.farm, "large") as one,
                    broker_of(made.farm, "large") as other,
                ):
                    listening = [await each.register(PRINTER, TYPE) for each in (one, other)]
                    channel = await source.open_channel(PRINTER, TYPE)
                    bodies = [chance(f"{number} {n}").randbytes(LARGE) for n in range(MOST)]
                    sending = asyncio.create_task(_send(channel, bodies))
                    for registration in listening:
                        for body in bodies:
                            found = await registration.fetch(PATIENCE)
                            if not isinstance(found, Notification) or found.data != body:
                                report.violations.append("a large body did not come whole")
                        report.checked["large bodies"] += MOST
                    await sending
                made.proxy.narrow(None)
    return report


async def _send(channel: Any, bodies: list[bytes]) -> None:
    for body in bodies:
        assert await channel.send(body) == S_OK
