"""A source for the worker of ``desk``, in a pod: ``python -m pods.source PHASE RATE DIALOGS``.

It sends so many notifications a second, and holds so many dialogs at a time, each of three turns,
until it is sent SIGUSR1. Then it waits until all is handled, and says what became of it:
``report``, and a JSON object. What others sent beside it is told and counted as well.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis.asyncio

from broker import BIDIRECTIONAL, Broker, Channel
from broker.errors import OutcomeUnknown, QueueFull, ResponseTimeout, TympanError
from broker.results import S_OK

from .desk import ASKED, NOTES, SERVER, TOLD

CHANNELS = 8
TURNS = 3
TAKES = 0.2
"""Seconds that a handler takes."""
PATIENCE = 60.0
"""Seconds after which what is neither answered nor handled is lost."""


class Note(NamedTuple):
    """What a worker noted of one run."""

    what: str
    number: str
    times: int
    at: float
    process: str

    @classmethod
    def parse(cls, line: str) -> Note:
        what, number, times, at, process = line.split()
        return cls(what, number, int(times), float(at), process)


@dataclass
class Seen:
    """What the source saw."""

    sent: dict[str, float] = field(default_factory=dict)
    """Notifications that were taken, with the time before the send."""
    asked: set[str] = field(default_factory=set)
    answers: list[str] = field(default_factory=list)
    dialogs: int = 0
    """Those that went from the first question to their close."""
    faults: list[str] = field(default_factory=list)


def tally(seen: Seen, notes: Sequence[Note]) -> dict[str, Any]:
    """What became of it. Times are seconds, all else is counted."""
    ended: dict[str, list[Note]] = defaultdict(list)
    for note in notes:
        if note.what == "ended":
            ended[note.number].append(note)
    told = [number for number in ended if number not in seen.asked]
    again = Counter(number for number in told if len(ended[number]) > 1)
    answered = Counter(seen.answers)
    handled = seen.sent.keys() & ended.keys()
    waits = [min(note.at for note in ended[number]) - seen.sent[number] for number in handled]
    return {
        "sent": len(seen.sent),
        "handled": len(handled),
        "twice": len(again),
        "unmarked": sum(sum(note.times == 1 for note in ended[number]) > 1 for number in again),
        "lost": len(seen.sent) - len(handled),
        "redelivered": len({note.number for note in notes if note.times > 1}),
        "questions": len(seen.asked),
        "answered": len(answered),
        "answered twice": sum(count > 1 for count in answered.values())
        + sum(len(ended[number]) > 1 for number in seen.asked),
        "unanswered": len(seen.asked - answered.keys()),
        "dialogs": seen.dialogs,
        "slowest": round(max(waits, default=0.0), 2),
        "processes": len({note.process for note in notes}),
        "faults": seen.faults[:20],
    }


class Source:
    """Sends and asks until it is told to stop."""

    def __init__(self, broker: Broker, phase: str) -> None:
        self.seen = Seen()
        self.stop = asyncio.Event()
        self._broker = broker
        self._phase = phase
        self._numbers = itertools.count()

    def _body(self) -> tuple[str, bytes]:
        number = f"{self._phase}-{next(self._numbers)}"
        return number, json.dumps({"number": number, "seconds": TAKES}).encode()

    async def tell(self, rate: float) -> None:
        """Send so many notifications a second over one channel."""
        channel = await self._broker.open_channel(SERVER, TOLD, user="chart-test")
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.stop.is_set():
            number, body = self._body()
            began = time.time()
            await self._send(channel, number, body)
            self.seen.sent[number] = began
            due = max(due + 1 / rate, loop.time())
            await asyncio.sleep(due - loop.time())
        await channel.close()

    async def _send(self, channel: Channel, number: str, body: bytes) -> None:
        while True:
            try:
                result = await channel.send(body, lossless=True, timeout=PATIENCE)
            except (QueueFull, OutcomeUnknown):
                continue
            if result != S_OK:
                self.seen.faults.append(f"{number} was sent with {result}")
            return

    async def ask(self) -> None:
        """Hold one dialog after the other."""
        while not self.stop.is_set():
            channel = await self._broker.open_channel(
                SERVER, ASKED, user="chart-test", style=BIDIRECTIONAL
            )
            try:
                for _ in range(TURNS):
                    await self._turn(channel)
                await channel.close()
                self.seen.dialogs += 1
            except TympanError as error:
                self.seen.faults.append(f"dialog {channel.id}: {type(error).__name__}: {error}")

    async def _turn(self, channel: Channel) -> None:
        number, body = self._body()
        self.seen.asked.add(number)
        await channel.send(body)
        response = await channel.response(PATIENCE)
        self.seen.answers.append(response.text)
        if response.text != number:
            self.seen.faults.append(f"{number} was answered {response.text}")
        try:
            late = await channel.response(0)
        except ResponseTimeout:
            return
        self.seen.answers.append(late.text)


async def noted(store: redis.asyncio.Redis) -> list[Note]:
    """All that the workers noted."""
    lines: Iterable[bytes] = await store.lrange(NOTES, 0, -1)  # type: ignore[assignment]
    return [Note.parse(line.decode()) for line in lines]


async def main(phase: str, rate: float, dialogs: int) -> None:
    store = redis.asyncio.Redis.from_url(os.environ["NOTES_URL"])
    async with Broker.connect(user="chart-source") as broker:
        source = Source(broker, phase)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, source.stop.set)
        share = rate / CHANNELS
        work = [asyncio.create_task(source.tell(share)) for _ in range(CHANNELS)]
        work += [asyncio.create_task(source.ask()) for _ in range(dialogs)]
        while not await store.llen(NOTES) and not all(each.done() for each in work):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        print("sending", flush=True)
        for ended in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(ended, BaseException):
                source.seen.faults.append(f"{type(ended).__name__}: {ended}")
        due = time.monotonic() + PATIENCE
        while source.seen.sent.keys() - {n.number for n in await noted(store) if n.what == "ended"}:
            if time.monotonic() > due:
                break
            await asyncio.sleep(0.5)
        report = tally(source.seen, await noted(store))
        await store.delete(NOTES)
    await store.aclose()
    print("report", json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
