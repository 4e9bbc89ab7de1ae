"""Parties: what one process of a play does, ``python -m workers.proof.party``.

The first line of standard input is its part, a JSON object. It answers in lines of JSON: what it
holds, that it is ready, and at the end its part of the history. End of file means that the play was
called off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Channel, Offer, Payload, Registration
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    NotInHand,
    RedisError,
    SessionLapsed,
    TympanError,
)
from broker.pool import Subscription
from broker.replica import Delivery, Replica, ReplicaListener
from broker.results import LOST_THE_RACE
from workers.proof.history import SOURCE, Dialog, Hand, History, Listening, ended
from workers.proof.patience import done, now
from workers.proof.talk import PRINTER, TYPE

PATIENCE = 60.0
"""Seconds after which something that must come is missing."""
HANDLING = 0.01
"""Seconds that a replica takes for one notification."""
ADMINISTRATOR = "spooler"


@dataclass(frozen=True)
class Part:
    """What one process does."""

    role: str
    """``responders``, ``sources``, ``owner``, ``asker`` or ``replica``."""
    url: str
    namespace: str
    number: int = 0
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    dialogs: int = 0
    responders: int = 0
    """In each dialog, all processes together."""
    first: int = 0
    last: int = 0
    """Responders of this process: users u<first> up to, and not including, u<last>."""
    in_flight: int = 1
    user: str = ADMINISTRATOR
    """Who it acts as; of an asker, whom it asks, and of a replica its pool."""
    patience: float = PATIENCE


def say(**what: object) -> None:
    """One line to whoever runs the play."""
    print(json.dumps(what), flush=True)


# A race -------------------------------------------------------------------------------------------


class Responders:
    """The responders of one process; they share its broker.

    None responds to a question before the play says so: it hears from all processes when each of
    their responders holds it.
    """

    def __init__(self, part: Part, broker: Broker) -> None:
        self.history = History()
        self._part = part
        self._broker = broker
        self._holding: dict[str, int] = {}
        self._passed: dict[str, asyncio.Event] = {}
        self._random = random.Random(f"{part.seed}:{part.number}")
        self._working: set[asyncio.Task[None]] = set()

    def go(self, channel: str) -> None:
        """All hold this question."""
        self._gate(channel).set()

    def _gate(self, channel: str) -> asyncio.Event:
        return self._passed.setdefault(channel, asyncio.Event())

    async def run(self, over: asyncio.Event) -> None:
        """Respond to whatever is offered, until it is over."""
        users = [f"u{i}" for i in range(self._part.first, self._part.last)]
        registrations = [
            await self._broker.register(PRINTER, TYPE, user=user, style=BIDIRECTIONAL)
            for user in users
        ]
        for user, registration in zip(users, registrations, strict=True):
            self.history.listening[registration.id] = Listening(
                user, str(registration.name), TYPE, is_two_way=True, since=now()
            )
        listening = [
            asyncio.create_task(self._listen(user, registration))
            for user, registration in zip(users, registrations, strict=True)
        ]
        say(ready=True)
        await over.wait()
        if self._working:
            await asyncio.wait(self._working, timeout=self._part.patience)
        for task in (*listening, *self._working):
            task.cancel()
        await asyncio.gather(*listening, *self._working, return_exceptions=True)

    async def _listen(self, user: str, registration: Registration[Payload]) -> None:
        async for offer in registration:
            task = asyncio.create_task(self._race(user, offer))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def _race(self, user: str, offer: Offer[Payload]) -> None:
        dialog = self.history.dialog(offer.id)
        me = offer.registration.id
        hand = dialog.hands[me] = Hand(user)
        hand.heard.append(dialog.hands_over(me, offer.notification.text))
        try:
            self._holding[offer.id] = self._holding.get(offer.id, 0) + 1
            if self._holding[offer.id] == self._part.last - self._part.first:
                say(holds=offer.id)
            async with asyncio.timeout(self._part.patience):
                await self._gate(offer.id).wait()
            await self._respond(user, offer, dialog, hand)
        except (TympanError, TimeoutError) as error:
            self.history.faults.append(f"dialog {offer.id}: {user}: {error!r}")
        except asyncio.CancelledError:
            self.history.faults.append(f"dialog {offer.id}: {user} was not through in the end")
            raise

    async def _respond(self, user: str, offer: Offer[Payload], dialog: Dialog, hand: Hand) -> None:
        me, body = offer.registration.id, f"{user} 0"
        try:
            safe = await dialog.call(me, "respond", lambda: offer.respond(body))
        except ChannelAcquired as lost:
            hand.end, hand.lost_to = dialog.is_told(me, "lost"), lost.by or ""
            await self._let_go(offer, hand)
            return
        hand.responses[body] = safe
        closing = await offer.wait_closed(self._part.patience)
        if closing is not None:
            hand.end = dialog.is_told(me, ended(closing))

    async def _let_go(self, offer: Offer[Payload], hand: Hand) -> None:
        """A loser drops its handle, in one of the ways that the documents allow."""
        ways = self._random.randrange(3)
        hand.has_let_go = True
        if ways != 0:
            result = await offer.close(b"too late")
            if result != LOST_THE_RACE:
                self.history.faults.append(f"a loser's close was answered {result}")
        if ways != 1:
            result = await offer.release()
            if not result.succeeded:
                self.history.faults.append(f"a loser's release was answered {result}")


class Sources:
    """Opens the dialogs of a race, a few at a time."""

    def __init__(self, part: Part, broker: Broker) -> None:
        self.history = History()
        self._part = part
        self._broker = broker
        self._random = random.Random(f"{part.seed}:sources")

    async def run(self, over: asyncio.Event) -> None:
        """All dialogs, from open to close, or as many as are begun before it is over."""
        await self._broker.grant(PRINTER, ADMINISTRATOR, "administer")
        numbers = iter(range(self._part.dialogs))

        async def some() -> None:
            for number in numbers:
                if over.is_set():
                    return
                await self._dialog(number)

        await asyncio.gather(*(some() for _ in range(self._part.in_flight)))

    async def _dialog(self, number: int) -> None:
        channel = await self._broker.open_channel(
            PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL
        )
        dialog = self.history.dialog(channel.id)
        dialog.printer, dialog.type = str(channel.name), TYPE
        dialog.responders = self._part.responders
        try:
            await self._converse(channel, dialog, number)
            dialog.end = "closed"
        except TympanError as error:
            self.history.faults.append(f"dialog {channel.id}: source: {error!r}")
            dialog.end = type(error).__name__
            with contextlib.suppress(ChannelAlreadyClosed):
                await channel.close()

    async def _converse(self, channel: Channel, dialog: Dialog, number: int) -> None:
        question, reason = f"question {number}", f"answered {number}"
        dialog.sends[question] = await dialog.call(SOURCE, "send", lambda: channel.send(question))
        response = await channel.response(self._part.patience)
        dialog.heard.append((response.registration, dialog.hands_over(SOURCE, response.text)))
        dialog.close[reason] = await dialog.call(SOURCE, "close", lambda: channel.close(reason))
        if self._random.random() < 0.5:
            await channel.release()
        async for more in channel.responses():
            dialog.heard.append((more.registration, dialog.hands_over(SOURCE, more.text)))


# Those that are killed ----------------------------------------------------------------------------


async def own(broker: Broker) -> None:
    """Respond first to what is asked, and hold the dialog until killed."""
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    say(ready=registration.id)
    async for offer in registration:
        body = f"{registration.id} 0"
        try:
            await offer.respond(body)
        except ChannelAcquired:
            continue
        say(owns=offer.id, registration=registration.id, body=body)


async def ask(broker: Broker, user: str) -> None:
    """Ask two questions, and hold them until killed."""
    for number in range(2):
        channel = await broker.open_channel(PRINTER, TYPE, user=user, style=BIDIRECTIONAL)
        body = f"held {number}"
        say(opened=channel.id, user=user)
        await channel.send(body)
        say(asked=channel.id, body=body)
    await asyncio.Event().wait()


class Hands(ReplicaListener):
    """A pool's replica that says what it was given, and what it finished."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def work(self, replica: Replica[Any]) -> None:  # noqa: ARG002
        """There may be something to take."""
        self._news.set()

    async def run(self, replica: Replica[Any]) -> None:
        """Take, finish and say so, until killed."""
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while replica.is_joined and (taken := await replica.take(8)):
                    for each in taken:
                        if isinstance(each, Delivery):
                            await self._finish(each)
            except (RedisError, SessionLapsed):  # weather: what was in hand is handed out again
                await asyncio.sleep(0.1)
                self._news.set()

    async def _finish(self, delivery: Delivery[Any]) -> None:
        text = delivery.notification.text
        say(handled=text)
        await asyncio.sleep(HANDLING)  # so that whoever is killed has something in hand
        try:
            await done(delivery.done)
        except NotInHand:
            return
        say(finished=text)


async def serve(broker: Broker, pool: str) -> None:
    """Serve a pool, until killed or told that it is over."""
    hands = Hands()
    subscription = Subscription(PRINTER, TYPE, user=pool)
    replica = await broker.pools.join(pool, subscription, listener=hands)
    say(ready=True)
    await hands.run(replica)


# The process --------------------------------------------------------------------------------------


async def lines() -> AsyncIterator[Any]:
    """What comes on standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield json.loads(line)


async def play(part: Part, said: AsyncIterator[Any]) -> None:
    """One process's part, to its end."""
    over = asyncio.Event()
    settings = {"namespace": part.namespace, **part.settings}
    async with Broker.connect(part.url, user=part.user, **settings) as broker:
        if part.role in ("responders", "sources"):
            await _race(part, broker, said, over)
            return
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_work(part, broker))
            async for _ in said:
                break  # it is over
            task.cancel()


async def _work(part: Part, broker: Broker) -> None:
    match part.role:
        case "owner":
            await own(broker)
        case "asker":
            await ask(broker, part.user)
        case "replica":
            await serve(broker, part.user)


async def _race(part: Part, broker: Broker, said: AsyncIterator[Any], over: asyncio.Event) -> None:
    responders = Responders(part, broker) if part.role == "responders" else None
    sources = Sources(part, broker) if part.role == "sources" else None
    start = asyncio.Event()

    async def listen() -> None:
        async for line in said:
            if "go" in line and responders is not None:
                responders.go(line["go"])
            elif "start" in line:
                start.set()
            elif "over" in line:
                over.set()
            else:
                return
        sys.exit("the play was called off")

    listening = asyncio.create_task(listen())
    say(connected=True)
    await start.wait()
    if responders is not None:
        await responders.run(over)
        history = responders.history
    else:
        assert sources is not None
        await sources.run(over)
        history = sources.history
    say(history=history.record())
    await listening


async def main() -> None:
    """Take the part, and play it."""
    said = lines()
    async for first in said:
        try:
            await play(Part(**first), said)
        except (TympanError, BaseExceptionGroup) as error:
            told = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            if not isinstance(told, TympanError):
                raise
            sys.exit(f"tympan: {first['role']}: {told}")
        return


if __name__ == "__main__":
    logging.getLogger("tympan").setLevel(logging.ERROR)  # that connections break is the point
    asyncio.run(main())
