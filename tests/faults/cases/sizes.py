"""Sizes: a listener that never reads, 10 MB to a hundred, a flood beside a quiet source."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from statistics import median

from broker._bodies import PIECE
from broker.results import NOTIFICATION_LOST
from tests.faults.case import Extent, Report, case
from tests.faults.cases.crowds import MODULE, PATIENCE, cut, each, resident, used
from tests.faults.crowd import printer
from tests.faults.puppets import Puppet, Puppets
from tests.servers import RedisServer

MB = 1_000_000


def sizes(results: dict[str, int]) -> tuple[int, int]:
    """How many notifications reached everybody, and how many were missed by somebody."""
    found = dict(results)
    counted = found.pop("S_OK", 0), found.pop(NOTIFICATION_LOST.name, 0)
    assert not found, f"beside what was missed: {found}"
    return counted


# A listener that never reads ---------------------------------------------------------------------

BUFFER = 100
SIZE = 4_000


@case(
    "a listener never reads",
    "it keeps its oldest 100, the sender is told, others hear all; memory stays bounded",
    is_short=True,
)
async def never_reads(extent: Extent) -> Report:
    report, many = Report(), extent.of(600, 10_000, 50_000)
    with RedisServer() as server:
        async with Puppets(MODULE, 2 * PATIENCE) as puppets:
            lazy, diligent, source = [await puppets.made(server.url, resync=0.5) for _ in range(3)]
            await lazy.does("come", 1, printer(1), BUFFER, False)
            await diligent.does("come", 3, printer(1), 1_000_000)
            await source.does("connect", 1)
            await source.does("open", 1, printer(1))
            begun, alone = used(server), await resident([lazy])
            said = await source.does("tick", many, SIZE, 0.0, False)
            report.runs += 1
            heard, lost = sizes(said["results"])
            if (heard, lost) != (BUFFER, many - BUFFER):
                report.violations.append(f"{heard} were said to be heard by all, {lost} missed")
            last = list(said["at"])[-1]
            assert (await diligent.does("hear", last, PATIENCE))["have"] == 3
            if (times := await diligent.does("times"))["heard"] != list(said["at"]):
                report.violations.append(f"of {many} another heard {len(times['heard'])}")
            await _trimmed(server, report, begun, many)
            grew = await resident([lazy]) - alone
            if grew > 20 * MB:
                report.violations.append(f"its process grew by {grew:,} bytes")
            await _reads_at_last(lazy, source, list(said["at"]), report)
            report.checked["notifications"] += 2 * many
    return report


async def _trimmed(server: RedisServer, report: Report, begun: int, many: int) -> None:
    """Redis has given back what everybody received, or was denied, within some looks."""
    await _given_back(server, begun, 10.0, 3 * BUFFER * SIZE, report)
    report.checked["bytes"] += many * SIZE


async def _reads_at_last(lazy: Puppet, source: Puppet, sent: list[str], report: Report) -> None:
    waits = await lazy.does("unread")
    if (waits["unread"], waits["denied"]) != (BUFFER, len(sent) - BUFFER):
        report.violations.append(f"it holds and missed {waits}")
    began = time.monotonic()
    await lazy.does("read")
    await lazy.does("hear", sent[BUFFER - 1], PATIENCE)
    said = await source.does("tick", 1, SIZE + 1, 0.0, True)
    assert (await lazy.does("hear", next(iter(said["at"])), PATIENCE))["have"] == 1
    report.recovers(time.monotonic() - began, "a listener that reads again")
    found = await lazy.does("times")
    if found["heard"] != [*sent[:BUFFER], *said["at"]]:
        report.violations.append(f"it heard {len(found['heard'])}, not its oldest {BUFFER}")


ASLEEP = 15_000
LEASE = 2.0


@case(
    "a listener's process sleeps under a flood",
    "others hear all; Redis keeps what it was sent for one lease, and gives it back",
)
async def sleeps(extent: Extent) -> Report:
    """Nobody but the process knows what it received: until its lease ends, it is waited for."""
    report = Report()
    with RedisServer() as server:
        async with Puppets(MODULE, 2 * PATIENCE) as puppets:
            for _ in range(extent.of(1, 2, 20)):
                asleep, awake, source = [
                    await puppets.made(server.url, resync=0.5, lease=LEASE) for _ in range(3)
                ]
                await asleep.does("come", 1, printer(1))
                await awake.does("come", 1, printer(1), 1_000_000)
                await source.does("connect", 1)
                await source.does("open", 1, printer(1))
                begun = used(server)
                asleep.freeze()
                report.runs += 1
                said = await source.does("tick", 3_000, ASLEEP, 0.0, False)
                heard, lost = sizes(said["results"])
                if heard < BUFFER:
                    report.violations.append(f"{heard} heard, {lost} lost")
                assert (await awake.does("hear", list(said["at"])[-1], PATIENCE))["have"] == 1
                if (await awake.does("times"))["heard"] != list(said["at"]):
                    report.violations.append("the other one missed something")
                await _given_back(server, begun, 5 * LEASE, 3 * BUFFER * ASLEEP, report)
                asleep.thaw()
                began = time.monotonic()
                last = ""
                while not last or not (await asleep.does("hear", last, 0.2))["have"]:
                    # until its process has found out, and registered again
                    last = next(iter((await source.does("tick", 1, 9, 0.0, False))["at"]), "")
                    assert time.monotonic() < began + 60, "it never heard again"
                report.recovers(time.monotonic() - began, "a process that slept under a flood")
                report.checked["notifications"] += 3_000
                for puppet in (asleep, awake, source):
                    await puppet.leave()
    return report


async def _given_back(
    server: RedisServer, begun: int, within: float, most: int, report: Report
) -> None:
    """Redis takes no more than so many bytes again, some seconds after the last send."""
    due = time.monotonic() + within
    while used(server) - begun > most and time.monotonic() < due:  # noqa: ASYNC110 - rings no bell
        await asyncio.sleep(0.1)
    if (grew := used(server) - begun) > most:
        report.violations.append(f"{within:g} s later Redis keeps {grew:,} bytes, not {most:,}")


# 10 MB to a hundred ------------------------------------------------------------------------------

LARGE = 10_485_760
LISTENERS = 100
READERS = 4
"""Processes; each listener in one is a broker of its own."""
SPARE = 30 * MB
"""Bytes of connections and buffers beside the one copy."""

Strike = Callable[["Large"], Awaitable[None]]


class Large:
    """One body after the other to all of them."""

    def __init__(self, server: RedisServer, puppets: Puppets, many: int, report: Report) -> None:
        self.server = server
        self.report = report
        self.many = many
        self.is_told = True
        """Whether the source was told that the present one was sent."""
        self._puppets = puppets
        self._sent = 0
        self._undisturbed = 0.0
        """Seconds that all take to read one."""
        self._heard: list[str] = []

    async def set(self) -> None:
        self.readers = [await self._puppets.made(self.server.url) for _ in range(READERS)]
        await each(self.readers, "come", self.many // READERS)
        await self.replace()
        self._begun = used(self.server)

    async def replace(self) -> None:
        """Another source."""
        self.source = await self._puppets.made(self.server.url)
        await self.source.does("connect", 1)
        await self.source.does("open", 1)

    async def told(self) -> None:
        """The source is told that it is sent."""
        said = await self.source.said()
        assert said.get("result") == "S_OK", said
        self.is_told = True

    async def send(self, strike: Strike) -> None:
        """Send one, and do something to it meanwhile; all hear all of it, or nobody does."""
        self._sent += 1
        byte = self._sent % 251
        digest = hashlib.sha1(bytes([byte]) * LARGE, usedforsecurity=False).hexdigest()
        body = f"{LARGE} {digest}"
        self.is_told = False
        self.source.tell("send_large", LARGE, byte)
        await strike(self)
        struck = time.monotonic()
        self.report.runs += strike is not undisturbed
        if self.source.is_gone:
            await self.replace()
        elif not self.is_told:
            await self.told()
        said = await self.source.does("send", f"behind {self._sent}")
        assert said["results"] == {"S_OK": 1}, said
        heard = await each(self.readers, "hear", f"behind {self._sent}", PATIENCE)
        assert sum(one["have"] for one in heard) == self.many, heard
        self._recovered(max(float(one["last"]) for one in heard) - struck)
        # What was sent before is heard before.
        have = sum(one["have"] for one in await each(self.readers, "hear", body, 0.0))
        if have != self.many and (have or self.is_told):
            self.report.violations.append(f"{have} of {self.many} heard 10 MB")
        self._heard += [body] if have else []
        self._heard.append(f"behind {self._sent}")
        await self.check()

    def _recovered(self, took: float) -> None:
        """The first one is undisturbed: recovery is how much longer another one takes."""
        if self._sent == 1:
            self._undisturbed = took
        else:
            self.report.recovers(max(0.0, took - self._undisturbed), "10 MB to a hundred")

    async def check(self) -> None:
        """It is stored once, and ends by itself."""
        for key in self.server.cli("KEYS", "*:body:*"):
            ttl = self.server.cli("TTL", key)
            if ttl == -1:
                self.report.violations.append(f"{key} stays for ever")
        bodies = len(self.server.cli("KEYS", "*:body:*"))
        assert bodies <= self._sent, f"{bodies} bodies, {self._sent} sent"
        most = bodies * LARGE + SPARE
        await _given_back(self.server, self._begun, 10.0, most, self.report)
        self.report.checked["bodies"] += self.many

    async def heard(self) -> None:
        """All heard the same, each once and in order; what they read at once was a piece each."""
        most = (self._sent + 1) * LARGE + 2 * self.many * PIECE + SPARE
        peak = int(self.server.cli("INFO", "memory")["used_memory_peak"]) - self._begun
        if peak > most:
            self.report.violations.append(f"Redis took {peak:,} bytes meanwhile, not {most:,}")
        for said in await each(self.readers, "heard"):
            if said["heard"] != {" | ".join(self._heard): self.many // READERS}:
                self.report.violations.append(f"heard was {said['heard']}")


async def undisturbed(large: Large) -> None:
    """Nothing happens to it."""
    await large.told()


async def source_killed_after(large: Large) -> None:
    """The source dies when it was told that it is sent."""
    await large.told()
    await large.source.kill()


async def source_killed_meanwhile(large: Large) -> None:
    """The source dies while the body, or the word of it, is on its way."""
    await asyncio.sleep(random.uniform(0.0, 0.15))
    await large.source.kill()


async def connections_cut(large: Large) -> None:
    """Every connection ends while the body is on its way to Redis, or to the listeners."""
    await asyncio.sleep(random.uniform(0.0, 0.5))
    await cut(large.server)


STRIKES: tuple[Strike, ...] = (
    undisturbed, source_killed_after, source_killed_meanwhile, connections_cut,
)  # fmt: skip


@case(
    "10 MB to 100 listeners, source killed or connections cut",
    "all hear all of it once, or nobody does; it is stored once, and ends by itself",
)
async def large(extent: Extent) -> Report:
    """What all hundred read at the same time waits in Redis's buffers until they have read it.

    So there is one copy when they have, and meanwhile a piece for each besides. They share two
    processors, and read a gigabyte, which takes seconds where nothing is wrong: recovery is how
    much longer it takes, from the fault until all have read it, and what was sent behind it.
    """
    report = Report()
    with RedisServer() as server:
        async with Puppets(MODULE, 2 * PATIENCE) as puppets:
            one = Large(server, puppets, extent.of(8, LISTENERS, LISTENERS), report)
            await one.set()
            for _ in range(extent.of(1, 1, 10)):
                for strike in STRIKES:
                    await one.send(strike)
            await one.heard()
    return report


# A flood beside a quiet source -------------------------------------------------------------------

TICKS = 100
PAUSE = 0.03
CALM = 2.5
"""Seconds within which half of the quiet source's notifications are heard."""
LATEST = 5.0
"""Seconds within which all are."""


@case(
    "a flood beside a quiet source",
    "what the quiet one was told is heard, is heard, and soon; with lossless sends that is all",
    is_short=True,
)
async def flood(extent: Extent) -> Report:
    """To another printer, and to the same listener; lossless sends wait for room, others miss."""
    report = Report()
    kinds = ((True, True), (False, False), (True, False))
    for _ in range(extent.of(1, 1, 10)):
        for is_same, is_lossless in kinds[: extent.of(1, 3, 3)]:
            await _flooded(report, extent.of(20, TICKS, TICKS), is_same, is_lossless)
    return report


async def _flooded(report: Report, ticks: int, is_same: bool, is_lossless: bool) -> None:
    where = "the same listener" if is_same else "another printer"
    with RedisServer() as server:
        async with Puppets(MODULE, 2 * PATIENCE) as puppets:
            flooder, quiet, listener, busy = [await puppets.made(server.url) for _ in range(4)]
            for source, number, many in ((flooder, 1, 4), (quiet, 1 if is_same else 2, 1)):
                await source.does("connect", 1)
                await source.does("open", many, printer(number))
            await listener.does("come", 1, printer(1 if is_same else 2))
            await busy.does("come", 1, printer(1))
            await flooder.does("flood", 200, 16, is_lossless)
            report.runs += 1
            said = await quiet.does("tick", ticks, 20, PAUSE, is_lossless)
            flooded = Counter((await flooder.does("stop"))["results"])
            done = Counter(said["results"])
            if (not is_same or is_lossless) and done != {"S_OK": ticks}:
                report.violations.append(f"a flood to {where}: the quiet one was told {done}")
            if not flooded["S_OK"]:
                report.violations.append(f"no flood: {flooded}")
            at = said["at"]
            behind = next(iter((await quiet.does("tick", 1, 21, 0.0, True))["at"]))
            assert (await listener.does("hear", behind, PATIENCE))["have"] == 1
            found = await listener.does("times")
            missing = [body for body in at if body not in found["at"]]
            if missing and done["S_OK"] == ticks:
                report.violations.append(f"a flood to {where}: {len(missing)} were not heard")
            late = sorted(
                found["at"][body] - began for body, began in at.items() if body in found["at"]
            )
            if late and (median(late) > CALM or late[-1] > LATEST):
                late_by = f"{median(late):.2f} s, {late[-1]:.2f} s at worst"
                report.violations.append(f"a flood to {where}: heard after {late_by}")
            report.checked["notifications"] += len(late)
            report.lost["missed, and told so"] += ticks - done["S_OK"]
