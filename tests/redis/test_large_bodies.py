"""A large body is stored once, under a key of its own, for everybody who is told of it.

It arrives like any other. Its key ends by itself: with its question, a while after everybody has
received it, or after ``keep_body``. A body that went too early costs its reader a BodyGone, never
a channel.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Notification
from broker.errors import BodyGone, ChannelAcquired
from broker.results import NO_LISTENERS, S_OK
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.proxy import Proxy
from tests.redis.scenes import BehindProxy, bodies, heard, until
from tests.servers import RedisServer
from workers.embedded import HOST

LARGE = bytes(n % 251 for n in range(30_000))
ALSO_LARGE = LARGE[::-1]


# They arrive ------------------------------------------------------------------------------------


async def test_every_listener_gets_the_same_bytes_and_they_are_stored_once(farm: Farm) -> None:
    """However many audiences a notification has."""
    source = await farm.broker()
    admin = await farm.administrator("carol")
    listeners = [
        *[await (await farm.broker()).register(PRINTER, TYPE) for _ in range(3)],
        await admin.register(PRINTER, TYPE, user_filter=ALL_USERS),
        await admin.register(SERVER, TYPE, user="alice", printers=True),
    ]
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(LARGE) == S_OK
    assert [await heard(each) for each in listeners] == [LARGE] * 5
    assert len(await bodies(farm)) == 1


async def test_a_dialog_of_large_bodies(farm: Farm) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source, LARGE)
    offer = await farm.offered(registration)
    assert offer.notification.data == LARGE
    await offer.respond(ALSO_LARGE)
    assert (await channel.response(PATIENCE)).data == ALSO_LARGE
    await channel.send(LARGE)
    assert (await offer.follow_up(PATIENCE)).data == LARGE
    await offer.close(ALSO_LARGE)
    final = await channel.response(PATIENCE)
    assert (final.data, final.is_final) == (ALSO_LARGE, True)
    shown = await source.show(channel.id)
    assert shown is not None
    assert [said.data for said in shown[1]] == [LARGE, ALSO_LARGE, LARGE, ALSO_LARGE]


async def test_a_question_of_many_listeners_is_stored_once(farm: Farm) -> None:
    source = await farm.broker()
    registrations = [
        await (await farm.broker()).register(PRINTER, TYPE, style=BIDIRECTIONAL) for _ in range(3)
    ]
    await farm.question(source, LARGE)
    offers = [await farm.offered(each) for each in registrations]
    late = await (await farm.broker()).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    offers.append(await farm.offered(late))
    assert {offer.notification.data for offer in offers} == {LARGE}, "the same bytes (R67)"
    assert list((await bodies(farm)).values()) == [-1], "held as long as the question is open"


async def test_a_final_answer_may_be_large(farm: Farm) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    await (await farm.offered(registration)).close(LARGE)
    final = await channel.response(PATIENCE)
    assert (final.data, final.is_final) == (LARGE, True)


@pytest.mark.parametrize("owned", [False, True], ids=["unanswered", "owned"])
async def test_a_sources_reason_may_be_large(farm: Farm, owned: bool) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    if owned:
        await offer.respond(b"yes")
        await channel.response(PATIENCE)
    await channel.close(LARGE)
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == LARGE


async def test_ten_megabytes_arrive(real_farm: Farm) -> None:
    """The documents' limit, with the default settings."""
    source, listener = await real_farm.broker(), await real_farm.broker()
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE)
    body = bytes(10_485_760)
    assert await channel.send(body) == S_OK
    assert await heard(registration) == body


async def test_small_and_large_notifications_keep_their_order(farm: Farm) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE)
    sent = [body for n in range(10) for body in (b"%d" % n, LARGE + b"%d" % n)]
    for body in sent:
        await channel.send(body)
    assert [await heard(registration) for _ in sent] == sent


# They end ---------------------------------------------------------------------------------------


async def test_what_nobody_listens_to_is_not_kept(farm: Farm) -> None:
    source = await farm.broker()
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(LARGE) == NO_LISTENERS
    assert await bodies(farm) == {}


async def test_a_body_ends_a_while_after_everybody_received_it(farm: Farm) -> None:
    """Three leases after its entry was trimmed: by then every reader has it, or is dead."""
    source, listener = await farm.broker(), await farm.broker(lease=2.0, resync=0.05)
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(LARGE)
    assert await heard(registration) == LARGE

    async def ends_soon() -> bool:
        return all(0 <= left <= 6000 for left in (await bodies(farm)).values())

    await until(ends_soon)


@pytest.mark.parametrize("ending", ["acquired", "withdrawn", "answered and closed"])
async def test_a_questions_body_ends_with_the_question(farm: Farm, ending: str) -> None:
    source, listener = await farm.broker(keep_closed=20), await farm.broker(keep_closed=20)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source, LARGE)
    offer = await farm.offered(registration)
    if ending == "acquired":
        await offer.respond(b"yes")
    elif ending == "withdrawn":
        await channel.close()
    else:
        await offer.close(b"yes")
    (left,) = (await bodies(farm)).values()
    assert 0 < left <= 20_000


@pytest.mark.parametrize("what", ["answer", "follow up", "owner's reason", "source's reason"])
async def test_every_body_of_a_dialog_has_its_time(farm: Farm, what: str) -> None:
    source, listener = await farm.broker(keep_body=60), await farm.broker(keep_body=60)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    if what == "answer":
        await offer.respond(LARGE)
    else:
        await offer.respond(b"yes")
        await channel.response(PATIENCE)
    if what == "follow up":
        await channel.send(LARGE)
    elif what == "owner's reason":
        await offer.close(LARGE)
    elif what == "source's reason":
        await channel.close(LARGE)
    (left,) = (await bodies(farm)).values()
    assert 0 < left <= 60_000


async def test_a_question_nobody_answers_keeps_its_body_for_ever(farm: Farm) -> None:
    """No time ends a question (R128)."""
    source = await farm.broker(keep_body=60)
    await farm.question(source, LARGE)
    assert list((await bodies(farm)).values()) == [-1]


# They are lost ----------------------------------------------------------------------------------


@pytest.fixture
async def apart(redis_server: RedisServer) -> AsyncIterator[tuple[Farm, Proxy]]:
    """A farm whose brokers can be held up while Redis loses a body."""
    async with (
        Proxy(HOST, redis_server.port) as proxy,
        Farm(BehindProxy(redis_server, proxy)) as farm,
    ):
        yield farm, proxy


async def lose_bodies(farm: Farm) -> None:
    """They expire, or somebody evicts them."""
    lost = await bodies(farm)
    assert lost
    await farm.client.delete(*lost)


def is_gone(found: object) -> None:
    """The notification is there; its body is not, and says so however it is asked."""
    assert isinstance(found, Notification)
    assert not found.is_release, "a lost body is no NOTIFICATION_RELEASE"
    assert found.type == TYPE
    reads: list[Callable[[], object]] = [
        lambda: found.body,
        lambda: found.text,
        found.acquire_data,
    ]
    for read in reads:
        with pytest.raises(BodyGone, match=found.channel):
            read()


async def test_a_notification_that_lost_its_body_is_said_to(
    apart: tuple[Farm, Proxy], redis_server: RedisServer
) -> None:
    farm, proxy = apart
    listener = await farm.broker(resync=0.2)
    registration = await listener.register(PRINTER, TYPE)
    async with Broker.connect(redis_server.url, user="alice", namespace=farm.namespace) as source:
        channel = await source.open_channel(PRINTER, TYPE)
        proxy.stall(True)
        assert await channel.send(LARGE) == S_OK
        await lose_bodies(farm)
        proxy.stall(False)
        is_gone(await registration.fetch(PATIENCE))
        assert await channel.send(b"next") == S_OK
        assert await heard(registration) == b"next", "the listener goes on"


async def test_an_offer_that_lost_its_body_can_still_be_answered(
    apart: tuple[Farm, Proxy], redis_server: RedisServer
) -> None:
    farm, proxy = apart
    listener = await farm.broker(resync=0.2)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with Broker.connect(redis_server.url, user="alice", namespace=farm.namespace) as source:
        proxy.stall(True)
        channel = await farm.question(source, LARGE)
        await lose_bodies(farm)
        proxy.stall(False)
        offer = await farm.offered(registration)
        is_gone(offer.notification)
        assert await offer.respond(b"say again?") == S_OK
        assert (await channel.response(PATIENCE)).data == b"say again?"


@pytest.mark.parametrize("is_final", [False, True], ids=["answer", "final answer"])
async def test_an_answer_that_lost_its_body_is_an_answer(
    apart: tuple[Farm, Proxy],
    redis_server: RedisServer,
    is_final: bool,
) -> None:
    """Its source learns that somebody answered, and who: only the bytes are missing."""
    farm, proxy = apart
    source = await farm.broker(resync=0.2)
    async with Broker.connect(redis_server.url, user="alice", namespace=farm.namespace) as listener:
        registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        channel = await farm.question(source)
        offer = await farm.offered(registration)
        proxy.stall(True)
        await (offer.close(LARGE) if is_final else offer.respond(LARGE))
        await lose_bodies(farm)
        proxy.stall(False)
        response: Any = await channel.response(PATIENCE)
        is_gone(response)
        assert (response.by, response.is_final) == ("alice", is_final)
        assert channel.owner == registration.id


async def test_a_follow_up_that_lost_its_body_can_still_be_answered(
    apart: tuple[Farm, Proxy], redis_server: RedisServer
) -> None:
    farm, proxy = apart
    listener = await farm.broker(resync=0.2)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with Broker.connect(redis_server.url, user="alice", namespace=farm.namespace) as source:
        channel = await farm.question(source)
        offer = await farm.offered(registration)
        await offer.respond(b"yes")
        await channel.response(PATIENCE)
        proxy.stall(True)
        await channel.send(LARGE)
        await lose_bodies(farm)
        proxy.stall(False)
        is_gone(await offer.follow_up(PATIENCE))
        assert await offer.respond(b"say again?") == S_OK
        assert (await channel.response(PATIENCE)).data == b"say again?"


@pytest.mark.parametrize("closer", ["owner", "source of a dialog", "source of a question"])
async def test_a_reason_that_lost_its_body_still_closes(
    apart: tuple[Farm, Proxy], redis_server: RedisServer, closer: str
) -> None:
    """A reason was given, and is not a NOTIFICATION_RELEASE for being lost (R96)."""
    farm, proxy = apart
    by_owner = closer == "owner"
    held_up = await farm.broker(resync=0.2)
    async with Broker.connect(redis_server.url, user="alice", namespace=farm.namespace) as direct:
        source, listener = (held_up, direct) if by_owner else (direct, held_up)
        registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        channel = await farm.question(source)
        offer = await farm.offered(registration)
        if closer != "source of a question":
            await offer.respond(b"yes")
            await channel.response(PATIENCE)
        proxy.stall(True)
        await (offer.close(LARGE) if by_owner else channel.close(LARGE))
        await lose_bodies(farm)
        proxy.stall(False)
        closing = await (channel if by_owner else offer).wait_closed(PATIENCE)
        assert closing is not None
        is_gone(closing.reason)


async def test_a_conversation_that_lost_a_body_is_still_shown(farm: Farm) -> None:
    source = await farm.broker()
    channel = await farm.question(source, LARGE)
    await farm.client.delete(*await bodies(farm))
    shown = await source.show(channel.id)
    assert shown is not None
    assert [said.data for said in shown[1]] == [None]


async def test_losers_of_a_large_question_are_told_as_ever(farm: Farm) -> None:
    source = await farm.broker()
    registrations = [
        await (await farm.broker()).register(PRINTER, TYPE, style=BIDIRECTIONAL) for _ in range(2)
    ]
    channel = await farm.question(source, LARGE)
    offers = [await farm.offered(each) for each in registrations]
    await offers[0].respond(ALSO_LARGE)
    with pytest.raises(ChannelAcquired):
        await offers[1].respond(LARGE)
    assert (await channel.response(PATIENCE)).data == ALSO_LARGE
