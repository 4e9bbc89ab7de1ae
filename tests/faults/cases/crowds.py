"""Crowds: ten thousand that are idle, and a thousand that come back at once.

A crowd shares the machine's processors with Redis here, so what is measured is how long its own
work takes, and it has five seconds for that, or where the machine is slower what the same work
takes there when nothing is wrong:

- Ten thousand sends to ten thousand listeners take seconds, too: recovery is how much longer they
  take at once after the fault. Before its send each pair asks whether Redis knows its channel and
  its registration, and reads its stream: three more calls. So recovery may take
  :data:`CALLS` times as long as the sends did before the fault, and not longer.
- A thousand processes that come back connect twice each, as they did when they came. Besides they
  find out that Redis is another process, ask for what they held, and look for what they missed,
  once as their bells are heard again and once as they know what stands. So they are given
  :data:`ASKS` times as long as coming took them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from broker._keys import Keys
from tests.faults.case import RECOVERED_WITHIN, Extent, Report, case
from tests.faults.puppets import Puppet, Puppets
from tests.servers import RedisServer

MODULE = "tests.faults.crowd"
PROCESSES = 4
PATIENCE = 150.0
LEASE = 120.0
"""Seconds; a crowd on two processors, which others use, may need longer than the default."""
PATIENT: dict[str, Any] = {"lease": LEASE, "connect_timeout": 30.0, "reply_timeout": 30.0}
"""Where its event loop waits for its turn, a connection is not silent."""
IDLE = 10_000
BYTES = 2_700 + 500
"""What docs/farm.md says that a registration and a channel take in Redis."""
BESIDE = 8_000_000
"""Bytes that scripts, connections and buffers take beside."""
LISTENERS = 1_000
CALLS = 4
ASKS = 3
GROWTH = 1.25
"""Times as much as what stands took before it may take in Redis afterwards."""
SWELLING = 4
"""The same of a process, which asks for all of it at the same time."""

Strike = Callable[[RedisServer], Awaitable[None]]


async def each(crowds: Sequence[Puppet], *words: object) -> list[dict[str, Any]]:
    """Have all do something at the same time."""
    return list(await asyncio.gather(*(crowd.does(*words) for crowd in crowds)))


@asynccontextmanager
async def crowds_at(server: RedisServer, many: int) -> AsyncIterator[list[Puppet]]:
    """So many processes for a crowd; they are killed at the end."""
    async with Puppets(MODULE, 2 * PATIENCE) as puppets:
        yield [await puppets.made(server.url, **PATIENT) for _ in range(many)]


def durable() -> RedisServer:
    """A server whose acknowledged writes survive a kill, as the kernel has them."""
    return RedisServer(appendonly=True, config={"appendfsync": "no"})


def used(server: RedisServer) -> int:
    """Bytes of Redis."""
    return int(server.cli("INFO", "memory")["used_memory"])


async def resident(crowds: Sequence[Puppet]) -> int:
    """Bytes of all their processes."""
    return sum(one["bytes"] for one in await each(crowds, "memory"))


def _recovered(report: Report, seconds: float, alike: float, what: str) -> None:
    """``alike``: seconds that the same work takes here when nothing is wrong."""
    report.recovers(max(0.0, seconds), what, max(RECOVERED_WITHIN, alike))


# What is done to Redis ---------------------------------------------------------------------------


async def restarted(server: RedisServer) -> None:
    """Killed, and started again with what it had."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)


async def emptied(server: RedisServer) -> None:
    """Killed, and started again with nothing, as by a failover to a replica that had nothing."""
    await asyncio.to_thread(server.kill)
    for name in [*server.data.rglob("*.aof"), *server.data.rglob("*.manifest")]:
        name.unlink()
    await asyncio.to_thread(server.restart)


async def cut(server: RedisServer) -> None:
    """Every connection ends."""
    for kind in ("normal", "pubsub"):
        await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


# Ten thousand that are idle ----------------------------------------------------------------------


class Idle:
    """Registrations, each for a printer of its own, and as many channels to them."""

    def __init__(self, server: RedisServer, crowds: list[Puppet], many: int) -> None:
        self._server = server
        self._crowds = crowds
        self._many = many
        self._sent: list[str] = []

    async def stand(self) -> None:
        """A process's channels speak to the next process's registrations."""
        share = self._many // len(self._crowds)
        words = [("stand", i * share, share, share, self._many) for i in range(len(self._crowds))]
        await asyncio.gather(
            *(crowd.does(*one) for crowd, one in zip(self._crowds, words, strict=True))
        )

    async def all_hear(self, body: str) -> float:
        """A send on each channel finds its listener; seconds until the last one heard."""
        began = time.monotonic()
        self._sent.append(body)
        results: Counter[str] = Counter()
        for said in await each(self._crowds, "send", body):
            results += Counter(said["results"])
        assert results == {"S_OK": self._many}, f"{body}: {results}"
        heard = await each(self._crowds, "hear", body, PATIENCE)
        assert sum(one["have"] for one in heard) == self._many, f"{body}: {heard}"
        return max(float(one["last"]) for one in heard) - began

    async def check(self, report: Report) -> None:
        """Everybody heard everything once and in order, and nobody was taken for dead."""
        for said in await each(self._crowds, "heard"):
            found = said["heard"]
            if found != {" | ".join(self._sent): self._many // len(self._crowds)}:
                report.violations.append(f"{self._sent} was sent, and heard was {found}")
        lapses = sum(one["lapses"] for one in await each(self._crowds, "lapses"))
        if lapses:
            report.violations.append(f"{lapses} sessions lapsed")
        report.checked["notifications"] += self._many * len(self._sent)


@case(
    "10,000 registrations, 10,000 channels, Redis killed or cut",
    "all stand again; a send on each channel finds its listener; no memory is lost",
    is_alone=True,
)
async def idle(extent: Extent) -> Report:
    report, many = Report(), extent.of(400, IDLE, IDLE)
    with durable() as server:
        async with crowds_at(server, PROCESSES) as crowds:
            empty, alone = used(server), await resident(crowds)
            one = Idle(server, crowds, many)
            await one.stand()
            bare = used(server) - empty
            if bare > GROWTH * BYTES * many + BESIDE:
                report.violations.append(f"{many} pairs take {bare / many:.0f} bytes each")
            undisturbed = await one.all_hear("before")
            before, held = used(server), await resident(crowds)
            strikes = (restarted, cut) * extent.of(1, 1, 10)
            for number, strike in enumerate(strikes):
                await strike(server)
                report.runs += 1
                took = await one.all_hear(f"after {number}")
                _recovered(report, took - undisturbed, CALLS * undisturbed, f"{many} pairs")
            await one.check(report)
            after, kept = used(server), await resident(crowds)
            if after - empty > GROWTH * (before - empty):
                report.violations.append(f"Redis grew from {before:,} to {after:,} bytes")
            if kept - alone > SWELLING * (held - alone):
                report.violations.append(f"processes grew from {held:,} to {kept:,} bytes")
            report.checked["registrations"] += many
            report.checked["channels"] += many
    return report


# A thousand that come back at once ---------------------------------------------------------------


@case(
    "1,000 listeners come back at once, Redis killed or emptied",
    "all come back at once, and hear",
    is_alone=True,
)
async def come_back(extent: Extent) -> Report:
    """A thousand processes lose Redis at the same time, and have it again at the same time."""
    report, many = Report(), extent.of(100, LISTENERS, LISTENERS)
    with durable() as server:
        async with crowds_at(server, PROCESSES) as crowds, crowds_at(server, 1) as (source,):
            came = max(one["seconds"] for one in await each(crowds, "come", many // PROCESSES))
            await source.does("connect", 1)
            await source.does("open", 1)
            strikes = (restarted, emptied) * extent.of(1, 1, 10)
            for number, strike in enumerate(strikes):
                await strike(server)
                began = time.monotonic()
                report.runs += 1
                last = await _all_hear(server, source, crowds, f"{number}", many)
                _recovered(report, last - began, ASKS * came, f"{many} listeners")
                report.checked["listeners"] += many
    return report


async def _all_hear(
    server: RedisServer, source: Puppet, crowds: list[Puppet], body: str, many: int
) -> float:
    """Everybody hears what is sent as soon as all are registered again; when the last one did."""
    key, due = Keys("tympan", "print01").registrations, time.monotonic() + PATIENCE
    while await asyncio.to_thread(server.cli, "HLEN", key) < many:
        assert time.monotonic() < due, f"not all of {many} listeners are registered again"
        await asyncio.sleep(0.02)
    if (await source.asked("send", "are you there?"))["results"] != {"S_OK": 1}:
        await source.does("reopen")
    said = await source.does("send", body)
    assert said["results"] == {"S_OK": 1}, said
    heard = await each(crowds, "hear", body, PATIENCE)
    assert sum(one["have"] for one in heard) == many, f"of {many} listeners {heard}"
    return max(float(one["last"]) for one in heard)
