"""What a replica asks for is done once, though a reply is lost; what nobody knows of goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel
from broker import _scripts as scripts
from broker._scripts import SCRIPTS, Script
from broker.errors import NoSuchLetter, NotificationFailure, OutcomeUnknown, RedisUnreachable
from broker.pooled_offer import PooledOffer
from broker.results import S_OK
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.proxy import Proxy
from tests.redis.pooling import (
    ALERTS,
    POOL,
    QUESTIONS,
    SPRY,
    Member,
    counted,
    end_pools,
    facts,
    keys_of,
    pending,
    send,
)
from tests.redis.scenes import QUIET, BehindProxy, until
from tests.servers import RedisServer
from workers.embedded import HOST

WATCHFUL: dict[str, Any] = QUIET | {"resync": 0.2}
"""What is unknown is found soon, and nobody is declared dead."""
LARGE = b"x" * 30_000
IMPATIENT: dict[str, Any] = WATCHFUL | {"operation_timeout": 0.2}


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    """The scripts are loaded, so that no reply is lost to a NOSCRIPT."""
    for script in SCRIPTS:
        redis_server.cli("SCRIPT", "LOAD", script.source)
    async with Proxy(HOST, redis_server.port) as opened:
        yield opened


@pytest.fixture
async def farm(redis_server: RedisServer, proxy: Proxy) -> AsyncIterator[Farm]:
    async with Farm(BehindProxy(redis_server, proxy)) as made:
        yield made


@pytest.fixture
async def source(redis_server: RedisServer, farm: Farm) -> AsyncIterator[Broker]:
    """Without the proxy."""
    options: dict[str, Any] = QUIET | {"namespace": farm.namespace}
    async with Broker.connect(redis_server.url, user="alice", **options) as broker:
        yield broker
        await end_pools(broker)


class Losing:
    """The reply to a script is lost, once, while this is entered."""

    def __init__(self, proxy: Proxy, script: Script) -> None:
        self._proxy = proxy
        self._sha = script.sha.encode()
        self._before = proxy.dropped

    def __enter__(self) -> None:
        self._proxy.lose_reply_to(self._sha)

    def __exit__(self, *_: object) -> None:
        assert self._proxy.dropped == self._before + 1, "a reply was lost on the way"


async def ask(farm: Farm, source: Broker, member: Member) -> tuple[Channel, PooledOffer[Any]]:
    """A dialog that the pool owns; the source's turn."""
    channel = await farm.question(source)
    offer = await member.offer()
    await offer.respond(b"yes", ends_turn=True)
    assert (await channel.response(PATIENCE)).data == b"yes"
    return channel, offer


async def goes_on(channel: Channel, offer: PooledOffer[Any]) -> None:
    await channel.send(b"sure?")
    assert (await offer.follow_up(PATIENCE)).data == b"sure?"
    await offer.respond(b"quite", ends_turn=True)
    assert (await channel.response(PATIENCE)).data == b"quite"
    await channel.close()


# Asked again -------------------------------------------------------------------------------------


async def test_a_pool_is_made_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    broker = await farm.broker("alice", **QUIET)
    await broker.server(PRINTER)
    with Losing(proxy, scripts.CREATE_POOL):
        assert await broker.pools.create(POOL, ALERTS), "this call made it"
    assert not await broker.pools.create(POOL, ALERTS)
    assert len(await source.pools.on_server(SERVER)) == 1
    counts: Any = await farm.client.hgetall(keys_of(farm).counts)
    assert list(counts.values()) == [b"1"]


async def test_a_pool_is_deleted_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    broker = await farm.broker("alice", **QUIET)
    for name in (POOL, "other"):
        await broker.pools.create(name, ALERTS)
    with Losing(proxy, scripts.DELETE_POOL):
        (ended,) = await broker.pools.delete(POOL, PRINTER)
    assert ended.pool == POOL
    assert [each.pool for each in await source.pools.on_server(SERVER)] == ["other"]
    counts: Any = await farm.client.hgetall(keys_of(farm).counts)
    assert list(counts.values()) == [b"1"]


async def test_a_replica_joins_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    broker = await farm.broker("alice", **QUIET)
    await broker.server(PRINTER)
    with Losing(proxy, scripts.JOIN):
        member = await Member.of(broker)
    assert (await facts(source)).replicas == (member.replica.server.session,)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    assert await member.drain() == [b"page"]


async def test_what_a_lost_reply_brought_is_handed_out_again(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    member = await Member.join(farm, **WATCHFUL)
    await send(await source.open_channel(PRINTER, TYPE), b"1", b"2")
    with Losing(proxy, scripts.FETCH):
        (second,) = await member.replica.take(1)
    assert (second.notification.data, second.redelivered) == (b"2", False)
    first = await member.delivery()
    assert (first.notification.data, first.redelivered) == (b"1", True)
    await member.replica.audit()
    await counted(source, 0, 2)
    for one in (first, second):
        await one.done()
    await counted(source, 0, 0)


async def test_what_a_lost_reply_brought_is_found_although_the_replica_takes_just_then(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    """Both are begun by the same look at the clock."""
    member = await Member.join(farm, **QUIET)
    await send(await source.open_channel(PRINTER, TYPE), b"1", b"2")
    with Losing(proxy, scripts.FETCH):
        (second,) = await member.replica.take(1)
    async with member.replica._taking:
        auditing = asyncio.create_task(member.replica.audit())
        await asyncio.sleep(0)
    await auditing
    (first,) = await member.replica.take(1)
    assert (first.notification.data, first.redelivered) == (b"1", True)
    for one in (first, second):
        await one.done()


async def test_what_is_finished_is_finished_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    member = await Member.join(farm, replace(ALERTS, buffer=2), **WATCHFUL)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"1", b"2")
    one, other = await member.take(2)
    with Losing(proxy, scripts.FINISH):
        await one.done()
    await counted(source, 0, 1)
    assert await channel.send(b"3") == S_OK
    with pytest.raises(NotificationFailure):
        await channel.send(b"4")
    await other.done()


async def test_nothing_is_audited_away_while_it_is_finished(farm: Farm, source: Broker) -> None:
    """Redis has it in hand until it hears; nobody else is to be given it meanwhile."""
    member, other = [await Member.join(farm, **QUIET) for _ in range(2)]
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    one = await member.delivery()
    await other.is_idle()
    server = member.replica.server
    asked, gate = server.ask, asyncio.Event()

    async def held_up(make: Any) -> Any:
        if make().script.name == "finish":
            await gate.wait()
        return await asked(make)

    server.ask = held_up  # type: ignore[method-assign]
    finishing = asyncio.create_task(one.done())
    await asyncio.sleep(0)
    await member.replica.audit()
    gate.set()
    await finishing
    assert await other.replica.take(1) == []
    await counted(source, 0, 0)


async def test_what_is_handed_back_is_handed_back_once(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    one, other = [await Member.join(farm, **WATCHFUL) for _ in range(2)]
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    first = await one.delivery()
    with Losing(proxy, scripts.HAND_BACK):
        await first.hand_back()
    again = await other.delivery()
    assert again.times == 2
    await other.replica.audit()
    await counted(source, 0, 1)
    await again.done()


async def test_a_call_that_is_repeated_does_not_hand_back_what_came_meanwhile(
    farm: Farm, source: Broker
) -> None:
    """The same replica took it again before the first call was repeated."""
    member = await Member.join(farm, **QUIET)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    first = await member.delivery()
    server = member.replica.server
    asked = server.ask

    async def repeated(make: Any) -> Any:
        answer = await asked(make)
        if make().script.name != "hand_back":
            return answer
        server.ask = asked  # type: ignore[method-assign]
        (again,) = await member.replica.take(1)
        assert again.times == 2
        member.again = again  # type: ignore[attr-defined]
        return await asked(make)

    server.ask = repeated  # type: ignore[method-assign]
    await first.hand_back()
    await member.replica.audit()
    await counted(source, 0, 1)
    await member.again.done()  # type: ignore[attr-defined]
    await counted(source, 0, 0)


async def test_a_letter_is_written_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    member = await Member.join(farm, **WATCHFUL)
    await send(await source.open_channel(PRINTER, TYPE), b"1", b"1")
    one, other = await member.take(2)
    with Losing(proxy, scripts.DEAD_LETTER):
        letter = await one.bury("it burns")
    second = await other.bury("it burns")
    found = await source.dead_letters.on_server(SERVER)
    assert [each.id for each in found] == [second, letter]
    await counted(source, 0, 0)


async def test_a_dialogs_letter_is_written_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    member = await Member.join(farm, QUESTIONS, **WATCHFUL)
    channel, offer = await ask(farm, source, member)
    with Losing(proxy, scripts.DEAD_LETTER):
        letter = await offer.bury("it burns")
    assert [each.id for each in await source.dead_letters.on_server(SERVER)] == [letter]
    assert await channel.wait_closed(PATIENCE) is not None


@pytest.mark.parametrize("body", [b"page", LARGE], ids=["small", "large"])
async def test_a_letter_is_replayed_once(
    farm: Farm, proxy: Proxy, source: Broker, body: bytes
) -> None:
    """Also where the pool has finished it before the call is repeated."""
    member, letter = await with_a_letter(source, body)
    operator = await farm.broker("bob", **QUIET)
    await operator.server(PRINTER)
    with Losing(proxy, scripts.REPLAY):
        proxy.refuse(True)
        replaying = asyncio.create_task(operator.dead_letters.replay(PRINTER, letter))
        again = await member.delivery()
        assert again.notification.data == body
        await again.done()
        proxy.refuse(False)
        assert (await replaying).id == letter
    assert await member.drain() == [], "it came once"
    with pytest.raises(NoSuchLetter):
        await operator.dead_letters.replay(PRINTER, letter)


@pytest.mark.parametrize("body", [b"page", LARGE], ids=["small", "large"])
async def test_a_letter_is_dropped_once_with_its_body(
    farm: Farm, proxy: Proxy, source: Broker, body: bytes
) -> None:
    _, letter = await with_a_letter(source, body)
    operator = await farm.broker("bob", **QUIET)
    with Losing(proxy, scripts.DROP):
        assert await operator.dead_letters.drop(PRINTER, letter), "this call dropped it"
    assert not await operator.dead_letters.drop(PRINTER, letter)
    assert await source.dead_letters.on_server(SERVER) == []
    assert not [key for key in await farm.keys() if ":body:" in key]


async def with_a_letter(source: Broker, body: bytes) -> tuple[Member, str]:
    """A replica that has no connection through the proxy, and the letter that it put aside."""
    member = await Member.of(source)
    await send(await source.open_channel(PRINTER, TYPE), body)
    return member, await (await member.delivery()).bury("it burns")


async def test_a_dialog_is_adopted_once(farm: Farm, proxy: Proxy, source: Broker) -> None:
    one, other = [await Member.join(farm, QUESTIONS, **WATCHFUL) for _ in range(2)]
    channel, _ = await ask(farm, source, one)
    await one.replica.leave()
    with Losing(proxy, scripts.ADOPT):
        (again,) = await other.replica.take(1)
    assert again.times == 2
    assert isinstance(again, PooledOffer)
    await goes_on(channel, again)


@pytest.mark.parametrize("script", [scripts.DISOWN, scripts.ORPHAN], ids=lambda one: one.name)
async def test_who_leaves_has_left_though_a_reply_was_lost(
    farm: Farm, proxy: Proxy, source: Broker, script: Script
) -> None:
    one, other = [await Member.join(farm, QUESTIONS, **WATCHFUL) for _ in range(2)]
    channel, _ = await ask(farm, source, one)
    asked = await farm.question(source)
    await one.offer()
    with Losing(proxy, script):
        await one.replica.leave()
    taken: dict[str, Any] = {offer.id: offer for offer in await other.take(2)}
    assert taken[asked.id].redelivered
    await goes_on(channel, taken[channel.id])
    await asked.close()
    assert (await facts(source, style=BIDIRECTIONAL)).replicas == (other.replica.server.session,)


# Unknown, and given up ---------------------------------------------------------------------------


async def test_a_replica_that_does_not_know_whether_it_joined_is_none(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    broker = await farm.broker("alice", **IMPATIENT)
    await broker.pools.create(POOL, ALERTS)
    with Losing(proxy, scripts.JOIN):
        proxy.refuse(True)
        with pytest.raises(OutcomeUnknown):
            await Member.of(broker)
    proxy.refuse(False)
    await until(lambda: _serves_nobody(source))
    member = await Member.of(broker)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    assert await member.drain() == [b"page"]


async def _serves_nobody(source: Broker) -> bool:
    return not (await facts(source)).replicas


async def test_what_was_fetched_for_nobody_is_handed_back(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    member, other = await Member.join(farm, **IMPATIENT), await Member.join(farm, **QUIET)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    with Losing(proxy, scripts.FETCH):
        proxy.refuse(True)
        with pytest.raises(OutcomeUnknown):
            await member.replica.take(1)
    proxy.refuse(False)
    again = await other.delivery()
    assert again.redelivered
    await again.done()
    await counted(source, 0, 0)


async def test_a_take_that_was_broken_off_keeps_nothing(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    member, other = await Member.join(farm, **WATCHFUL), await Member.join(farm, **QUIET)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    proxy.drop_replies(1)
    taking = asyncio.create_task(member.replica.take(1))
    await until(lambda: _has_dropped(proxy))
    taking.cancel()
    await asyncio.wait({taking})
    proxy.drop_replies(0)
    again = await other.delivery()
    assert again.redelivered
    await again.done()
    await counted(source, 0, 0)


async def _has_dropped(proxy: Proxy) -> bool:
    return proxy.dropped > 0


@pytest.mark.parametrize("what", ["done", "hand_back", "bury"])
async def test_what_may_not_have_been_settled_goes_to_somebody_or_is_settled(
    farm: Farm, proxy: Proxy, source: Broker, what: str
) -> None:
    """The caller is told that nobody knows; nothing stays in the hands of nobody."""
    member = await Member.join(farm, **IMPATIENT)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    one = await member.delivery()
    proxy.refuse(True)
    proxy.cut()
    with pytest.raises((OutcomeUnknown, RedisUnreachable)):
        await (one.bury("it burns") if what == "bury" else getattr(one, what)())
    assert member.replica.load == 0
    proxy.refuse(False)
    again = await member.delivery()
    assert (again.times, again.redelivered) == (2, True)
    await again.done()
    await counted(source, 0, 0)


async def test_what_is_finished_goes_on_though_nobody_waits_for_it(
    farm: Farm, source: Broker
) -> None:
    member = await Member.join(farm, **WATCHFUL)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    one = await member.delivery()
    finishing = asyncio.create_task(one.done())
    await asyncio.sleep(0)
    finishing.cancel()
    await asyncio.wait({finishing})
    await counted(source, 0, 0)
    assert await member.replica.take(1) == []


async def test_a_dialog_of_whose_adoption_nobody_knows_waits_again(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    one = await Member.join(farm, QUESTIONS, **WATCHFUL)
    channel, _ = await ask(farm, source, one)
    await one.replica.leave()
    other = await Member.join(farm, QUESTIONS, **IMPATIENT)
    with Losing(proxy, scripts.ADOPT):
        proxy.refuse(True)
        with pytest.raises(OutcomeUnknown):
            await other.replica.take(1)
    assert other.replica.load == 0
    proxy.refuse(False)
    again = await other.offer()
    assert again.times == 3
    await goes_on(channel, again)


async def test_who_cannot_leave_in_order_leaves_when_he_can(
    farm: Farm, proxy: Proxy, source: Broker
) -> None:
    member = await Member.join(farm, QUESTIONS, **IMPATIENT)
    channel, _ = await ask(farm, source, member)
    asked = await farm.question(source)
    await member.offer()
    proxy.refuse(True)
    proxy.cut()
    with pytest.raises((OutcomeUnknown, RedisUnreachable)):
        await member.replica.leave()
    proxy.refuse(False)
    other = await Member.join(farm, QUESTIONS, **QUIET)
    taken: dict[str, Any] = {offer.id: offer for offer in await other.take(2)}
    assert taken[asked.id].redelivered
    await goes_on(channel, taken[channel.id])
    await asked.close()

    async def is_done() -> bool:
        return not await pending(farm, other)

    await until(is_done)


async def test_a_process_that_cannot_say_goodbye_is_run_down(
    farm: Farm, proxy: Proxy, redis_server: RedisServer
) -> None:
    """Its broker is closed while Redis is away."""
    options: dict[str, Any] = SPRY | {"namespace": farm.namespace, "user": "alice"}
    async with Broker.connect(redis_server.url, **options) as watching:
        member = await Member.join(farm, QUESTIONS, **SPRY, reply_timeout=0.2)
        channel, offer = await ask(farm, watching, member)
        proxy.refuse(True)
        proxy.cut()
        await member.broker.close()
        assert offer.closing is not None
        proxy.refuse(False)
        other = await Member.of(watching, QUESTIONS)
        await goes_on(channel, await other.offer())
        await other.replica.leave()
        await end_pools(watching)
