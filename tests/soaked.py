"""The processes of a soak: sources and listeners that begin and end things all the time.

``python -m tests.soaked`` takes its part as a JSON object in its one argument. A line on its
standard input tells it to ``go`` on, or to be ``calm``: to finish what it has begun. It answers
``ready`` once it stands, and when it is calm with what it holds and has done, each as one line of
JSON. :data:`worker` is what ``tympan worker`` runs beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker import (
    BIDIRECTIONAL,
    Broker,
    Channel,
    Notification,
    Offer,
    Registration,
    Subscription,
    registration,
)
from broker.errors import TympanError
from tests.farm import OTHER_PRINTER, PRINTER, SERVER, TYPE
from workers import Worker

SETTINGS: dict[str, Any] = {
    "namespace": "soak",
    "lease": 6.0,
    "keep_closed": 6.0,
    "keep_body": 60.0,
}
"""What ends by itself does so within one churn."""
DESK = UUID("5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a11")
"""The type that the pool hears."""
PRINTERS = (PRINTER, OTHER_PRINTER)
STANDING = 200
"""Channels that a lasting source keeps open, and registrations that a lasting listener has."""
PATIENCE = 10.0
"""Seconds after which the other end is taken to be dead; its lease is shorter."""
MEMORY = 500
"""Channels that a registration remembers here: as many as it hears of before it counts as warm."""
LOOKS = 4
"""In a second, at the tasks that there are."""
TURNS = 3
PASSING = 4
"""Pools that come and go."""
LARGE = "x" * 20_000
"""A body that is kept apart, and ends with its question."""

worker = Worker("soak", user="helpdesk")


@worker.listen(SERVER, DESK, printers=True)
async def hear(notification: Notification[Any]) -> None:
    assert notification.body


@worker.listen(SERVER, DESK, style=BIDIRECTIONAL, printers=True)
async def answer(question: Notification[Any]) -> bytes:
    return question.body[:100]


@dataclass(frozen=True)
class Part:
    """What one process does."""

    role: str
    """``source`` or ``listener``."""
    url: str
    is_lasting: bool
    """Whether it holds much all the time; nobody kills it."""
    seed: int


class Churn:
    """Acts over and over, until told to be calm."""

    def __init__(self, seed: int) -> None:
        self.done: Counter[str] = Counter()
        """How often each act was done, and how often it met which error."""
        self.going = asyncio.Event()
        self._busy = 0
        self._calm = asyncio.Condition()
        self._random = random.Random(seed)

    @asynccontextmanager
    async def at_work(self, what: str) -> AsyncIterator[None]:
        """What has to be over before this process is calm; errors of ours are counted."""
        self._busy += 1
        try:
            yield
            self.done[what] += 1
        except TympanError as error:
            self.done[f"{what}: {type(error).__name__}"] += 1
        finally:
            self._busy -= 1
            async with self._calm:
                self._calm.notify_all()

    async def over_and_over(self, act: Callable[[], Awaitable[None]], pause: float) -> None:
        """With about so many seconds between two."""
        while True:
            await self.going.wait()
            async with self.at_work(act.__name__.strip("_")):
                await act()
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * pause)

    async def calm(self) -> None:
        self.going.clear()
        async with self._calm:
            await self._calm.wait_for(lambda: not self._busy)


class Source:
    """Opens, sends, asks, withdraws, closes."""

    def __init__(self, broker: Broker, churn: Churn) -> None:
        self._broker = broker
        self._churn = churn
        self._number = 0
        self._standing: list[Channel] = []

    async def stand(self) -> None:
        for number in range(STANDING):
            channel = await self._broker.open_channel(
                PRINTERS[number % 2], TYPE, user=f"away{number % 20}", style=BIDIRECTIONAL
            )
            await channel.send(f"question {number}")
            self._standing.append(channel)

    def acts(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        return [
            (self._notify, 0.2),
            (self._ask, 0.1),
            (self._ask, 0.1),
            (self._withdraw, 0.2),
            (self._page_the_desk, 0.2),
            (self._ask_the_desk, 0.2),
            (self._pass_a_pool, 0.5),
            (self._grant, 0.5),
        ]

    @property
    def _printer(self) -> str:
        self._number += 1
        return PRINTERS[self._number % 2]

    async def _notify(self) -> None:
        async with await self._broker.open_channel(self._printer, TYPE, user="alice") as channel:
            for number in range(5):
                await channel.send(f"page {number}")

    async def _ask(self) -> None:
        body = LARGE if self._number % 8 == 0 else "continue?"
        async with await self._broker.open_channel(
            self._printer, TYPE, user="alice", style=BIDIRECTIONAL
        ) as channel:
            await channel.send(body)
            for _ in range(TURNS):
                await channel.response(PATIENCE)
                await channel.send("sure?")
            await channel.response(PATIENCE)

    async def _withdraw(self) -> None:
        async with await self._broker.open_channel(
            self._printer, TYPE, user="nobody", style=BIDIRECTIONAL
        ) as channel:
            await channel.send("anybody?")

    async def _page_the_desk(self) -> None:
        async with await self._broker.open_channel(self._printer, DESK, user="helpdesk") as channel:
            await channel.send("paper", lossless=True, timeout=PATIENCE)

    async def _ask_the_desk(self) -> None:
        async with await self._broker.open_channel(
            self._printer, DESK, user="helpdesk", style=BIDIRECTIONAL
        ) as channel:
            await channel.send("paper?")
            await channel.response(PATIENCE)

    async def _pass_a_pool(self) -> None:
        name = f"passing{self._number % PASSING}"
        await self._broker.pools.create(name, Subscription(SERVER, TYPE, "alice", printers=True))
        await self._broker.pools.delete(name, SERVER)

    async def _grant(self) -> None:
        printer = self._printer
        await self._broker.grant(printer, "carol", "use")
        await self._broker.revoke(printer, "carol", "use")

    async def tidy(self) -> None:
        """What outlives whoever made it, and was killed before he could end it."""
        for number in range(PASSING):
            await self._broker.pools.delete(f"passing{number}", SERVER)
        for printer in PRINTERS:
            await self._broker.revoke(printer, "carol", "use")


class Listener:
    """Registers, hears, answers, unregisters."""

    def __init__(self, broker: Broker, churn: Churn) -> None:
        self._broker = broker
        self._churn = churn
        self._hearing: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._idle: list[Registration[Any]] = []

    async def stand(self) -> None:
        for number in range(STANDING):
            self._idle.append(
                await self._broker.register(PRINTERS[number % 2], TYPE, user=f"idle{number % 20}")
            )

    async def listen(self) -> None:
        """To what lasts as long as the process."""
        for printer in PRINTERS:
            self._hear(await self._broker.register(printer, TYPE))
            self._hear(await self._broker.register(printer, TYPE, style=BIDIRECTIONAL))

    def acts(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        return [(self._register, 0.5), (self._register_to_answer, 0.5)]

    async def tidy(self) -> None:
        """What it made ends with it."""

    async def _register(self) -> None:
        async with await self._broker.register(PRINTER, TYPE) as registration:
            await registration.fetch(1.0)

    async def _register_to_answer(self) -> None:
        async with await self._broker.register(PRINTER, TYPE, style=BIDIRECTIONAL) as registration:
            offer = await registration.fetch(1.0)
            if isinstance(offer, Offer):
                await offer.decline()

    def _hear(self, registration: Registration[Any]) -> None:
        self._keep(self._hearing, self._hear_on(registration))

    async def _hear_on(self, registration: Registration[Any]) -> None:
        async for found in registration:
            if isinstance(found, Offer):
                self._keep(self._answering, self._answer(found))
            else:
                self._churn.done["heard"] += 1

    async def _answer(self, offer: Offer[Any]) -> None:
        async with self._churn.at_work("answer"):
            await offer.respond("yes")
            while True:
                await offer.follow_up()
                await offer.respond("yes")
                self._churn.done["turn"] += 1

    @staticmethod
    def _keep(tasks: set[asyncio.Task[None]], work: Any) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def main(part: Part) -> None:
    async with Broker.connect(part.url, user="alice", **SETTINGS) as broker:
        churn = Churn(part.seed)
        actor = (Source if part.role == "source" else Listener)(broker, churn)
        if part.is_lasting:
            await actor.stand()
        if isinstance(actor, Listener):
            await actor.listen()
        acting = [
            asyncio.create_task(churn.over_and_over(act, pause)) for act, pause in actor.acts()
        ]
        say("ready", {})
        obeying = asyncio.create_task(obey(broker, churn, actor))
        await asyncio.wait({obeying, *acting}, return_when=asyncio.FIRST_COMPLETED)
        for task in acting:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*acting)
        await obeying


async def obey(broker: Broker, churn: Churn, actor: Source | Listener) -> None:
    """What the lines say, until there are none any more."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        if line.strip() == b"go":
            churn.going.set()
        else:
            await churn.calm()
            await actor.tidy()
            gc.collect()
            facts = {
                "tasks": await lasting_tasks(),
                "objects": len(gc.get_objects()),
                "lapses": sum(server.lapses for server in broker._servers.values()),
                "done": churn.done,
            }
            say("calm", facts)


async def lasting_tasks() -> int:
    """How many tasks there are that do not end within a second: the clock begins some, too."""
    lasting = asyncio.all_tasks()
    for _ in range(LOOKS):
        await asyncio.sleep(1 / LOOKS)
        lasting &= asyncio.all_tasks()
    return len(lasting)


def say(event: str, facts: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


if __name__ == "__main__":
    logging.getLogger("tympan").setLevel(logging.ERROR)  # that others die is the point
    registration.REMEMBERED = MEMORY
    asyncio.run(main(Part(**json.loads(sys.argv[1]))))
