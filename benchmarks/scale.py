"""``python -m benchmarks.scale``: what a send, a delivery and an idle object cost, by how many.

Redis's own figures, and this process's: what an object costs is the growth over what stands
without it. Default settings; Redis is private, and nobody else uses it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import redis.asyncio

from benchmarks.caller import Caller
from benchmarks.contenders.tympan import TYPE, USER, name_of, together
from benchmarks.contest import Figures
from benchmarks.contestants import DEEP, DEEP_ON_UVLOOP, TYMPAN
from benchmarks.drafts import PRINTER, Drafts, plan_of
from benchmarks.footprint import used
from benchmarks.profile import table
from benchmarks.stage import Stage
from benchmarks.telling import Telling
from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Channel
from broker.names import Name

COUNTS = (10, 100, 1_000, 10_000)
PROCESSES = (10, 100)
"""Each is a broker of its own here, with connections and a session of its own."""
MOST_SERVERS = 1_000
"""On more than that one process has no time for anything else."""
HEARING = (3, 10, 30)
"""Processes of their own."""
SENDS = 500
PAUSE_US = 3_000
IN_FLIGHT = 64
ROUNDS = 5
SHOWN = (("latency", 0), ("sends", 0), ("source_cpu", 1), ("listener_cpu", 1))
"""Of two event loops, with the digits after the point."""
PARTS = "sends, hearings, deliveries, loops, idle"
ASKED = frozenset({"evalsha", "xrange", "hget", "xinfo|groups", "ping"})
"""Commands that an idle process sends, of those that none of the scripts it calls uses inside."""

Make = Callable[[Broker, int], Awaitable[object]]


async def _registered(broker: Broker, count: int) -> object:
    return await together(lambda _: broker.register(name_of("one"), TYPE), range(count))


async def _printers(broker: Broker, count: int) -> object:
    return await together(lambda i: broker.register(name_of(f"p{i}"), TYPE), range(count))


async def _servers(broker: Broker, count: int) -> object:
    return await together(lambda i: broker.register(rf"\\s{i}", TYPE, printers=True), range(count))


async def _channels(broker: Broker, count: int) -> object:
    return await together(lambda i: broker.open_channel(name_of(f"c{i}"), TYPE), range(count))


async def _questions(broker: Broker, count: int) -> object:
    async def ask(number: int) -> Channel:
        channel = await broker.open_channel(name_of(f"q{number}"), TYPE, style=BIDIRECTIONAL)
        await channel.send(b"?")
        return channel

    return await together(ask, range(count))


def _broker(url: str) -> Broker:
    return Broker.connect(url, user=USER, max_registrations=10**6, max_channels=10**6)


IDLE: dict[str, Make] = {
    "registrations on one printer": _registered,
    "printers, a registration on each": _printers,
    "servers, a registration for all printers of each": _servers,
    "open channels": _channels,
    "open questions": _questions,
}


@dataclass(frozen=True)
class Standing:
    """What goes on in a second, and what is held."""

    bytes: float
    calls: float
    redis_us: float
    own_us: float

    @classmethod
    async def now(cls, client: redis.asyncio.Redis, seconds: float) -> Standing:
        """What it is, looked at for so long."""
        before, own, began = await _asked(client), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        after, own = await _asked(client), time.process_time() - own
        took = time.monotonic() - began
        calls, redis_s = (late - early for late, early in zip(after, before, strict=True))
        return cls(await used(client), calls / took, redis_s * 1e6 / took, own * 1e6 / took)

    def each(self, bare: Standing, count: int) -> tuple[str, ...]:
        """What one of so many adds to what stood without them."""
        return (
            f"{(self.bytes - bare.bytes) / count:,.0f}",
            f"{(self.calls - bare.calls) / count:.2f}",
            f"{(self.redis_us - bare.redis_us) / count:.1f}",
            f"{(self.own_us - bare.own_us) / count:.1f}",
        )


async def _asked(client: redis.asyncio.Redis) -> tuple[float, float]:
    """How often Redis was asked, and the seconds of CPU that it has used, so far."""
    counted: Any = await client.info("commandstats")
    cpu: Any = await client.info("cpu")
    calls = sum(counted.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ASKED)
    return calls, cpu["used_cpu_user"] + cpu["used_cpu_sys"]


@asynccontextmanager
async def _private() -> AsyncIterator[tuple[str, redis.asyncio.Redis]]:
    async with Stage() as stage:
        url = (await stage.server()).url
        async with redis.asyncio.Redis.from_url(url) as client:
            yield url, client


async def idle(seconds: float, counts: Sequence[int]) -> str:
    """What things cost while nothing happens to them."""
    rows = []
    for what, make in IDLE.items():
        for count in counts[1:]:
            if make is _servers and count > MOST_SERVERS:
                continue
            async with _private() as (url, client), _broker(url) as broker:
                held = [await make(broker, 1)]
                bare = await Standing.now(client, seconds)
                held.append(await make(broker, count))
                full = await Standing.now(client, seconds)
                rows.append((f"{count:,} {what}", *full.each(bare, count)))
    rows += [await _idle_processes(seconds, count) for count in PROCESSES]
    return table(("idle, each of", "bytes", "calls/s", "Redis µs/s", "client µs/s"), rows)


async def _idle_processes(seconds: float, count: int) -> tuple[str, ...]:
    async with _private() as (url, client), AsyncExitStack() as brokers:

        async def begin() -> None:
            broker = await brokers.enter_async_context(_broker(url))
            await broker.register(name_of("one"), TYPE)

        await begin()
        bare = await Standing.now(client, seconds)
        for _ in range(count):
            await begin()
        full = await Standing.now(client, seconds)
        return (f"{count:,} processes with a registration", *full.each(bare, count))


async def sends(counts: Sequence[int]) -> str:
    """Time in Redis of a send, by what else stands there."""
    plan = plan_of(UNIDIRECTIONAL)

    def elsewhere(i: int) -> Name:
        return Name(PRINTER.server, f"other-{i}")

    rows = []
    async with _private() as (url, _), Caller(url) as caller:
        drafts = Drafts(caller)

        async def note(what: str, *there: Any) -> None:
            await caller.client.flushall()
            await caller.hello()
            await caller.ask([drafts.open("one", UNIDIRECTIONAL), *there])
            route = drafts.route("one", UNIDIRECTIONAL)
            took = await caller.timed([drafts.send(route, 1 + i) for i in range(SENDS)])
            rows.append((what, f"{took.median:.0f}", f"{took.p99:.0f}"))

        one = drafts.register("one", plan, 10**6)
        for count in counts:
            many = [drafts.register(f"r{i}", plan, 10**6) for i in range(count)]
            await note(f"{count:,} registrations that hear it", *many)
        for count in counts:
            channels = [drafts.open(f"c{i}", UNIDIRECTIONAL, 10**6) for i in range(count)]
            await note(f"{count:,} open channels", one, *channels)
        for count in counts:
            others = [
                drafts.register(f"r{i}", plan_of(UNIDIRECTIONAL, elsewhere(i)))
                for i in range(count)
            ]
            await note(f"{count:,} other printers with a registration", one, *others)
    return table(("a send, with", "Redis µs, median", "p99"), rows)


async def hearings() -> str:
    """CPU of Redis for a send, one after another, by the processes that hear it."""
    rows = []
    for processes in (1, *HEARING):
        async with Stage() as stage:
            telling = Telling(stage, TYMPAN, "heard", listeners=processes, processes=processes)
            await telling.latency(SENDS // 5, PAUSE_US)
            url = (await stage.server()).url
            async with redis.asyncio.Redis.from_url(url) as client:
                _, before = await _asked(client)
                await telling.latency(SENDS, PAUSE_US)
                _, after = await _asked(client)
        rows.append((f"{processes} processes", f"{(after - before) * 1e6 / SENDS:.0f}"))
    return table(("a send and what follows, heard by", "all of Redis, µs"), rows)


async def deliveries(counts: Sequence[int]) -> str:
    """CPU of a delivery, by the registrations of one process that hear each send."""
    rows = []
    for count in counts:
        async with Stage() as stage:
            telling = Telling(stage, DEEP, "scale", channels=16, listeners=count)
            await telling.rate(IN_FLIGHT)
            figures = await telling.rate(IN_FLIGHT)
        rows.append(
            (
                f"{count:,} registrations in one process",
                f"{figures['source_cpu']:.1f}",
                f"{figures['listener_cpu']:.1f}",
                f"{figures['listener_cpu'] * count:,.0f}",
            )
        )
    headings = ("many sends, to", "source µs a send", "listener µs a delivery", "and a send")
    return table(headings, rows)


async def loops() -> str:
    """The same on asyncio's own event loop and on uvloop, in turns."""
    loops = {"asyncio": DEEP, "uvloop": DEEP_ON_UVLOOP}
    found: dict[str, list[Figures]] = {loop: [] for loop in loops}
    for _ in range(ROUNDS):
        for loop, contender in loops.items():
            async with Stage() as stage:
                telling = Telling(stage, contender, "loop")
                await telling.latency(SENDS // 5, PAUSE_US)
                slow = await telling.latency(SENDS, PAUSE_US)
                await telling.rate(IN_FLIGHT)
                found[loop].append({"latency": slow["median"], **await telling.rate(IN_FLIGHT)})
    rows = [
        (
            loop,
            *(f"{median(one[figure] for one in rounds):,.{digits}f}" for figure, digits in SHOWN),
        )
        for loop, rounds in found.items()
    ]
    return table(("loop", "send to handler, µs", "sends/s", "source µs", "listener µs"), rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"{PARTS}; default all")
    parser.add_argument(
        "--seconds", type=float, default=15, help="that each idle state is looked at (15)"
    )
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="the greatest count (10,000)")
    chosen = parser.parse_args()
    counts = [count for count in COUNTS if count <= chosen.most]
    parts: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
        "sends": lambda: sends(counts),
        "hearings": hearings,
        "deliveries": lambda: deliveries([1, *(count for count in counts if count < COUNTS[-1])]),
        "loops": loops,
        "idle": lambda: idle(chosen.seconds, counts),
    }
    unknown = set(chosen.part) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # Ten thousand that end together would be told one by one.
    logging.getLogger("tympan").setLevel(logging.ERROR)
    for part in chosen.part or parts:
        print(asyncio.run(parts[part]()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
