"""Streams hold, bells hint: a lost bell costs time, never a notification, and none comes twice.

Every test runs its conversation while bells are lost on purpose: the subscriber's connection is
killed by Redis again and again, all connections are cut or stall, bells are swallowed, half of
them or all. What is sent must arrive once, in order; what is open must be offered once; what is
over must be told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Channel, Offer, Payload, Registration
from broker.errors import ChannelAcquired, ChannelAlreadyClosed
from broker.results import S_OK
from tests.conformance.actors import eventually
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.proxy import Proxy
from tests.redis.scenes import BehindProxy, bells_of
from tests.servers import RedisServer

SETTINGS = {"lease": 30.0, "resync": 0.1, "reply_timeout": 0.3, "buffer": 100_000}
PAUSE = 0.01
"""Seconds between two faults."""
FAULTS = 8
"""How many each conversation has to outlast."""


class Disturbed(Farm):
    """A farm behind a proxy, whose bells a fault troubles."""

    def __init__(self, backend: BehindProxy, fault: str) -> None:
        super().__init__(backend)
        self.proxy = backend.proxy
        self.fault = fault
        self.faults = 0
        self._random = random.Random(7)
        self._is_calm = False

    async def broker(self, user: str = "alice", **options: Any) -> Broker:
        """A process, its ears perhaps stopped."""
        broker = await super().broker(user, **(SETTINGS | options))
        share = {"half of the bells are swallowed": 0.5, "all bells are swallowed": 1.0}
        if self.fault in share:
            self._muffle(broker, share[self.fault])
        return broker

    def _muffle(self, broker: Broker, share: float) -> None:
        bells = bells_of(broker)
        ring = bells._on_ring

        def perhaps(channel: str, payload: bytes) -> None:
            if self._random.random() < share:
                self.faults += 1
            else:
                ring(channel, payload)

        bells._on_ring = perhaps

    @contextlib.asynccontextmanager
    async def trouble(self) -> AsyncIterator[None]:
        """The fault, over and over, while something is done."""
        strike = {
            "the subscription is killed": self._kill,
            "all connections are cut": self._cut,
            "all connections stall": self._stall,
        }.get(self.fault)
        self._is_calm = False
        work = asyncio.create_task(self._strike(strike)) if strike is not None else None
        try:
            yield
        finally:
            self._is_calm = True  # not cancelled: redis-py's client may swallow a cancellation
            if work is not None:
                await work
            self.proxy.stall(on=False)
        assert self.faults >= FAULTS, f"it did not happen often enough: {self.fault}"

    def rounds(self, least: int) -> Iterator[int]:
        """Numbers for the rounds of a conversation: so many, and on until enough has happened."""
        for number in itertools.count():
            if number >= least and self.faults >= FAULTS:
                return
            yield number

    async def _strike(self, strike: Callable[[], Awaitable[int]]) -> None:
        while not self._is_calm:
            self.faults += await strike()
            await asyncio.sleep(PAUSE)

    async def _kill(self) -> int:
        return int(await self.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))

    async def _cut(self) -> int:
        await asyncio.sleep(2 * PAUSE)
        return self.proxy.cut()

    async def _stall(self) -> int:
        """Now and then for longer than a reply may take."""
        self.proxy.stall(on=True)
        await asyncio.sleep(self._random.choice((PAUSE, PAUSE, PAUSE, 0.4)))
        self.proxy.stall(on=False)
        return 1


@pytest.fixture(
    params=[
        "the subscription is killed",
        "all connections are cut",
        "all connections stall",
        "half of the bells are swallowed",
        "all bells are swallowed",
    ]
)
async def farm(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Farm]:
    """A farm with one of the faults."""
    async with (
        Proxy("127.0.0.1", redis_server.port) as proxy,
        Disturbed(BehindProxy(redis_server, proxy), request.param) as made,
    ):
        yield made


async def test_notifications_arrive_once_and_in_order(farm: Disturbed) -> None:
    source = await farm.broker("spooler")
    listeners = [await farm.broker("alice") for _ in range(2)]
    registrations = [
        await listener.register(PRINTER, TYPE) for listener in (*listeners, listeners[0])
    ]
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    bodies: list[bytes | None] = []

    async with farm.trouble():
        for i in farm.rounds(200):
            bodies.append(b"%d" % i + b"." * (i % 7 * 1000))
            assert await channel.send(bodies[-1] or b"") == S_OK
        for registration in registrations:
            assert await read(registration, len(bodies)) == bodies, "lost, twice, or out of order"
    await channel.send(b"the end")
    for registration in registrations:
        assert await read(registration, 1) == [b"the end"], "nothing stands between"


async def read(registration: Registration[Payload], count: int) -> list[bytes | None]:
    """The next so many."""
    found: list[bytes | None] = []
    for _ in range(count):
        notification = await registration.fetch(PATIENCE)
        assert notification is not None, f"{len(found)} of {count} came within {PATIENCE:g} s each"
        assert not isinstance(notification, Offer)
        found.append(notification.data)
    return found


async def test_open_questions_are_offered_once_and_their_end_is_told(farm: Disturbed) -> None:
    source, rival = await farm.broker("spooler"), await farm.broker("alice")
    listener = await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    rivals = await rival.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    offers: list[Offer[Payload]] = []
    taken: dict[str, Offer[Payload]] = {}
    listening = asyncio.create_task(collect(registration, offers.append))
    competing = asyncio.create_task(
        collect(rivals, lambda offer: taken.__setitem__(offer.id, offer))
    )
    open_: list[Channel] = []
    closed: dict[str, bytes] = {}
    acquired: set[str] = set()

    async with farm.trouble():
        for i in farm.rounds(45):
            channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
            await channel.send(b"question %d" % i)
            if i % 3 == 0:
                open_.append(channel)
            elif i % 3 == 1:
                closed[channel.id] = b"reason %d" % i
                await channel.close(closed[channel.id])
            else:
                await eventually(partial(taken.__contains__, channel.id), "the rival's offer")
                await taken[channel.id].respond(b"mine")
                acquired.add(channel.id)
        ids = {channel.id for channel in open_}
        await eventually(lambda: ids <= {offer.id for offer in offers}, "offers of what is open")
        for offer in offers:
            if offer.id not in ids:
                assert await offer.wait_closed(PATIENCE) is not None, "its end was never told"
        await eventually(lambda: registration.unread == 0, "the end of what is over")

    listening.cancel()
    competing.cancel()
    await asyncio.gather(listening, competing, return_exceptions=True)
    handed = [offer.id for offer in offers]
    assert len(handed) == len(set(handed)), "a question was offered twice"
    for offer in offers:
        if offer.id in ids:
            assert offer.closing is None, "an open question is told to be over"
        elif offer.id in closed:
            assert offer.closing is not None
            assert offer.closing.reason.data == closed[offer.id]
            with pytest.raises(ChannelAlreadyClosed):
                await offer.respond(b"too late")
        else:
            assert offer.id in acquired
            assert offer.is_lost
            with pytest.raises(ChannelAcquired):
                await offer.respond(b"too late")


async def collect(
    registration: Registration[Payload], take: Callable[[Offer[Payload]], object]
) -> None:
    """Fetch offers until cancelled."""
    async for offer in registration:
        take(offer)


async def test_dialogs_go_on_turn_by_turn_and_their_end_is_told(farm: Disturbed) -> None:
    source, owner = await farm.broker("spooler"), await farm.broker("alice")
    registration = await owner.register(PRINTER, TYPE, style=BIDIRECTIONAL)

    async with farm.trouble():
        channels = [await farm.question(source) for _ in range(6)]
        offers = {offer.id: offer for offer in [await offered(registration) for _ in channels]}
        await asyncio.gather(*(converse(farm, each, offers[each.id]) for each in channels))


async def offered(registration: Registration[Payload]) -> Offer[Payload]:
    offer = await registration.fetch(PATIENCE)
    assert isinstance(offer, Offer), "an open question was not offered"
    return offer


async def converse(farm: Disturbed, channel: Channel, offer: Offer[Payload]) -> None:
    """Turns, each end hearing what the other said, and then a close with a reason."""
    for turn in farm.rounds(12):
        await offer.respond(b"answer %d" % turn)
        assert (await channel.response(PATIENCE)).data == b"answer %d" % turn
        await channel.send(b"question %d" % turn)
        assert (await offer.follow_up(PATIENCE)).data == b"question %d" % turn
    await offer.respond(b"enough")
    assert (await channel.response(PATIENCE)).data == b"enough"
    await channel.close(b"goodbye")
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None, "the owner was never told of the close"
    assert closing.reason.data == b"goodbye"
    assert [said async for said in offer.follow_ups()] == [], "something was told twice"
    assert [said async for said in channel.responses()] == [], "something was told twice"


def has_ended(registration: Registration[Payload]) -> bool:
    return not registration.is_registered


async def test_ends_of_registrations_are_told(farm: Disturbed) -> None:
    """A right that is revoked ends the registrations that stood on it, also unheard."""
    administrator = await farm.broker("root")
    await administrator.grant(PRINTER, "bob", "administer")
    listener = await farm.broker("bob")
    async with farm.trouble():
        for _ in farm.rounds(5):
            registration = await listener.register(
                PRINTER, TYPE, style=BIDIRECTIONAL, user_filter=ALL_USERS
            )
            await administrator.revoke(PRINTER, "bob", "administer")
            await eventually(partial(has_ended, registration), "the registration's end")
            await administrator.grant(PRINTER, "bob", "administer")
