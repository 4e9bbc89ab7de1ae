"""How fast events are, beside the same chain without the broker: notifier, XADD, XREAD."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from tests.cups.farm.case import Cases
from tests.cups.farm.stage import PATIENCE, Heard, Stage
from tests.cups.host import CupsHost
from tests.cups.switch import Switch
from workers.cups.cupsd.event import Event
from workers.cups.types import PrinterStatus

paces = Cases()
EVENTS = 5_000
PACED = 300
QUEUE = "fast"
HEADINGS = ("chain", "events", "events/s", "median", "p99")
rows: list[tuple[str, ...]] = []
"""What was measured."""
_STREAM = "raw"


class Tally:
    """Counts what a handler is given, and knows when."""

    def __init__(self) -> None:
        self.many = 0
        self.last = 0.0
        self._awaited = 0
        self._news = asyncio.Event()
        self._fault: BaseException | None = None

    def add(self, at: float) -> None:
        """One more."""
        self.many, self.last = self.many + 1, at
        if self.many >= self._awaited:
            self._news.set()

    def ended(self, task: asyncio.Task[None]) -> None:
        """Nothing more will be counted."""
        if not task.cancelled():
            self._fault = task.exception()
            self._news.set()

    async def reach(self, many: int) -> None:
        """Wait until there are so many."""
        self._awaited = many
        if self.many < many:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3 * PATIENCE):
                    await self._news.wait()
        assert self.many >= many, f"{self.many} events came of {many}: {self._fault}"


@dataclass
class Chain:
    """One way from a cupsd to a handler."""

    name: str
    host: CupsHost
    tally: Tally = field(default_factory=Tally)
    waits: list[float] = field(default_factory=list)
    """Seconds from the request to cupsd to the handler, of events one at a time."""
    rate: float = 0
    """Events a second of a flood."""

    async def turn(self, switch: Switch) -> float:
        """One event; seconds until the handler has it."""
        due = self.tally.many + 1
        began = time.perf_counter()
        await asyncio.to_thread(switch.turn)
        await self.tally.reach(due)
        return self.tally.last - began

    async def flood(self, switch: Switch) -> None:
        """As many as cupsd can tell."""
        due = self.tally.many + EVENTS
        began = time.perf_counter()
        flooding = asyncio.create_task(asyncio.to_thread(_turns, switch))
        await self.tally.reach(due)
        await flooding
        self.rate = EVENTS / (self.tally.last - began)

    @property
    def quantiles(self) -> tuple[str, str]:
        """Median and 99th percentile, for people."""
        cuts = statistics.quantiles(self.waits, n=100)
        return f"{cuts[49] * 1000:.1f} ms", f"{cuts[98] * 1000:.1f} ms"

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        return (self.name, f"{PACED} + {EVENTS:,}", f"{self.rate:,.0f}", *self.quantiles)


@paces.add("-", "how long an event takes, beside the same chain without the broker", hosts=2,
           saves_after=30, is_short=False)  # fmt: skip
async def pace(stage: Stage) -> str:
    ours, bare = Chain("the broker", stage.hosts[0]), Chain("XADD, XREAD", stage.hosts[1])
    await stage.bridges[bare.host.name].stop()
    await asyncio.to_thread(bare.host.end_subscriptions)
    for chain in (ours, bare):
        await asyncio.to_thread(chain.host.add_queue, QUEUE, "file:///dev/null")
    await _listen(stage, ours)
    async with _reading(stage, bare):
        with Switch(ours.host, QUEUE) as one, Switch(bare.host, QUEUE) as other:
            await ours.turn(one)  # the first one starts the notifier
            await bare.turn(other)
            for _ in range(PACED):  # by turns: whatever else this machine does, it does to both
                ours.waits.append(await ours.turn(one))
                bare.waits.append(await bare.turn(other))
            await ours.flood(one)
            await bare.flood(other)
    rows.extend((ours.row, bare.row))
    return f"median {ours.quantiles[0]}, without the broker {bare.quantiles[0]}"


async def _listen(stage: Stage, chain: Chain) -> None:
    server = rf"\\{chain.host.name}"
    console = await stage.listener("watcher", administers=[server])

    def attend(heard: Heard) -> None:
        if heard.payload.printer == QUEUE and heard.payload.source == "cups":
            chain.tally.add(heard.at)

    await console.listen(server, PrinterStatus, everybody=True, buffer=2 * EVENTS)
    # What was told of the new queue comes before what is measured.
    await console.hears(PrinterStatus, printer=QUEUE, state="idle")
    console.attends = attend


@asynccontextmanager
async def _reading(stage: Stage, chain: Chain) -> AsyncIterator[None]:
    host = chain.host
    host.place_text("notifier", "raw", host.script("tests.cups.raw_notifier"))
    await asyncio.to_thread(host.subscribe, f"raw://127.0.0.1:{stage.redis.port}/{_STREAM}")
    client = redis.asyncio.Redis.from_url(stage.redis.url, socket_timeout=None, protocol=2)

    async def read() -> None:
        last = b"0"
        while True:
            answer: Any = await client.execute_command(
                "XREAD", "COUNT", 1000, "BLOCK", 0, "STREAMS", _STREAM, last
            )
            for _, entries in answer:
                now = time.perf_counter()
                for id_, fields in entries:
                    last = id_
                    if Event.decode(fields[b"e"]).printer == QUEUE:
                        chain.tally.add(now)

    task = asyncio.create_task(read())
    task.add_done_callback(chain.tally.ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


def _turns(switch: Switch) -> None:
    for _ in range(EVENTS):
        switch.turn()
