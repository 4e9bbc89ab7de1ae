"""A pool collects while nobody serves it, and hands each thing to one of those who do.

The core cases run in memory, too; what processes and connections do, on a real server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker
from broker._scripts import Call
from broker.errors import (
    AccessDenied,
    BodyGone,
    InvalidArgument,
    MaxRegistrationCountExceeded,
    NoSuchPool,
    NotificationFailure,
    NotInHand,
    QueueFull,
)
from broker.results import NO_LISTENERS, NOTIFICATION_LOST, S_OK
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm, OutOfPaper
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
    plan_of,
    pool,
    process,
    send,
    stopped,
)
from tests.redis.scenes import QUIET, heard, leases_pass, until
from tests.servers import RedisServer

LARGE = b"x" * 30_000


@pytest.fixture
async def source(farm: Farm) -> AsyncIterator[Broker]:
    """Whose pools are deleted at the end: then nothing may be left."""
    async with pool(farm) as made:
        yield made


# Collecting --------------------------------------------------------------------------------------


async def test_a_pool_collects_while_nobody_serves_it(farm: Farm, source: Broker) -> None:
    assert await source.pools.create(POOL, ALERTS)
    assert not await source.pools.create(POOL, ALERTS), "it is there"
    channel = await source.open_channel(PRINTER, TYPE)
    bodies = [b"%d" % n for n in range(5)]
    assert [await channel.send(body) for body in bodies] == [S_OK] * 5
    await counted(source, 5, 0)

    first = await Member.join(farm)
    assert [one.notification.data for one in await first.take(2)] == bodies[:2]
    await counted(source, 3, 2)
    assert await first.drain() == bodies[2:]
    await counted(source, 0, 2)
    assert (await facts(source)).replicas == (first.replica.server.session,)


async def test_what_was_sent_before_the_pool_is_not_the_pools(farm: Farm, source: Broker) -> None:
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(b"before") == NO_LISTENERS
    await source.pools.create(POOL, ALERTS)
    await channel.send(b"after")
    assert await (await Member.join(farm)).drain() == [b"after"]


async def test_a_full_pool_is_told_of_as_a_full_listener_is(farm: Farm, source: Broker) -> None:
    """Its buffer holds what is not finished, in hand or not."""
    await source.pools.create(POOL, replace(ALERTS, buffer=2))
    channel = await source.open_channel(PRINTER, TYPE)
    member = await Member.join(farm, replace(ALERTS, buffer=2))
    assert [await channel.send(body) for body in (b"1", b"2")] == [S_OK, S_OK]
    one, _ = await member.take(2)
    with pytest.raises(NotificationFailure):
        await channel.send(b"3")
    with pytest.raises(QueueFull):
        await channel.send(b"4", lossless=True, timeout=0)
    await source.pools.create("beside", ALERTS)
    assert await channel.send(b"5") == NOTIFICATION_LOST, "the other one has room"
    assert (await facts(source)).denied == 2, "a lossless send was not sent"
    assert (await facts(source, "beside")).denied == 0

    await one.hand_back()
    assert await channel.send(b"6") == NOTIFICATION_LOST, "it is not finished"
    (one,) = await member.take(1)
    await one.done()
    assert await channel.send(b"7") == S_OK
    assert (await facts(source)).denied == 3


async def test_a_lossless_send_waits_for_a_pool(farm: Farm, source: Broker) -> None:
    await source.pools.create(POOL, replace(ALERTS, buffer=1))
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(b"1")
    member = await Member.join(farm)
    first = await member.delivery()
    sending = asyncio.create_task(channel.send(b"2", lossless=True))
    done, _ = await asyncio.wait({sending}, timeout=0.05)
    assert not done
    await first.done()
    assert await asyncio.wait_for(sending, PATIENCE) == S_OK
    assert (await member.delivery()).notification.data == b"2"


async def test_each_pool_gets_its_copy(farm: Farm, source: Broker) -> None:
    names = ("one", "two", "three")
    for name in names:
        await source.pools.create(name, ALERTS)
    listener = await source.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"1", b"2")
    for name in names:
        member = await Member.join(farm, pool=name)
        assert await member.drain() == [b"1", b"2"]
    assert [await heard(listener), await heard(listener)] == [b"1", b"2"]
    assert listener.unread == 0


async def test_a_pool_beside_listeners_counts_as_one_of_them(farm: Farm, source: Broker) -> None:
    await source.pools.create(POOL, ALERTS)
    listener = await source.register(PRINTER, TYPE, buffer=1)
    channel = await source.open_channel(PRINTER, TYPE)
    assert [await channel.send(body) for body in (b"1", b"2")] == [S_OK, NOTIFICATION_LOST]
    assert await heard(listener) == b"1"
    assert await (await Member.join(farm)).drain() == [b"1", b"2"]
    await listener.unregister()
    assert await channel.send(b"3") == S_OK


# Who is heard ------------------------------------------------------------------------------------


async def test_a_pool_hears_what_a_listener_for_the_same_would(farm: Farm) -> None:
    admin = await farm.administrator("alice", PRINTER, SERVER, OTHER_PRINTER, **QUIET)
    wishes = {
        "own": ALERTS,
        "bobs": replace(ALERTS, user="bob"),
        "everybodys": replace(ALERTS, user_filter=ALL_USERS),
        "servers": replace(ALERTS, name=SERVER),
        "printers": replace(ALERTS, name=SERVER, printers=True),
        "all": replace(ALERTS, name=SERVER, printers=True, user_filter=ALL_USERS),
    }
    for name, wish in wishes.items():
        await admin.pools.create(name, wish)
    targets: dict[bytes, dict[str, Any]] = {
        b"to alice": {},
        b"to bob": {"user": "bob"},
        b"to all": {"user_filter": ALL_USERS},
    }
    for body, options in targets.items():
        for name in (PRINTER, OTHER_PRINTER, SERVER):
            channel = await admin.open_channel(name, TYPE, **options)
            await channel.send(body + b" " + name.encode())
    found = {}
    for name, wish in wishes.items():
        member = await Member.join(farm, wish, name)
        found[name] = set(await member.drain())
        await member.replica.leave()

    def said(*whom: str, at: tuple[str, ...]) -> set[bytes]:
        return {f"to {user} {name}".encode() for user in whom for name in at}

    assert found == {
        "own": said("alice", "all", at=(PRINTER,)),
        "bobs": said("bob", "all", at=(PRINTER,)),
        "everybodys": said("alice", "bob", "all", at=(PRINTER,)),
        "servers": said("alice", "all", at=(SERVER,)),
        "printers": said("alice", "all", at=(PRINTER, OTHER_PRINTER, SERVER)),
        "all": said("alice", "bob", "all", at=(PRINTER, OTHER_PRINTER, SERVER)),
    }
    await end_pools(admin)


async def test_a_pool_for_all_users_stands_on_the_grant(farm: Farm, source: Broker) -> None:
    with pytest.raises(AccessDenied):
        await source.pools.create(POOL, replace(ALERTS, user_filter=ALL_USERS))
    with pytest.raises(AccessDenied):
        await Member.of(source, replace(QUESTIONS, user_filter=ALL_USERS))
    assert await source.pools.on_server(SERVER) == []
    assert not (await source.server(PRINTER)).replicas
    await source.grant(PRINTER, "alice", "administer")
    member = await Member.join(farm, replace(QUESTIONS, user_filter=ALL_USERS))
    channel = await farm.question(source, user="bob")
    offer = await member.offer()
    await offer.respond(b"yes")
    assert (await channel.response(PATIENCE)).data == b"yes"
    await channel.close()


async def test_registrations_of_pools_are_counted_among_all(farm: Farm, source: Broker) -> None:
    tight = await farm.broker("alice", max_registrations=2, **QUIET)
    await tight.pools.create("one", ALERTS)
    listener = await tight.register(PRINTER, TYPE)
    with pytest.raises(MaxRegistrationCountExceeded):
        await tight.pools.create("two", ALERTS)
    with pytest.raises(MaxRegistrationCountExceeded):
        await Member.of(tight, QUESTIONS)
    assert not (await tight.server(PRINTER)).replicas
    await tight.pools.create("two", replace(ALERTS, name=OTHER_PRINTER))
    await tight.pools.delete("one", PRINTER)
    assert await tight.pools.create("two", ALERTS)
    await listener.unregister()
    assert len(await source.pools.on_server(SERVER)) == 2


@pytest.mark.parametrize("buffer", [0, -1, 1_000_001, True, 2.5])
async def test_a_buffer_is_a_number_of_notifications(source: Broker, buffer: Any) -> None:
    with pytest.raises(InvalidArgument):
        await source.pools.create(POOL, replace(ALERTS, buffer=buffer))
    assert await source.pools.on_server(SERVER) == []


async def test_a_process_serves_a_pool_once(source: Broker) -> None:
    joining = [asyncio.create_task(Member.of(source)) for _ in range(2)]
    await asyncio.wait(joining)
    refused = [task.exception() for task in joining if task.exception() is not None]
    assert [type(error) for error in refused] == [InvalidArgument]
    (member,) = [task.result() for task in joining if task.exception() is None]
    assert member.replica.is_joined
    await member.replica.leave()
    again = await Member.of(source)
    await send(await source.open_channel(PRINTER, TYPE), b"here")
    assert (await again.delivery()).notification.data == b"here"


# Sources that know an older list -----------------------------------------------------------------


async def test_a_source_finds_a_pool_that_was_made_later(farm: Farm, source: Broker) -> None:
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(b"0") == NO_LISTENERS
    other = await farm.broker("alice", **QUIET)
    await other.pools.create("one", ALERTS)
    assert await channel.send(b"1") == S_OK
    await other.pools.create("two", ALERTS)
    assert await channel.send(b"2") == S_OK
    await other.pools.delete("one", PRINTER)
    assert await channel.send(b"3") == S_OK
    await other.pools.delete("two", PRINTER)
    assert await channel.send(b"4") == NO_LISTENERS
    await other.pools.create("one", ALERTS)
    assert await channel.send(b"5") == S_OK
    assert await (await Member.join(farm, pool="one")).drain() == [b"5"]


async def test_sends_meet_pools_that_come_and_go(farm: Farm, source: Broker) -> None:
    """Whatever a send says, it is true: what it counted is there."""
    other = await farm.broker("alice", **QUIET)
    channels = [await source.open_channel(PRINTER, TYPE) for _ in range(4)]

    async def come_and_go() -> None:
        for _ in range(10):
            for name in ("one", "two"):
                await other.pools.create(name, ALERTS)
            await other.pools.delete("one", PRINTER)
            await other.pools.delete("two", PRINTER)

    coming = asyncio.create_task(come_and_go())
    said: set[Any] = set()
    while not coming.done():
        said |= set(await asyncio.gather(*(channel.send(b"page") for channel in channels)))
    await coming
    assert said <= {S_OK, NO_LISTENERS}
    await other.pools.create(POOL, ALERTS)
    assert [await channel.send(b"last") for channel in channels] == [S_OK] * 4
    assert await (await Member.join(farm)).drain() == [b"last"] * 4


async def test_another_history_of_redis_has_other_lists(farm: Farm, source: Broker) -> None:
    """As many changes do not make the same list."""
    channel = await source.open_channel(PRINTER, TYPE)
    await source.pools.create("one", ALERTS)
    assert await channel.send(b"1") == S_OK
    await farm.client.delete(*await farm.keys())
    other = await farm.broker("alice", **QUIET)
    await other.pools.create("two", ALERTS)
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(b"2") == S_OK
    assert await (await Member.join(farm, pool="two")).drain() == [b"2"]


# Sharing -----------------------------------------------------------------------------------------


async def test_each_notification_goes_to_one_replica(farm: Farm, source: Broker) -> None:
    members = [await Member.join(farm) for _ in range(4)]
    channels = [await source.open_channel(PRINTER, TYPE) for _ in range(5)]
    found: list[bytes | None] = []
    all_found = asyncio.Event()

    async def handle(one: Any) -> None:
        assert not one.redelivered
        found.append(one.notification.data)
        await one.done()
        if len(found) == 100:
            all_found.set()

    serving = [asyncio.create_task(member.serve(3, handle)) for member in members]
    bodies = {f"{i}.{n}".encode() for i in range(5) for n in range(20)}
    for n in range(20):
        await asyncio.gather(
            *(channel.send(f"{i}.{n}".encode()) for i, channel in enumerate(channels))
        )
    await asyncio.wait_for(all_found.wait(), PATIENCE)
    await counted(source, 0, 0)
    await stopped(serving)
    assert len(found) == 100
    assert set(found) == bodies


async def test_a_full_replica_takes_nothing_and_is_not_woken(farm: Farm, source: Broker) -> None:
    full, free = await Member.join(farm), await Member.join(farm)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"1")
    held = await full.delivery()
    assert await full.replica.take(0) == []
    full.stirred.clear()
    await free.is_idle()
    await send(channel, b"2")
    assert (await free.delivery()).notification.data == b"2"
    assert not full.stirred.is_set()
    await held.done()


async def test_of_the_idle_the_one_with_least_in_hand_is_woken(farm: Farm, source: Broker) -> None:
    channel = await source.open_channel(PRINTER, TYPE)
    busy, idle = await Member.join(farm), await Member.join(farm)
    await send(channel, b"1")
    await busy.take(1)
    for member in (busy, idle):
        await member.is_idle()
    await send(channel, b"2")
    assert (await idle.delivery()).notification.data == b"2"
    assert not busy.stirred.is_set()
    await send(channel, b"3")
    assert (await busy.delivery()).notification.data == b"3", "the other is not idle any more"


async def test_a_dead_idle_replica_costs_nothing(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    """Nobody hears its bell, so the next one's is rung in the same step."""
    async with pool(real_farm, ALERTS) as source:
        living = await Member.join(real_farm, lease=60.0)
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"1")
        await living.take(1)
        async with process(real_farm, redis_server.url, lease=60.0) as dying:
            dying.tell("take", "1")
            await living.is_idle()
            idle = keys_of(real_farm).idle(living.replica.id)

            async def are_both_idle() -> bool:
                return bool(await real_farm.client.zcard(idle) == 2)

            await until(are_both_idle)
            first: Any = await real_farm.client.zrange(idle, 0, 0)
            assert first[0].decode().endswith(dying.session), "it would be the one to wake"
            await dying.kill()
        inbox = keys_of(real_farm).inbox(dying.session)

        async def is_deaf() -> bool:
            return bool((await real_farm.client.pubsub_numsub(inbox))[0][1] == 0)

        await until(is_deaf)
        await send(channel, b"2")
        assert (await living.delivery()).notification.data == b"2"
        await real_farm.client.zadd(
            keys_of(real_farm).leases, {dying.session: 1}
        )  # its lease is long; this test does not wait for it
        await real_farm.client.hset(keys_of(real_farm).meta, "grace", 1)
        await leases_pass(real_farm.client, 1, 0.01)
        await source.run_down(PRINTER)


async def test_what_is_handed_back_goes_to_another(farm: Farm, source: Broker) -> None:
    one, other = await Member.join(farm), await Member.join(farm)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"page")
    first = await one.delivery()
    assert (first.times, first.redelivered) == (1, False)
    await other.is_idle()
    await first.hand_back()
    again = await other.delivery()
    assert (again.notification.data, again.times, again.redelivered) == (b"page", 2, True)
    assert again.place.entry == first.place.entry
    with pytest.raises(NotInHand):
        await first.done()
    with pytest.raises(NotInHand):
        await first.hand_back()
    with pytest.raises(NotInHand):
        await first.bury("it burns")
    assert [(holder, times) for _, holder, times in await pending(farm, one)] == [
        (other.replica.server.session, 2)
    ]
    await again.done()
    await counted(source, 0, 0)


async def test_a_delivery_that_was_handed_back_is_not_the_next_one_to_the_same(
    farm: Farm, source: Broker
) -> None:
    member = await Member.join(farm)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    first = await member.delivery()
    await first.hand_back()
    second = await member.delivery()
    assert second.times == 2
    with pytest.raises(NotInHand):
        await first.done()
    await first.hand_back()
    await member.replica.audit()
    await counted(source, 0, 1)
    assert await member.replica.take(1) == []
    await second.done()
    await counted(source, 0, 0)


async def test_what_is_handed_back_for_later_waits(farm: Farm, source: Broker) -> None:
    """Nobody asks for it meanwhile; then whoever is idle gets it."""
    one, other = await Member.join(farm), await Member.join(farm)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    first = await one.delivery()
    await other.is_idle()
    began = asyncio.get_running_loop().time()
    await first.hand_back(0.3)
    await counted(source, 1, 0)
    again = await other.delivery()
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert again.times == 2
    await again.hand_back(0.1)
    assert (await one.delivery()).times == 3, "its own timer tells it, too"


async def test_how_often_it_was_delivered_is_counted_by_redis(farm: Farm, source: Broker) -> None:
    member = await Member.join(farm)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    for times in range(1, 6):
        one = await member.delivery()
        assert one.times == times
        await one.hand_back()


async def test_without_a_fault_nothing_is_handled_twice_however_often_is_looked(
    farm: Farm, source: Broker
) -> None:
    """The audit compares what Redis says with what is here, while both change."""
    members = [await Member.join(farm, resync=0.01) for _ in range(2)]
    found: list[bytes | None] = []

    async def handle(one: Any) -> None:
        await asyncio.sleep(0.001)
        assert not one.redelivered
        if len(found) % 7 == 0:
            await asyncio.sleep(0.01)
        found.append(one.notification.data)
        await one.done()

    async def serve(member: Member) -> None:
        await asyncio.gather(*(member.serve(2, handle) for _ in range(4)))

    serving = [asyncio.create_task(serve(member)) for member in members]
    channels = [await source.open_channel(PRINTER, TYPE) for _ in range(10)]
    for n in range(40):
        await asyncio.gather(*(channel.send(b"%d" % n) for channel in channels))
        for task in serving:
            assert not task.done(), task.exception()
    await counted(source, 0, 0)
    await stopped(serving)
    assert len(found) == 400


async def test_many_are_finished_together(
    farm: Farm, source: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await Member.join(farm)
    channel = await source.open_channel(PRINTER, TYPE)
    await asyncio.gather(*(channel.send(b"%d" % n) for n in range(600)))
    taken = await member.take(600)
    asked: list[str] = []
    server = member.replica.server
    ask = server.ask

    def noted(make: Callable[[], Call]) -> Awaitable[list[Any]]:
        asked.append(make().script.name)
        return ask(make)

    monkeypatch.setattr(server, "ask", noted)
    await asyncio.gather(*(one.done() for one in taken))
    assert asked == ["finish"] * 3, "in batches of 256"
    assert member.replica.load == 0
    await counted(source, 0, 0)


async def test_finishing_again_changes_nothing(farm: Farm, source: Broker) -> None:
    await source.pools.create(POOL, replace(ALERTS, buffer=2))
    member = await Member.join(farm)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"1", b"2")
    one, _ = await member.take(2)
    await one.done()
    await one.done()
    assert await channel.send(b"3") == S_OK
    with pytest.raises(NotificationFailure):
        await channel.send(b"4")
    await one.done()
    with pytest.raises(NotificationFailure):
        await channel.send(b"5")


async def test_a_question_goes_to_one_replica_and_stays_open_for_others(
    farm: Farm, source: Broker
) -> None:
    members = [await Member.join(farm, QUESTIONS) for _ in range(3)]
    listener = await source.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    taken: list[Any] = [one for member in members for one in await member.replica.take(5)]
    assert len(taken) == 1
    assert taken[0].id == channel.id
    assert (await farm.offered(listener)).id == channel.id
    await counted(source, 0, 1, BIDIRECTIONAL)
    await taken[0].respond(b"yes")
    assert (await channel.response(PATIENCE)).registration == members[0].replica.id
    await counted(source, 0, 1, BIDIRECTIONAL)
    await channel.close()
    await counted(source, 0, 0, BIDIRECTIONAL)
    assert await pending(farm, members[0]) == []


async def test_a_bidirectional_pool_finds_the_questions_that_are_open(
    farm: Farm, source: Broker
) -> None:
    early = await farm.question(source, b"early")
    await source.pools.create(POOL, QUESTIONS)
    late = await farm.question(source, b"late")
    await counted(source, 2, 0, BIDIRECTIONAL)
    member = await Member.join(farm, QUESTIONS)
    assert [one.notification.data for one in await member.take(2)] == [b"early", b"late"]
    await early.close()
    await late.close()


# Leaving, and the end ----------------------------------------------------------------------------


async def test_who_leaves_hands_back_what_he_has(farm: Farm, source: Broker) -> None:
    leaving, staying = await Member.join(farm), await Member.join(farm)
    await send(await source.open_channel(PRINTER, TYPE), b"1", b"2", b"3")
    taken = await leaving.take(2)
    await taken[0].done()
    await staying.take(1)
    await leaving.replica.leave()
    assert not leaving.replica.is_joined
    assert leaving.replica.load == 0
    (again,) = await staying.take(1)
    assert (again.notification.data, again.redelivered) == (b"2", True)
    with pytest.raises(NotInHand):
        await taken[1].done()
    assert (await facts(source)).replicas == (staying.replica.server.session,)
    await leaving.replica.leave()


async def test_who_leaves_while_he_takes_keeps_nothing(farm: Farm, source: Broker) -> None:
    await source.pools.create(POOL, ALERTS)
    channel = await source.open_channel(PRINTER, TYPE)
    for _ in range(10):
        await send(channel, b"1", b"2")
        member = await Member.join(farm)
        taking = asyncio.create_task(member.replica.take(2))
        await asyncio.sleep(0)
        await member.replica.leave()
        await taking
        session = member.replica.server.session
        assert not await farm.client.exists(keys_of(farm).held(session))
        await counted(source, 2, 0)
        last = await Member.join(farm)
        assert await last.drain() == [b"1", b"2"]
        await last.replica.leave()


async def test_who_leaves_waits_for_what_he_takes(farm: Farm, source: Broker) -> None:
    """It may be on its way to Redis; there it comes in hand, and is handed back."""
    member = await Member.join(farm)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    server = member.replica.server
    ask, gate = server.ask, asyncio.Event()

    async def held_up(make: Any) -> Any:
        if make().script.name == "fetch":
            await gate.wait()
        return await ask(make)

    server.ask = held_up  # type: ignore[method-assign]
    taking = asyncio.create_task(member.replica.take(1))
    await asyncio.sleep(0)
    leaving = asyncio.create_task(member.replica.leave())
    done, _ = await asyncio.wait({leaving}, timeout=0.05)
    assert not done
    gate.set()
    await leaving
    assert await taking == []
    assert not await farm.client.exists(keys_of(farm).held(server.session))
    await counted(source, 1, 0)


async def test_a_broker_that_is_closed_leaves_its_pools_in_order(
    farm: Farm, source: Broker
) -> None:
    broker = await farm.broker("alice", **QUIET)
    alerts, questions = await Member.of(broker), await Member.of(broker, QUESTIONS)
    await send(await source.open_channel(PRINTER, TYPE), b"page")
    open_, answered = [await farm.question(source) for _ in range(2)]
    await alerts.delivery()
    in_hand, carried = await questions.take(2)
    await carried.respond(b"yes")
    await broker.close()
    assert in_hand.closing is not None
    assert carried.closing is not None
    assert answered.is_open, "its dialog waits"
    await counted(source, 1, 0)
    await counted(source, 2, 0, BIDIRECTIONAL)
    leases = keys_of(farm).leases
    assert await farm.client.zcard(leases) == 1, "only the source's session is left"
    await open_.close()
    await answered.close()


async def test_a_pool_ends_by_hand(farm: Farm, source: Broker) -> None:
    member = await Member.join(farm)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"1", b"2")
    held = await member.delivery()
    (ended,) = await source.pools.delete(POOL, PRINTER)
    assert (ended.waiting, ended.in_hand) == (1, 1)
    assert await source.pools.delete(POOL, PRINTER) == []
    assert await channel.send(b"3") == NO_LISTENERS
    with pytest.raises(NoSuchPool):
        await member.replica.take(1)
    assert isinstance(await member.end, NoSuchPool)
    assert await member.replica.take(1) == []
    await held.done()
    await member.replica.leave()
    session = member.replica.server.session
    assert not await farm.client.exists(keys_of(farm).held(session))


async def test_an_idle_replica_is_told_that_its_pool_ended(farm: Farm, source: Broker) -> None:
    members = [await Member.join(farm) for _ in range(2)]
    for member in members:
        await member.is_idle()
    await source.pools.delete(POOL, PRINTER)
    for member in members:
        await asyncio.wait_for(member.stirred.wait(), PATIENCE)
        with pytest.raises(NoSuchPool):
            await member.replica.take(1)


async def test_a_pool_that_was_deleted_may_be_made_again(farm: Farm, source: Broker) -> None:
    channel = await source.open_channel(PRINTER, TYPE)
    for n in range(3):
        await source.pools.create(POOL, ALERTS)
        await send(channel, b"%d" % n, b"dropped")
        member = await Member.join(farm)
        assert (await member.delivery()).notification.data == b"%d" % n
        await source.pools.delete(POOL, PRINTER)
        await member.replica.leave()


# Bodies that are kept apart ----------------------------------------------------------------------


async def ttl(farm: Farm) -> dict[str, int]:
    """Seconds that each body stays."""
    bodies = [key for key in await farm.keys() if ":body:" in key]
    return {key: await farm.client.ttl(key) for key in bodies}


async def test_large_bodies_wait_for_a_pool(farm: Farm) -> None:
    kept: dict[str, Any] = {"keep_body": 60.0, "keep_pooled": 1000.0}
    async with pool(farm, ALERTS, **kept) as source:
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, LARGE, b"small")
        assert [seconds > 900 for seconds in (await ttl(farm)).values()] == [True]
        member = await Member.join(farm)
        large, small = await member.take(2)
        assert (large.notification.data, small.notification.data) == (LARGE, b"small")
        await large.hand_back()
        (large,) = await member.take(1)
        assert large.notification.data == LARGE
        await large.done()

        async def is_gone() -> bool:
            return not await ttl(farm)

        await until(is_gone)


async def test_a_listener_beside_it_does_not_end_a_pools_body(real_farm: Farm) -> None:
    kept: dict[str, Any] = {"keep_body": 60.0, "keep_pooled": 1000.0}
    async with pool(real_farm, ALERTS, **kept) as source:
        await source.pools.create("other", ALERTS)
        listening = await real_farm.broker("alice", **SPRY)
        listener = await listening.register(PRINTER, TYPE)
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, LARGE, b"small")
        assert [await heard(listener), await heard(listener)] == [LARGE, b"small"]
        stream = keys_of(real_farm).stream(listener.plan.audiences[0])

        async def is_trimmed() -> bool:
            return not await real_farm.client.xlen(stream)

        await until(is_trimmed)
        assert [seconds > 900 for seconds in (await ttl(real_farm)).values()] == [True]
        for name in (POOL, "other"):
            member = await Member.join(real_farm, pool=name)
            assert await member.drain() == [LARGE, b"small"]
        assert [seconds > 900 for seconds in (await ttl(real_farm)).values()] == [True]


async def test_who_finishes_too_late_takes_no_letter_its_body(farm: Farm, source: Broker) -> None:
    one, other = [await Member.join(farm) for _ in range(2)]
    await send(await source.open_channel(PRINTER, TYPE), LARGE)
    late = await one.delivery()
    await late.hand_back()
    letter = await (await other.delivery()).bury("it burns")
    await late.done()
    await one.replica.leave()
    assert (await source.dead_letters.get(PRINTER, letter)).data == LARGE


async def test_a_body_that_is_gone_is_the_fault_of_its_notification_alone(
    farm: Farm, source: Broker
) -> None:
    member = await Member.join(farm, replace(ALERTS, type=OutOfPaper))
    await send(await source.open_channel(PRINTER, TYPE), LARGE, LARGE, b"small")
    stream = keys_of(farm).stream(plan_of(member).audiences[0])
    found: Any = await farm.client.xrange(stream, count=2)
    gone, foreign = (fields[b"ref"].decode() for _, fields in found)
    await farm.client.delete(gone, foreign)
    await farm.client.lpush(foreign, "somebody else's")
    taken = await member.take(3)
    assert [one.notification.data for one in taken] == [None, None, b"small"]
    with pytest.raises(BodyGone):
        _ = taken[0].payload
    letter = await taken[0].bury("its body is gone")
    assert (await source.dead_letters.get(PRINTER, letter)).data is None
    await taken[1].done()
    await taken[2].done()
    await counted(source, 0, 0)
    await farm.client.delete(foreign)
