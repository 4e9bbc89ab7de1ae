"""Tympan's first response: questions that many hold, and that all of them answer at once."""

from __future__ import annotations

import asyncio
import time

from benchmarks.contenders.program import Answer, Side, main
from benchmarks.contenders.tympan import TYPE, USER, name_of, together
from broker import BIDIRECTIONAL, Broker, Channel, Offer, Payload, Registration
from broker.errors import ChannelAcquired

BODY = b"x" * 256


class RaceListener(Side):
    """Registrations of one process."""

    operations = frozenset({"ready", "hold", "race"})

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._broker = Broker.connect(url, user=USER)
        self._registrations: list[Registration[Payload]] = []
        self._offers: list[list[Offer[Payload]]] = []

    async def start(self) -> None:
        """Connect."""
        await self._broker.start()

    async def ready(self, subject: str, each: int) -> None:
        """Register so often."""
        for _ in range(each):
            made = await self._broker.register(name_of(subject), TYPE, style=BIDIRECTIONAL)
            self._registrations.append(made)

    async def hold(self, count: int) -> None:
        """Return when each registration has so many questions."""
        self._offers = await asyncio.gather(*(_held(each, count) for each in self._registrations))

    async def race(self) -> Answer:
        """Every registration answers its questions one after another; which it won, and when."""
        began, cpu = time.monotonic_ns(), time.process_time_ns()
        won = await asyncio.gather(*(_respond_to(offers) for offers in self._offers))
        return {
            "began_ns": began,
            "ended_ns": time.monotonic_ns(),
            "cpu_us": (time.process_time_ns() - cpu) / 1e3,
            "won": [channel for each in won for channel in each],
        }

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.close()


async def _held(registration: Registration[Payload], count: int) -> list[Offer[Payload]]:
    offers: list[Offer[Payload]] = []
    while len(offers) < count:
        offers += await registration.fetch_offers()
    return offers


async def _respond_to(offers: list[Offer[Payload]]) -> list[str]:
    won = []
    for offer in offers:
        try:
            await offer.respond(BODY)
        except ChannelAcquired:
            continue
        won.append(offer.id)
    return won


class RaceSource(Side):
    """Asks."""

    operations = frozenset({"ask", "answered"})

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._broker = Broker.connect(url, user=USER)
        self._channels: list[Channel] = []

    async def start(self) -> None:
        """Connect."""
        await self._broker.start()

    async def ask(self, subject: str, count: int) -> Answer:
        """So many open questions; the names of what is raced for."""

        async def question(_: int) -> Channel:
            channel = await self._broker.open_channel(name_of(subject), TYPE, style=BIDIRECTIONAL)
            await channel.send(BODY)
            return channel

        self._channels = await together(question, range(count))
        return {"prizes": [channel.id for channel in self._channels]}

    async def answered(self) -> Answer:
        """Who the source says answered each question; then all are closed."""
        responses = await together(lambda channel: channel.response(timeout=10), self._channels)
        await together(lambda channel: channel.close(), self._channels)
        return {"answered": [response.channel for response in responses]}

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.close()


if __name__ == "__main__":
    main(source=RaceSource, listener=RaceListener)
