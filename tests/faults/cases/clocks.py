"""A client's wall clock jumps: by hours and years, forward and back, in the middle of a dialog.

``time.time`` of a process of its own jumps; its loop's clock goes on, as a host's does that is set.
Leases are Redis's time, so nobody may lapse for it, and nobody dead may live.
"""

from __future__ import annotations

import asyncio
import random
from traceback import format_exception
from typing import Any

from broker.errors import TympanError
from broker.results import S_OK
from tests.farm import PRINTER, TYPE, Farm, RedisBackend
from tests.faults.case import Extent, Report, case
from tests.faults.puppets import Puppet, Puppets
from tests.redis.pooling import ALERTS, POOL, counted, end_pools, keys_of
from tests.redis.scenes import clock, leases_pass, until
from tests.servers import RedisServer

LEASE = 2.0
SETTINGS: dict[str, Any] = {"lease": LEASE, "resync": 60.0, "retry_least": 0.05}
HOUR = 3600.0
JUMPS = (HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 10 * 8766 * HOUR, -10 * 8766 * HOUR)
"""Seconds."""
LEASES = 2
"""How many go by while they talk on."""
PAUSE = 0.5
"""Seconds after which something that was handed back is handed out again."""
LATE = 2.0
"""Seconds by which that may be late on a loaded machine."""
NEAR = 1.0
"""Seconds by which a process may be wrong about Redis's clock."""
WHO = ("source", "owner", "other", "replica", "heir")


class Jump:
    """A source, an owner and another listener, two replicas; all clocks but one jump."""

    def __init__(self, farm: Farm, they: dict[str, Puppet], seconds: float, report: Report) -> None:
        self.farm = farm
        self.they = they
        self.seconds = seconds
        self.report = report

    async def set(self) -> None:
        """A dialog that is owned, an alert in hand."""
        source, owner, other, replica, heir = (self.they[who] for who in WHO)
        self.desk = await self.farm.broker(**SETTINGS)
        await self.desk.pools.create(POOL, ALERTS)
        self.feed = await self.desk.open_channel(PRINTER, TYPE)
        for each in self.they.values():
            await each.does("connect")
        for each in (owner, other):
            await each.does("register", 0)
        await other.does("register", 1)
        for each in (replica, heir):
            await each.does("join", 1)
        await source.does("open")
        await source.does("send", "q")
        for each in (owner, other):
            await each.does("offer")
        await owner.does("answer", 0, "a")
        await source.does("response")
        self.sessions = {who: puppet.session for who, puppet in self.they.items()}

    async def jump(self) -> None:
        """The heir's clock stays: two replicas need not agree."""
        for who, puppet in self.they.items():
            if who != "heir":
                await puppet.does("clock", self.seconds)
                self.report.runs += 1

    async def judge(self) -> None:
        """They talk on for some leases, and everything takes its time as Redis knows it."""
        until_then = asyncio.create_task(leases_pass(self.farm.client, LEASES, LEASE))
        turns = 0
        while not until_then.done() or turns < 3:
            turns += 1
            await self._turn(turns)
        await until_then
        await self._nobody_lapsed()
        await self._handed_out_in_time()
        await self._knows_the_time()
        await self._is_mourned("owner")
        self.report.checked["dialogs"] += 1
        self.report.checked["turns"] += turns

    async def _turn(self, number: int) -> None:
        source, owner, other = (self.they[who] for who in WHO[:3])
        await source.does("send", f"q{number}")
        assert (await owner.does("follow_up", 0))["body"] == f"q{number}"
        await owner.does("answer", 0, f"a{number}")
        assert (await source.does("response"))["body"] == f"a{number}"
        assert await self.feed.send(str(number)) == S_OK
        assert (await other.does("hear"))["body"] == str(number)
        taken = (await self.they["replica"].does("take", 1))["taken"]
        assert [(one["body"], one["times"]) for one in taken] == [(str(number), 1)]
        await self.they["replica"].does("finish", 1)

    async def _nobody_lapsed(self) -> None:
        for who, puppet in self.they.items():
            said = await puppet.does("ahead")
            assert said["lapses"] == 0, f"the {who} lapsed"
            assert puppet.session == self.sessions[who]
            self.report.checked["leases"] += 1

    async def _handed_out_in_time(self) -> None:
        """Also by a client whose clock says that it is due long since, or not for years."""
        heir, replica = self.they["heir"], self.they["replica"]
        for giver, taker in ((replica, heir), (heir, replica)):
            assert await self.feed.send("again") == S_OK
            many = (await giver.does("take", 1))["index"]
            began = await clock(self.farm.client)
            await giver.does("back", many, PAUSE)
            taken = (await taker.does("take", 1))["taken"]
            took = await clock(self.farm.client) - began
            assert [(one["body"], one["redelivered"]) for one in taken] == [("again", True)]
            assert PAUSE - 0.1 < took < PAUSE + LATE, f"handed out after {took:.1f} s"
            await taker.does("finish", 1)
            await self.they["other"].does("hear")
        await counted(self.desk, 0, 0)

    async def _knows_the_time(self) -> None:
        """By its last renewal."""

        async def is_near(puppet: Puppet) -> bool:
            ahead = float((await puppet.does("ahead"))["ahead"])
            return abs(ahead + self.seconds) < NEAR

        for who in WHO[:4]:
            await until(lambda: is_near(self.they[who]))  # noqa: B023 (awaited in the same turn)

    async def _is_mourned(self, who: str) -> None:
        """Nobody who died lives for ever, whoever looks for the dead."""
        keys = keys_of(self.farm)
        await self.they[who].kill()
        ends = float(await self.farm.client.zscore(keys.leases, self.sessions[who]) or 0) / 1000
        said = await self.they["source"].asked("response")
        assert said["error"] == "ChannelAlreadyClosed", f"the source was told {said}"
        after = max(0.0, await clock(self.farm.client) - ends)
        self.report.recovers(after, f"clocks {self.seconds / HOUR:+,.0f} h, owner killed")

        async def is_gone() -> bool:
            score: object = await self.farm.client.zscore(keys.leases, self.sessions[who])
            return score is None

        await until(is_gone)


async def jumped(server: RedisServer, puppets: Puppets, seconds: float) -> Report:
    """Clocks jump by so many seconds."""
    report = Report()
    try:
        async with Farm(RedisBackend(server)) as farm:
            options = SETTINGS | {"namespace": farm.namespace}
            they = {who: await puppets.made(server.url, **options) for who in WHO}
            one = Jump(farm, they, seconds, report)
            try:
                await one.set()
                await one.jump()
                await one.judge()
                for puppet in they.values():
                    await puppet.leave()
                await end_pools(one.desk)
            finally:
                for puppet in they.values():
                    if not puppet.is_gone:
                        await puppet.kill()
    except (AssertionError, TimeoutError, TympanError) as error:
        said = "".join(format_exception(error))
        report.violations.append(f"clocks {seconds / HOUR:+,.0f} h:\n{said}")
    return report


@case(
    "wall clock of a client jumps",
    "leases, dialogs and pauses take the time that Redis knows; nobody lapses, the dead end",
    is_short=True,
)
async def wall_clock(extent: Extent) -> Report:
    jumps = [*JUMPS[: extent.of(2, 6, 6)]]
    jumps += [random.choice((1, -1)) * random.uniform(0.5, 1e5) for _ in range(extent.of(0, 2, 74))]
    whole, gate = Report(), asyncio.Semaphore(4)
    with RedisServer() as server:
        async with Puppets() as puppets:

            async def one(seconds: float) -> None:
                async with gate:
                    found = await jumped(server, puppets, seconds)
                whole.runs += found.runs
                whole.checked += found.checked
                whole.violations += found.violations
                whole.recovered += found.recovered

            await asyncio.gather(*(one(seconds) for seconds in jumps))
    return whole
