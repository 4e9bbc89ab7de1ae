"""A replica takes over that missed something: no dialog ever has two owners.

The fencing token that a source saw first is pinned. What the replica never heard of ends at both
ends; whoever was forgotten is registered again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import pytest
import redis.asyncio

from broker import BIDIRECTIONAL, Broker, Channel, Offer, Registration
from broker._rundown import give_up_forgotten
from broker._scripts import Arg, Call
from broker._server import Server
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    NotYours,
    OutcomeUnknown,
    SessionLapsed,
)
from broker.results import S_OK
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.proxy import Proxy
from tests.redis.scenes import (
    BRISK,
    QUIET,
    BehindProxy,
    Scene,
    anew,
    heard,
    is_released,
    stand,
)
from tests.redis.test_cluster import keys_of
from tests.servers import RedisServer
from workers.embedded import HOST


class Pair(BehindProxy):
    """A primary, its replica, and a proxy that follows whoever is the primary."""

    def __init__(self, primary: RedisServer, replica: RedisServer, proxy: Proxy) -> None:
        super().__init__(primary, proxy)
        self.replica = replica
        self.proxies = [proxy]

    def client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(self.proxy.url, protocol=2)

    async def split(self) -> None:
        """From here on the replica misses what the primary acknowledges."""
        assert await asyncio.to_thread(self.server.cli, "WAIT", 1, 5000) == 1
        await asyncio.to_thread(self.replica.promote)

    async def fail_over(self) -> None:
        """The primary is gone, and the replica is the primary."""
        for proxy in self.proxies:
            proxy.target = (HOST, self.replica.port)
            proxy.stall(False)
            proxy.cut()
        await asyncio.to_thread(self.server.kill)


@asynccontextmanager
async def paired() -> AsyncIterator[tuple[Pair, Farm]]:
    with RedisServer() as primary, primary.replica() as replica:
        async with Proxy(HOST, primary.port) as proxy:
            pair = Pair(primary, replica, proxy)
            async with Farm(pair) as farm:
                yield pair, farm
                await anew(farm)


async def two_offers(farm: Farm) -> list[Offer[Any]]:
    """One question, offered to two listeners in processes of their own."""
    return [
        await farm.offered(
            await (await farm.broker(**BRISK)).register(PRINTER, TYPE, style=BIDIRECTIONAL)
        )
        for _ in range(2)
    ]


@dataclass
class Asked:
    """A question, and who is asked: each broker a process of its own, and quiet."""

    source: Broker
    channel: Channel
    listeners: list[Broker]
    registrations: list[Registration[Any]]
    offers: list[Offer[Any]]

    @classmethod
    async def of(cls, farm: Farm, listeners: int = 1) -> Self:
        source, *asked = [await farm.broker("alice", **QUIET) for _ in range(1 + listeners)]
        stand = [await each.register(PRINTER, TYPE, style=BIDIRECTIONAL) for each in asked]
        channel = await farm.question(source)
        return cls(source, channel, asked, stand, [await farm.offered(each) for each in stand])


async def carries_on(channel: Channel, owner: Offer[Any], said: bytes) -> None:
    """Its source hears what the owner said, and the owner what the source says to that."""
    assert (await channel.response(PATIENCE)).data == said
    await channel.send(b"sure?")
    assert (await owner.follow_up(PATIENCE)).data == b"sure?"


async def answer(offer: Offer[Any], body: bytes) -> bool:
    """Whether the answer was accepted; it may be refused by name, and in no other way."""
    try:
        await offer.respond(body)
    except (ChannelAcquired, ChannelAlreadyClosed, NotYours, SessionLapsed):
        return False
    return True


async def test_a_failover_that_lost_nothing_goes_on() -> None:
    async with paired() as (pair, farm):
        scene = await Scene.set(farm, **BRISK)
        await scene.used.send(b"before")
        await pair.split()
        await pair.fail_over()
        assert await scene.used.send(b"after") == S_OK
        assert [await heard(scene.one_way) for _ in range(2)] == [b"before", b"after"]
        assert await scene.answered.send(b"sure?") == S_OK
        assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
        assert await scene.question.respond(b"yes") == S_OK
        assert (await scene.asked.response(PATIENCE)).data == b"yes"


async def test_an_acquisition_that_its_source_saw_is_never_given_to_another() -> None:
    """The token that the source saw first is pinned: after the loss the dialog ends."""
    async with paired() as (pair, farm):
        source = await farm.broker(**BRISK)
        channel = await farm.question(source)
        first, second = await two_offers(farm)
        await pair.split()
        await first.respond(b"first")
        heard_first = await channel.response(PATIENCE)
        await pair.fail_over()
        await answer(second, b"second")
        await is_released(channel)
        heard_later = [response async for response in channel.responses()]
        assert [heard_first.data, *(each.data for each in heard_later)] == [b"first"]
        assert channel.owner == heard_first.registration == first.registration.id
        assert not await answer(first, b"again"), "the owner of a lost dialog is refused"
        await is_released(first)
        closing = await second.wait_closed(PATIENCE)
        assert closing is not None, "whoever took it up after the loss is told as well"


@pytest.mark.parametrize("was_told", [False, True], ids=["unaware", "told that it lost"])
async def test_an_acquisition_that_its_source_never_saw_is_free_again(
    was_told: bool,
) -> None:
    """Whoever answers then owns the dialog, also if it was told before that another was first."""
    async with paired() as (pair, farm), Proxy(HOST, pair.server.port) as apart:
        pair.proxies.append(apart)
        there = {"namespace": farm.namespace, "user": "alice"} | BRISK
        async with (
            Broker.connect(apart.url, **there) as source,
            Broker.connect(pair.proxy.url if was_told else apart.url, **there) as other,
        ):
            channel = await farm.question(source)
            listeners = [await farm.broker(**BRISK), other]
            first, second = [
                await farm.offered(await each.register(PRINTER, TYPE, style=BIDIRECTIONAL))
                for each in listeners
            ]
            await pair.split()
            apart.stall(True)
            await first.respond(b"first")
            if was_told:
                await second.wait_closed(PATIENCE)
            assert second.is_lost == was_told
            await pair.fail_over()
            assert await answer(second, b"second"), "nobody owns it there"
            response = await channel.response(PATIENCE)
            assert (response.data, channel.owner) == (b"second", second.registration.id)
            assert not await answer(first, b"again"), "the forgotten owner is refused"
            assert await channel.send(b"sure?") == S_OK
            assert (await second.follow_up(PATIENCE)).data == b"sure?"
            await channel.close()
            assert [each async for each in channel.responses()] == []


async def test_a_question_that_its_source_asks_again_is_offered_again() -> None:
    """Its first asking reached the listener, but not the replica, nor did its source hear of it."""
    async with paired() as (pair, farm), Proxy(HOST, pair.server.port) as apart:
        pair.proxies.append(apart)
        unhurried = BRISK | {"lease": 60.0}
        there = {"namespace": farm.namespace, "user": "alice"} | unhurried
        async with Broker.connect(apart.url, **there) as source:
            await (await farm.question(source)).close()  # Redis knows the script
            listener = await farm.broker(**unhurried)
            registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
            channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
            await pair.split()
            apart.lose_reply_to(b"A4?")
            apart.refuse(True)
            asking = asyncio.create_task(channel.send(b"A4?"))
            first = await farm.offered(registration)
            await pair.fail_over()
            closing = await first.wait_closed(PATIENCE)
            assert closing is not None
            assert closing.reason.is_release, "nobody knows of it"
            assert not await answer(first, b"no")
            apart.refuse(False)
            again = await farm.offered(registration)
            assert again is not first
            await again.respond(b"yes")
            await asking
            assert (await channel.response(PATIENCE)).data == b"yes"


async def test_an_answer_to_a_question_that_redis_forgot_ends_it_there(real_farm: Farm) -> None:
    """Where it is asked again before that is known here, it is offered again."""
    asked = await Asked.of(real_farm)
    channel, (registration,), (first,) = asked.channel, asked.registrations, asked.offers
    await forget_question(real_farm, channel)
    with pytest.raises(ChannelAlreadyClosed, match="forgot"):
        await first.respond(b"yes")
    await is_released(first)
    channel._op = 0
    await channel.send(b"A4?")
    again = await real_farm.offered(registration)
    await again.respond(b"yes")
    assert (await channel.response(PATIENCE)).data == b"yes"


async def forget_question(farm: Farm, channel: Channel) -> None:
    """The channel is as before its source asked; its listeners have heard the question."""
    keys, client = keys_of(farm, PRINTER), farm.client
    offers: Any = await client.hget(keys.channel(channel.id), "offers")
    await client.hset(keys.channel(channel.id), mapping={"state": "open", "op": 0})
    await client.hdel(keys.channel(channel.id), "offers")
    for audience, offer in zip(channel._audiences, offers.split(), strict=True):
        await client.xdel(keys.stream(audience), offer)


async def test_an_answer_on_its_way_is_one_to_the_question_that_is_asked_again(
    real_farm: Farm,
) -> None:
    """Redis forgets the question meanwhile; the listener is not asked a second time."""
    asked = await Asked.of(real_farm)
    channel, (registration,), (offer,) = asked.channel, asked.registrations, asked.offers
    server = await asked.listeners[0].server(PRINTER)
    with held(server, "respond", before=True) as (is_held, goes_on):
        answering = asyncio.create_task(offer.respond(b"yes"))
        await is_held.wait()
        await forget_question(real_farm, channel)
        await looked(server)
        channel._op = 0
        await channel.send(b"A4?")
        await looked(server)
        goes_on.set()
        assert await answering == S_OK
    await carries_on(channel, offer, b"yes")
    assert registration.unread == 0, "it was asked once"


async def test_what_an_earlier_primary_answered_late_is_asked_of_the_present_one(
    real_farm: Farm,
) -> None:
    """A primary that was frozen takes an answer when another one has replaced it."""
    asked = await Asked.of(real_farm)
    channel, (registration,), (offer,) = asked.channel, asked.registrations, asked.offers
    server, client = await asked.listeners[0].server(PRINTER), real_farm.client
    forget = await remembered(real_farm)
    with held(server, "respond", before=False) as (is_held, goes_on):
        answering = asyncio.create_task(offer.respond(b"yes"))
        await is_held.wait()
        await forget()
        await server._renew()
        goes_on.set()
        assert await answering == S_OK
    assert await client.hget(server.keys.channel(channel.id), "owner") == registration.id.encode()
    assert (await channel.response(PATIENCE)).data == b"yes"


async def test_whoever_was_told_of_an_acquisition_that_redis_forgot_may_own_the_dialog(
    real_farm: Farm,
) -> None:
    """The bell of an earlier primary comes while the present one takes another's answer."""
    asked = await Asked.of(real_farm, listeners=2)
    first, second = asked.offers
    server = await asked.listeners[1].server(PRINTER)
    forget = await remembered(real_farm)
    with held(server, "respond", before=True) as (is_held, goes_on):
        answering = asyncio.create_task(second.respond(b"second"))
        await is_held.wait()
        async with deaf(await asked.source.server(PRINTER)):
            await first.respond(b"first")
            await looked(server)
            await forget()
        goes_on.set()
        assert await answering == S_OK
    await carries_on(asked.channel, second, b"second")


async def test_what_is_said_to_an_owner_before_it_knows_that_it_is_one_is_heard(
    real_farm: Farm,
) -> None:
    """It was told that another was first, whom Redis forgot, and answers all the same."""
    asked = await Asked.of(real_farm, listeners=2)
    first, second = asked.offers
    server = await asked.listeners[1].server(PRINTER)
    forget = await remembered(real_farm)
    async with deaf(await asked.source.server(PRINTER)):
        await first.respond(b"first")
        assert await second.wait_closed(PATIENCE)
        assert second.is_lost
        await forget()
    await server._renew()
    with held(server, "respond", before=False) as (is_held, goes_on):
        answering = asyncio.create_task(second.respond(b"second"))
        await is_held.wait()
        assert (await asked.channel.response(PATIENCE)).data == b"second"
        await asked.channel.send(b"sure?")
        await looked(server)
        goes_on.set()
        assert await answering == S_OK
    assert (await second.follow_up(PATIENCE)).data == b"sure?"


async def test_whoever_finds_another_redis_may_be_broken_off_while_all_is_confirmed(
    real_farm: Farm,
) -> None:
    asked = await Asked.of(real_farm)
    (offer,) = asked.offers
    server = await asked.listeners[0].server(PRINTER)
    forget = await remembered(real_farm)
    await offer.respond(b"yes")
    await forget()
    with held(server, "confirm", before=True) as (is_held, goes_on):
        finding = asyncio.create_task(server._renew())
        await is_held.wait()
        finding.cancel()
        await asyncio.wait({finding})
        goes_on.set()
        await is_released(offer)


async def test_what_a_former_primary_says_to_whoever_knows_the_present_one_is_not_heard(
    real_farm: Farm,
) -> None:
    """Its bells come later than the source finds the primary that forgot the first answer."""
    asked = await Asked.of(real_farm, listeners=2)
    first, second = asked.offers
    source = await asked.source.server(PRINTER)
    rung: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    forget = await remembered(real_farm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ring", lambda *bell: rung.put_nowait(bell))
        await first.respond(b"first")
        bell = await asyncio.wait_for(rung.get(), PATIENCE)
        await forget()
    await source._renew()
    source.ring(*bell)
    assert await second.respond(b"second") == S_OK
    await carries_on(asked.channel, second, b"second")


async def test_what_was_read_of_a_former_primary_is_read_again_of_the_present_one(
    real_farm: Farm,
) -> None:
    asked = await Asked.of(real_farm, listeners=2)
    first, second = asked.offers
    source = await asked.source.server(PRINTER)
    forget = await remembered(real_farm)
    with read_slowly(source) as (is_read, goes_on):
        await first.respond(b"first")
        source.look()
        await is_read.wait()
        await forget()
        await source._renew()
        goes_on.set()
        await looked(source)
    assert await second.respond(b"second") == S_OK
    assert (await asked.channel.response(PATIENCE)).data == b"second"


async def test_a_close_that_redis_forgot_ends_the_channel_for_whoever_answers_then(
    real_farm: Farm,
) -> None:
    """Its source, which lives, has long let go of it."""
    asked = await Asked.of(real_farm, listeners=2)
    first, second = asked.offers
    source, other = [await each.server(PRINTER) for each in (asked.source, asked.listeners[1])]
    forget = await remembered(real_farm)
    async with deaf(other):
        await first.respond(b"first")
        await asked.channel.response(PATIENCE)
        await asked.channel.close(b"thanks")
        await forget()
    assert await second.respond(b"second") == S_OK
    await source._renew()
    await is_released(second)
    assert await asked.source.channels() == []


async def test_a_source_closes_no_dialog_that_another_owner_than_its_own_has(
    real_farm: Farm,
) -> None:
    """Not even where it is quicker than the look at what Redis still knows."""
    asked = await Asked.of(real_farm, listeners=2)
    first, second = asked.offers
    source, other = [await each.server(PRINTER) for each in (asked.source, asked.listeners[1])]
    forget = await remembered(real_farm)
    async with deaf(other):
        await first.respond(b"first")
        await asked.channel.response(PATIENCE)
        await forget()
    assert await second.respond(b"second") == S_OK
    source.epoch = other.epoch
    with pytest.raises(ChannelAlreadyClosed):
        await asked.channel.close(b"enough")
    await is_released(asked.channel)
    await is_released(second)


async def test_an_owner_whose_close_redis_forgot_ends_the_dialog_for_its_source(
    real_farm: Farm,
) -> None:
    asked = await Asked.of(real_farm)
    (offer,) = asked.offers
    await offer.respond(b"yes")
    await asked.channel.response(PATIENCE)
    await asked.channel.send(b"sure?")
    await offer.follow_up(PATIENCE)
    forget = await remembered(real_farm)
    async with deaf(await asked.source.server(PRINTER)):
        await offer.close(b"bye")
        await forget()
    await (await asked.listeners[0].server(PRINTER))._renew()
    await is_released(asked.channel)


async def test_a_registration_whose_end_redis_forgot_does_not_stand(real_farm: Farm) -> None:
    """Senders would be told that somebody hears."""
    source, listener = [await real_farm.broker("alice", **QUIET) for _ in range(2)]
    kept, ended = [await listener.register(PRINTER, TYPE) for _ in range(2)]
    forget = await remembered(real_farm)
    await ended.unregister()
    await forget()
    await (await listener.server(PRINTER))._renew()
    assert [facts.id for facts in await source.registrations()] == [kept.id]


async def test_what_is_just_beginning_in_a_new_epoch_is_not_taken_for_forgotten(
    real_farm: Farm,
) -> None:
    source, listener = [await real_farm.broker("alice", **QUIET) for _ in range(2)]
    await listener.register(PRINTER, TYPE)
    for broker, script in ((source, "open"), (listener, "register")):
        server = await broker.server(PRINTER)
        with held(server, script, before=False) as (is_held, goes_on):
            beginning = asyncio.create_task(
                source.open_channel(PRINTER, TYPE)
                if script == "open"
                else listener.register(PRINTER, TYPE)
            )
            await is_held.wait()
            await give_up_forgotten(server)
            goes_on.set()
            await beginning
    assert len(await source.channels()) == 1
    assert len(await source.registrations()) == 2


async def looked(server: Server) -> None:
    """The process has read all that Redis has for it."""
    readers = [server._inbox, *server.listening.readers.values()]
    await asyncio.gather(*(reader.looked() for reader in readers if reader is not None))


@asynccontextmanager
async def deaf(server: Server) -> AsyncIterator[None]:
    """No bell reaches the process meanwhile; afterwards it looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "ring", lambda *_: None)
        yield
    server.look()


async def remembered(farm: Farm) -> Callable[[], Awaitable[None]]:
    """Make Redis as it is now, in a later epoch: it forgets what was done since."""
    client, meta = farm.client, keys_of(farm, PRINTER).meta
    before: dict[Any, Any] = {
        name: await client.dump(name) for name in await client.keys(f"{farm.namespace}:*")
    }

    async def forget() -> None:
        for name in await client.keys(f"{farm.namespace}:*"):
            await client.delete(name)
        for name, value in before.items():
            await client.restore(name, 0, value, replace=True)
        await client.hset(meta, "run", "another")

    return forget


@contextmanager
def held(
    server: Server, script: str, *, before: bool
) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """The first call of a script waits on its way, there or back: that it does, and its end."""
    run, is_held, goes_on = server.link.run, asyncio.Event(), asyncio.Event()

    async def slow(call: Call, lead: Sequence[Arg]) -> list[Any]:
        if call.script.name != script or is_held.is_set():
            return await run(call, lead)
        answer = None if before else await run(call, lead)
        is_held.set()
        await goes_on.wait()
        return await run(call, lead) if answer is None else answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.link, "run", slow)
        patch.setattr(server.link, "run_durably", lambda *of: paired_with_true(slow(*of)))
        yield is_held, goes_on


@contextmanager
def read_slowly(server: Server) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """No bell is heard; what the first look finds waits on its way: that it does, and its end."""
    command, is_read, goes_on = server.link.command, asyncio.Event(), asyncio.Event()

    async def slow(*of: Arg, large: bool = False) -> Any:
        answer = await command(*of, large=large)
        if of[0] == "XRANGE" and answer and not is_read.is_set():
            is_read.set()
            await goes_on.wait()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "ring", lambda *_: None)
        patch.setattr(server.link, "command", slow)
        yield is_read, goes_on


async def paired_with_true(answer: Awaitable[list[Any]]) -> tuple[list[Any], bool]:
    return await answer, True


async def test_sends_that_a_failover_lost_end_their_channel() -> None:
    """The source must not go on as if its listeners had heard everything."""
    async with paired() as (pair, farm):
        source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
        registration = await listener.register(PRINTER, TYPE)
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(b"kept")
        await pair.split()
        await channel.send(b"lost")
        await pair.fail_over()
        with pytest.raises((ChannelAlreadyClosed, OutcomeUnknown, SessionLapsed)):
            await channel.send(b"next")
        await is_released(channel)
        successor = await source.open_channel(PRINTER, TYPE)
        assert await successor.send(b"after") == S_OK
        found = [await heard(registration)]
        while found[-1] != b"after":
            found.append(await heard(registration))
        assert found in ([b"kept", b"lost", b"after"], [b"kept", b"after"])


async def test_a_registration_that_a_failover_lost_hears_again() -> None:
    async with paired() as (pair, farm):
        source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
        await listener.server(PRINTER)
        channel = await source.open_channel(PRINTER, TYPE)
        await pair.split()
        registration = await listener.register(PRINTER, TYPE)
        await pair.fail_over()

        await anew(farm)
        await stand(farm, 1)
        assert await channel.send(b"page") == S_OK
        assert await heard(registration) == b"page"


async def test_a_process_that_a_failover_forgot_begins_anew() -> None:
    """Its session is not known there: everything it held is over, and it registers again."""
    async with paired() as (pair, farm):
        await pair.split()
        scene = await Scene.set(farm, **BRISK)
        await pair.fail_over()
        await anew(farm)
        for end in (scene.asked, scene.answered, scene.owned):
            await is_released(end)

        await stand(farm, 2)
        channel = await scene.source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"page") == S_OK
        assert await heard(scene.one_way) == b"page"


async def test_what_a_listener_heard_and_redis_forgot_is_not_heard_again() -> None:
    """A send whose reply was lost is asked again of a primary that never heard of it (D24)."""
    async with paired() as (pair, farm):
        source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
        registration = await listener.register(PRINTER, TYPE, buffer=1)
        channel = await source.open_channel(PRINTER, TYPE, user="alice")
        await pair.split()
        assert await channel.send(b"once") == S_OK
        assert await heard(registration) == b"once"
        await pair.fail_over()

        channel._op -= 1
        assert await channel.send(b"once") == S_OK
        assert await channel.send(b"next", lossless=True, timeout=PATIENCE) == S_OK
        assert await heard(registration) == b"next"
        assert registration.denied == 0
