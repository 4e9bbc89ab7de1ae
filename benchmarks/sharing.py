"""Sharing: a source's process, and the replicas that share what it sends, of one contender."""

from __future__ import annotations

import asyncio
import time

from benchmarks.contest import Figures
from benchmarks.party import Contender, ContenderFailed, Party
from benchmarks.stage import Stage

SIZE = 256
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.02
_TRIAL = 1_000
_LEAD_IN = 200
_MOST = 100_000


class Sharing:
    """Made when it is first asked, so that a contender that is absent leaves the others alone."""

    def __init__(
        self,
        stage: Stage,
        contender: Contender,
        subject: str,
        *,
        replicas: int,
        seconds: float = 0.8,
    ) -> None:
        """``seconds``: what a round of sends is to take."""
        self.contender = contender
        self._seconds = seconds
        self._stage = stage
        self._subject = subject
        self._replicas = replicas
        self._source: Party | None = None
        self._listening: list[Party] = []
        self._count = 0

    async def rate(self, in_flight: int, channels: int) -> Figures:
        """Notifications a second, sent and handled; each handled once, by one replica.

        Raises ContenderFailed where fewer or more were handled.
        """
        if not self._count:
            trial = await self._many(_TRIAL, in_flight, channels)
            self._count = int(min(_MOST, max(1, self._seconds * trial["deliveries"])))
        # The round begins when what was idle meanwhile handles again.
        await self._many(_LEAD_IN, in_flight, channels)
        return await self._many(self._count, in_flight, channels)

    async def _ready(self, channels: int) -> Party:
        if self._source is None:
            for _ in range(self._replicas):
                listening = await self._stage.party(self.contender, "listener")
                self._listening.append(listening)
                await listening.ask("listen", subjects=[self._subject], each=1, handler="async")
            source = await self._stage.party(self.contender, "source")
            await source.ask("open", subjects=[self._subject], per_subject=channels)
            self._source = source
        return self._source

    async def _many(self, count: int, in_flight: int, channels: int) -> Figures:
        source = await self._ready(channels)
        await asyncio.gather(*(one.ask("collect", count=0) for one in self._listening))
        sent = await source.ask("many", count=count, size=SIZE, in_flight=in_flight)
        shares = await self._all_handled(count)
        heard = await asyncio.gather(
            *(
                one.ask("collect", count=share)
                for one, share in zip(self._listening, shares, strict=True)
            )
        )
        busy = [one for one in heard if one["deliveries"]]
        began = min(one["sent_ns"] for one in busy)
        ended = max(one["last_ns"] for one in busy)
        return {
            "deliveries": count / (ended - began) * 1e9,
            "sends": count / sent["seconds"],
            "source_cpu": sent["cpu_us"] / count,
            "listener_cpu": sum(one["cpu_us"] for one in heard) / count,
            "least": min(shares) * len(shares) / count,
        }

    async def _all_handled(self, count: int) -> list[int]:
        """How many each replica handled; waits until all are."""
        due = time.monotonic() + _TIMEOUT_S
        while True:
            counted = await asyncio.gather(*(one.ask("counted") for one in self._listening))
            shares = [int(one["deliveries"]) for one in counted]
            if sum(shares) == count:
                return shares
            if sum(shares) > count or time.monotonic() > due:
                raise ContenderFailed(
                    f"{self.contender.name}: of {count:,} sent, {sum(shares):,} were handled"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    async def leave(self) -> None:
        """End its processes, so that those of the next number of replicas are alone."""
        parties = [*self._listening, *([self._source] if self._source else [])]
        self._source, self._listening = None, []
        await self._stage.dismiss(*parties)
