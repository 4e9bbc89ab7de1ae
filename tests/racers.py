"""The processes of a race: one with the sources, several with the responders.

``python -m tests.racers`` takes its part as a JSON object in its one argument, says ``ready`` and
at the end its report, each as one line of JSON, and goes on when a line comes on stdin. End of
file there means that the race was called off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

import redis.asyncio

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Channel, Offer, Payload, Registration
from broker.errors import ChannelAcquired, ChannelAlreadyClosed, TympanError
from broker.results import LOST_THE_RACE
from tests.farm import PRINTER, TYPE
from tests.proxy import Proxy

PATIENCE = 60.0
"""Seconds after which something that must come is missing."""
GO = "race:go"
ADMINISTRATOR = "spooler"


@dataclass(frozen=True)
class Part:
    """What one process does in the race."""

    role: str
    url: str
    namespace: str
    number: int
    dialogs: int
    first: int
    last: int
    """Responders of this process: users u<first> up to, and not including, u<last>."""
    processes: int
    in_flight: int
    drop: float
    seed: int


@dataclass
class Dialog:
    """What one process saw of one dialog."""

    winners: list[str] = field(default_factory=list)
    """Users whose response was accepted."""
    told: list[str] = field(default_factory=list)
    """For each loser, the user that it was told had acquired the channel."""
    closed: list[str] = field(default_factory=list)
    """For each winner, the reason that it was told."""
    responses: list[str] = field(default_factory=list)
    """What the source heard."""
    faults: list[str] = field(default_factory=list)


Report = dict[str, Dialog]


class Gate:
    """Lets nobody respond to a question before everybody holds it.

    It is made of plain keys beside the broker's, on a connection without faults.
    """

    def __init__(self, url: str, processes: int) -> None:
        self._client = redis.asyncio.Redis.from_url(url, decode_responses=True, protocol=2)
        self._processes = processes
        self._open: dict[str, asyncio.Event] = {}
        self._heard: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Gate:
        bells = self._client.pubsub(ignore_subscribe_messages=True)
        await bells.subscribe(GO)
        self._heard = asyncio.create_task(self._hear(bells))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._heard is not None:
            self._heard.cancel()
            await asyncio.gather(self._heard, return_exceptions=True)
        await self._client.aclose()

    async def _hear(self, bells: redis.asyncio.client.PubSub) -> None:
        async with bells:
            async for message in bells.listen():
                self._event(message["data"]).set()

    def _event(self, channel: str) -> asyncio.Event:
        return self._open.setdefault(channel, asyncio.Event())

    async def ready(self, channel: str) -> None:
        """All responders of this process hold the question."""
        if await self._client.incr(f"race:ready:{channel}") == self._processes:
            await self._client.publish(GO, channel)

    async def passed(self, channel: str) -> None:
        """Wait for all others; raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            await self._event(channel).wait()


class Responders:
    """The responders of one process; they share its broker."""

    def __init__(self, part: Part, broker: Broker, gate: Gate) -> None:
        self.report: Report = {}
        self._part = part
        self._broker = broker
        self._gate = gate
        self._holding: dict[str, int] = {}
        self._random = random.Random(f"{part.seed}:{part.number}")
        self._working: set[asyncio.Task[None]] = set()

    async def run(self, stopped: asyncio.Event) -> None:
        """Respond to whatever is offered, until stopped."""
        users = [f"u{i}" for i in range(self._part.first, self._part.last)]
        registrations = [
            await self._broker.register(PRINTER, TYPE, user=user, style=BIDIRECTIONAL)
            for user in users
        ]
        listening = [
            asyncio.create_task(self._listen(user, registration))
            for user, registration in zip(users, registrations, strict=True)
        ]
        say("ready")
        await stopped.wait()
        if self._working:
            await asyncio.wait(self._working, timeout=PATIENCE)
        for task in (*listening, *self._working):
            task.cancel()
        await asyncio.gather(*listening, *self._working, return_exceptions=True)

    async def _listen(self, user: str, registration: Registration[Payload]) -> None:
        async for offer in registration:
            task = asyncio.create_task(self._race(user, offer))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def _race(self, user: str, offer: Offer[Payload]) -> None:
        seen = self.report.setdefault(offer.id, Dialog())
        try:
            self._holding[offer.id] = self._holding.get(offer.id, 0) + 1
            if self._holding[offer.id] == self._part.last - self._part.first:
                await self._gate.ready(offer.id)
            await self._gate.passed(offer.id)
            await self._respond(user, offer, seen)
        except (TympanError, TimeoutError) as error:
            seen.faults.append(f"{user}: {type(error).__name__} {error}")
        except asyncio.CancelledError:
            seen.faults.append(f"{user}: not through when the race was over")
            raise

    async def _respond(self, user: str, offer: Offer[Payload], seen: Dialog) -> None:
        try:
            await offer.respond(user)
        except ChannelAcquired as lost:
            seen.told.append(lost.by or "")
            await self._let_go(offer, seen)
            return
        seen.winners.append(user)
        closing = await offer.wait_closed(PATIENCE)
        if closing is None:
            seen.faults.append(f"{user}: never told of the close")
        else:
            seen.closed.append((closing.reason.data or b"").decode())

    async def _let_go(self, offer: Offer[Payload], seen: Dialog) -> None:
        """A loser drops its handle, in one of the ways that the documents allow."""
        ways = self._random.randrange(3)
        if ways != 0:
            result = await offer.close(b"too late")
            if result != LOST_THE_RACE:
                seen.faults.append(f"a loser's close was answered {result}")
        if ways != 1:
            result = await offer.release()
            if not result.succeeded:
                seen.faults.append(f"a loser's release was answered {result}")


class Sources:
    """Opens the dialogs, a few at a time."""

    def __init__(self, part: Part, broker: Broker) -> None:
        self.report: Report = {}
        self._part = part
        self._broker = broker
        self._random = random.Random(f"{part.seed}:sources")

    async def run(self) -> None:
        """All dialogs, from open to close."""
        await self._broker.grant(PRINTER, ADMINISTRATOR, "administer")
        numbers = iter(range(self._part.dialogs))

        async def some() -> None:
            for number in numbers:
                await self._dialog(number)

        await asyncio.gather(*(some() for _ in range(self._part.in_flight)))

    async def _dialog(self, number: int) -> None:
        channel = await self._broker.open_channel(
            PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL
        )
        seen = self.report[channel.id] = Dialog()
        try:
            await channel.send(f"question {number}")
            seen.responses.append((await channel.response(PATIENCE)).text)
            await channel.close(f"answered {number}")
            if self._random.random() < 0.5:
                await channel.release()
            seen.responses += [response.text async for response in channel.responses()]
        except TympanError as error:
            seen.faults.append(f"source: {type(error).__name__} {error}")
            await self._give_up(channel)

    async def _give_up(self, channel: Channel) -> None:
        with contextlib.suppress(ChannelAlreadyClosed):
            await channel.close()


@contextlib.asynccontextmanager
async def way_to_redis(part: Part) -> AsyncIterator[tuple[str, Proxy | None]]:
    """The URL to use: Redis itself, or a proxy that loses replies."""
    if not part.drop:
        yield part.url, None
        return
    target = urlsplit(part.url)
    async with Proxy(target.hostname or "", target.port or 0) as proxy:
        yield proxy.url, proxy


async def play(part: Part) -> None:
    """One process's race, from ready to its report."""
    stopped = asyncio.Event()
    async with way_to_redis(part) as (url, proxy), Gate(part.url, part.processes) as gate:
        broker = Broker.connect(
            url,
            user=ADMINISTRATOR,
            namespace=part.namespace,
            lease=60.0,
            resync=0.5 if proxy else 5.0,
            operation_timeout=PATIENCE,
        )
        async with broker:
            waiting = asyncio.create_task(told_to_go_on(stopped))
            if proxy is not None:
                proxy.drop_replies(part.drop, random.Random(f"{part.seed}:proxy:{part.number}"))
            report = await (
                respond(part, broker, gate, stopped)
                if part.role == "responders"
                else ask(part, broker, stopped)
            )
            say(
                {
                    "dialogs": {channel: asdict(seen) for channel, seen in report.items()},
                    "lost": proxy.dropped if proxy is not None else 0,
                }
            )
            if proxy is not None:
                proxy.drop_replies(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def respond(part: Part, broker: Broker, gate: Gate, stopped: asyncio.Event) -> Report:
    responders = Responders(part, broker, gate)
    await responders.run(stopped)
    return responders.report


async def ask(part: Part, broker: Broker, start: asyncio.Event) -> Report:
    sources = Sources(part, broker)
    say("ready")
    await start.wait()
    await sources.run()
    return sources.report


def say(what: object) -> None:
    """One line to whoever runs the race."""
    print(json.dumps(what), flush=True)


async def told_to_go_on(event: asyncio.Event) -> None:
    """Sets the event when a line comes; ends the process when none can come any more."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if not await reader.readline():
        sys.exit("the race was called off")
    event.set()


if __name__ == "__main__":
    logging.getLogger("tympan").setLevel(logging.ERROR)  # that connections break is the point
    asyncio.run(play(Part(**json.loads(sys.argv[1]))))
