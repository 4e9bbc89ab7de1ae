"""Telling: a source's process and its listeners' processes, of one contender, on one stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from benchmarks.contest import Figures, percentile
from benchmarks.party import Contender, ContenderFailed, Party
from benchmarks.stage import Stage

SIZE = 256
"""Bytes of a body, unless a row says otherwise."""
TIMEOUT_S = 60.0
SECONDS = 0.6
"""What a round of sends is to take."""
_MOST = 100_000
_TRIAL = 500
"""Deliveries of the trial that shows how many sends a round takes."""


class Telling:
    """Made when it is first asked, so that a contender that is absent leaves the others alone."""

    def __init__(
        self,
        stage: Stage,
        contender: Contender,
        subject: str,
        *,
        channels: int = 1,
        listeners: int = 1,
        processes: int = 1,
        handler: str = "plain",
        seconds: float = SECONDS,
    ) -> None:
        self.contender = contender
        self.listeners = listeners
        self._stage = stage
        # Contenders share a server, and must not find each other's keys.
        self._subject = f"{subject}-{contender.program.rpartition('.')[2]}"
        self._channels = channels
        self._processes = processes
        self._handler = handler
        self._seconds = seconds
        self._source: Party | None = None
        self._listening: list[Party] = []
        self._count = 0

    async def _ready(self) -> Party:
        """The source, once all listen and all channels are open."""
        if self._source is None:
            each = self.listeners // self._processes
            for _ in range(self._processes):
                listening = await self._stage.party(self.contender, "listener")
                self._listening.append(listening)
                await listening.ask(
                    "listen", subjects=[self._subject], each=each, handler=self._handler
                )
            source = await self._stage.party(self.contender, "source")
            await source.ask("open", subjects=[self._subject], per_subject=self._channels)
            self._source = source
        return self._source

    async def latency(self, count: int, pause_us: float, size: int = SIZE) -> Figures:
        """Sends one by one, with pauses: microseconds from send to handler, and CPU."""
        async with self._dismissed_on_failure():
            return await self._one_by_one(count, pause_us, size)

    async def _one_by_one(self, count: int, pause_us: float, size: int) -> Figures:
        source = await self._ready()
        await self._collect(0)
        sent = await source.ask("one_by_one", count=count, size=size, pause_us=pause_us)
        heard = await self._collect(count)
        latencies = [latency for one in heard for latency in one["latencies_us"]]
        return {
            "median": median(latencies),
            "p99": percentile(latencies, 0.99),
            "send": median(sent["send_us"]),
            "source_cpu": sent["cpu_us"] / count,
            "listener_cpu": sum(one["cpu_us"] for one in heard) / count / self.listeners,
        }

    async def rate(self, in_flight: int, size: int = SIZE) -> Figures:
        """As many as go, acknowledged, so many in flight: sends and deliveries a second, and CPU.

        The first time a few show how many a round takes, once they have warmed up.
        """
        async with self._dismissed_on_failure():
            return await self._as_many_as_fit(in_flight, size)

    async def _as_many_as_fit(self, in_flight: int, size: int) -> Figures:
        if not self._count:
            fewest = max(in_flight, _TRIAL // self.listeners)
            await self._many(fewest, in_flight, size)
            trial = await self._many(fewest, in_flight, size)
            fitting = self._seconds * trial["deliveries"] / self.listeners
            self._count = int(min(_MOST, max(fewest, fitting)))
        return await self._many(self._count, in_flight, size)

    async def _many(self, count: int, in_flight: int, size: int) -> Figures:
        source = await self._ready()
        await self._collect(0)
        sent = await source.ask("many", count=count, size=size, in_flight=in_flight)
        heard = await self._collect(count)
        began = min(one["sent_ns"] for one in heard)
        ended = max(one["last_ns"] for one in heard)
        return {
            "sends": count / sent["seconds"],
            "deliveries": count * self.listeners / (ended - began) * 1e9,
            "source_cpu": sent["cpu_us"] / count,
            "listener_cpu": sum(one["cpu_us"] for one in heard) / count / self.listeners,
        }

    @asynccontextmanager
    async def _dismissed_on_failure(self) -> AsyncIterator[None]:
        """What still goes on in the processes of one that failed would slow the others."""
        try:
            yield
        except ContenderFailed:
            parties = [*self._listening, *([self._source] if self._source else [])]
            await self._stage.dismiss(*parties)
            raise

    async def _collect(self, count: int) -> list[dict[str, Any]]:
        each = count * self.listeners // self._processes
        return await asyncio.gather(
            *(one.ask("collect", count=each, timeout=TIMEOUT_S) for one in self._listening)
        )
