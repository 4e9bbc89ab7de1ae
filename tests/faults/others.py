"""Those who are not struck: they keep what they are told, and go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

from broker import BIDIRECTIONAL, Broker, Channel, Notification, Offer, Registration
from broker.errors import ChannelAcquired, ChannelAlreadyClosed, TympanError
from broker.notification import Closing
from broker.pooled_offer import PooledOffer
from tests.conformance.actors import eventually
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.redis.pooling import Member

LEASE = 1.5
SETTINGS: dict[str, Any] = {
    "lease": LEASE,
    "resync": 60.0,
    "retry_least": 0.05,
    "retry_most": 0.5,
}
"""Nobody looks by the clock: who is told, is told by a bell."""
POOLED = SETTINGS | {"resync": 1.0}
"""A replica that is woken and dies before it fetches costs a look by the clock."""


class Hearer:
    """A listener that keeps what it is offered and told."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.offers: list[Offer[Any]] = []
        self.heard: list[str] = []
        self.two_way: Registration[Any]
        self._hearing: list[asyncio.Task[None]] = []

    @classmethod
    async def of(cls, broker: Broker) -> Hearer:
        made = cls(broker)
        made.two_way = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        one_way = await broker.register(PRINTER, TYPE)
        made._hearing = [asyncio.create_task(made._hear(each)) for each in (made.two_way, one_way)]
        return made

    async def _hear(self, registration: Registration[Any]) -> None:
        with contextlib.suppress(TympanError):  # its broker is closed at the end
            async for one in registration:
                if isinstance(one, Offer):
                    self.offers.append(one)
                elif isinstance(one, Notification):
                    self.heard.append(one.text)

    async def offered(self, channel: str) -> Offer[Any]:
        """The question of a channel."""
        await eventually(lambda: any(each.id == channel for each in self.offers), "the question")
        return next(each for each in self.offers if each.id == channel)


async def asked(source: Broker, body: str = "q") -> Channel:
    """An open question."""
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    await channel.send(body)
    return channel


async def answered(channel: Channel, body: str) -> None:
    """The source hears this next."""
    heard = (await channel.response(PATIENCE)).text
    assert heard == body, f"the source heard {heard!r}, not {body!r}"


async def closed(end: Channel | Offer[Any]) -> Closing:
    """How an end was told of its end."""
    closing = await end.wait_closed(PATIENCE)
    assert closing is not None, f"{end.id}: nobody told its other end"
    return closing


async def released(end: Channel | Offer[Any]) -> None:
    """It is told NOTIFICATION_RELEASE."""
    closing = await closed(end)
    assert closing.reason.is_release, f"{end.id} was told {closing}"
    assert closing.reason.data is None
    assert not closing.acquired


async def lost(end: Offer[Any]) -> None:
    """It is told that another was first."""
    closing = await closed(end)
    assert closing.acquired, f"{end.id} was told {closing}"


async def refused(end: Channel | Offer[Any]) -> None:
    """Nothing is said on it any more."""
    try:
        await (end.send("late") if isinstance(end, Channel) else end.respond("late"))
    except (ChannelAcquired, ChannelAlreadyClosed):
        return
    raise AssertionError(f"{end.id}: something was said after its end")


async def converses(source: Broker, hearers: Sequence[Hearer]) -> None:
    """All hear a new question, and the first to answer is heard."""
    channel = await asked(source, "again")
    offers = [await hearer.offered(channel.id) for hearer in hearers]
    await offers[0].respond("here")
    await answered(channel, "here")
    for offer in offers[1:]:
        await lost(offer)
    await channel.close("enough")
    assert (await closed(offers[0])).reason.text == "enough"


class Asking:
    """A source that speaks as often as it is answered, and what it heard."""

    ON: ClassVar = {"a1": "q2", "a2": "q3"}

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heard: list[str] = []
        self.speaking = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        async for response in self.channel.responses():
            self.heard.append(response.text)
            if response.text in self.ON:
                await self.channel.send(self.ON[response.text])

    async def over(self) -> None:
        """It heard all of it, once and in order."""
        async with asyncio.timeout(PATIENCE):
            await self.speaking
        assert self.heard == ["a1", "a2", "bye"], f"the source heard {self.heard}"
        assert (await closed(self.channel)).reason.text == "bye"


class Handler:
    """A replica that carries every dialog to its end."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.redelivered: list[bool] = []
        self.handling = asyncio.create_task(self._handle())

    async def _handle(self) -> None:
        while True:
            offer = await self.member.offer(within=3 * PATIENCE)
            self.redelivered.append(offer.redelivered)
            with contextlib.suppress(ChannelAlreadyClosed):
                await self._carry(offer)

    async def _carry(self, offer: PooledOffer[Any]) -> None:
        while offer.closing is None:
            if offer.turn is None and not offer.waits:
                offer.turn = await offer.follow_up(PATIENCE)
            if offer.begin_turn().text == "q3":
                await offer.close("bye")
                return
            assert (await offer.ask("a1", PATIENCE)).text == "q2"
            await offer.respond("a2", ends_turn=True)
            offer.end_turn()

    async def stop(self) -> None:
        """Raises what it met."""
        self.handling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.handling
        await self.member.replica.leave()
