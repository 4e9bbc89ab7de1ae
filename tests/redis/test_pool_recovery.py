"""What a replica had in hand when it died, slept or lost Redis is handed out again, and says so.

Nothing that Redis still has is lost, and nothing is handled twice without being marked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel
from broker._end import End
from broker.errors import (
    NoSuchPool,
    NotInHand,
    OutcomeUnknown,
    RedisUnreachable,
    SessionLapsed,
    TympanError,
)
from broker.results import S_OK
from tests.conformance.actors import die
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm, RedisBackend
from tests.redis.pooling import (
    ALERTS,
    LEASE,
    POOL,
    QUESTIONS,
    SPRY,
    Member,
    counted,
    facts,
    keys_of,
    pending,
    plan_of,
    pool,
    process,
    send,
    stopped,
)
from tests.redis.scenes import BRISK, anew, clock, leases_pass, until
from tests.redis.test_failover import paired
from tests.servers import RedisServer

SWEEP = 0.4
"""Leases between two sweeps where somebody serves a pool, at the most."""
SLACK = 5.0
"""Seconds by which a bound may be passed on a loaded machine."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, whose acknowledged writes survive a kill."""
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as running:
        yield running


@pytest.fixture
async def own_farm(server: RedisServer) -> AsyncIterator[Farm]:
    async with Farm(RedisBackend(server)) as made:
        yield made


async def declared_dead(farm: Farm, session: str) -> None:
    """Somebody swept a session."""
    await farm.client.zadd(keys_of(farm).leases, {session: 0})


# Death -------------------------------------------------------------------------------------------


async def test_what_a_killed_process_had_in_hand_is_handed_out_again(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    async with pool(real_farm, ALERTS, **SPRY) as source:
        living = await Member.join(real_farm, **SPRY)
        channel = await source.open_channel(PRINTER, TYPE)
        async with process(real_farm, redis_server.url) as dying:
            bodies = [b"%d" % n for n in range(20)]
            await send(channel, *bodies)
            assert len(await dying.take(20)) == 20
            await leases_pass(real_farm.client, 1, LEASE)
            await living.is_idle()
            await dying.kill()
            began = await clock(real_farm.client)
            again = await living.take(20)
            took = await clock(real_farm.client) - began
        assert [one.notification.data for one in again] == bodies, "in their order"
        assert all(one.redelivered and one.times == 2 for one in again)
        assert took < LEASE * (1 + SWEEP) + SLACK
        assert (await facts(source)).replicas == (living.replica.server.session,)
        for one in again:
            await one.done()
        await counted(source, 0, 0)
        consumers: Any = await real_farm.client.xinfo_consumers(
            keys_of(real_farm).stream(plan_of(living).audiences[0]), plan_of(living).group
        )
        assert {one["name"].decode() for one in consumers} == {
            "~",
            living.replica.server.session,
        }


async def test_who_joins_looks_for_the_dead_at_once_as_often_as_a_replica_must(
    real_farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = 10.0
    monkeypatch.setattr(random, "uniform", lambda least, _: least)
    async with pool(real_farm, ALERTS) as source:
        channel = await source.open_channel(PRINTER, TYPE)
        heir = await real_farm.broker("alice", lease=lease)
        await heir.server(PRINTER)
        dying = await Member.join(real_farm)
        await send(channel, b"1")
        await dying.take(1)
        await die(real_farm, dying.broker)
        await declared_dead(real_farm, dying.replica.server.session)
        living = await Member.of(heir)
        (again,) = await living.take(1, within=0.2 * lease + SLACK)
        await again.done()


@pytest.mark.parametrize("many", [1, 255, 256, 257, 600])
async def test_all_that_the_dead_had_is_moved_however_much_it_is(own_farm: Farm, many: int) -> None:
    async with pool(own_farm, ALERTS) as source:
        channel = await source.open_channel(PRINTER, TYPE)
        dying, living = await Member.join(own_farm), await Member.join(own_farm)
        await asyncio.gather(*(channel.send(b"%d" % n) for n in range(many)))
        first = [one.notification.data for one in await dying.take(many)]
        await die(own_farm, dying.broker)
        await declared_dead(own_farm, dying.replica.server.session)
        await source.run_down(PRINTER)
        again = await living.take(many)
        assert [one.notification.data for one in again] == first
        await asyncio.gather(*(one.done() for one in again))
        assert await pending(own_farm, living) == []


@pytest.mark.slow
async def test_the_cost_of_recovery_does_not_grow_with_what_the_living_hold(
    own_farm: Farm, server: RedisServer
) -> None:
    """100 orphaned entries, alone and among 10,000 that a living replica has in hand."""
    costs: list[dict[str, Any]] = []
    for number, live in enumerate((0, 10_000)):
        name = f"desk{number}"
        async with pool(own_farm, replace(ALERTS, buffer=20_000), name=name) as source:
            channel = await source.open_channel(PRINTER, TYPE)
            living = await Member.join(own_farm, pool=name)
            dying = await Member.join(own_farm, pool=name)
            await in_batches(channel.send(b"page") for _ in range(live))
            held = await living.take(live) if live else []
            await asyncio.gather(*(channel.send(b"page") for _ in range(100)))
            assert len(await dying.take(100)) == 100
            await die(own_farm, dying.broker)
            await declared_dead(own_farm, dying.replica.server.session)
            server.cli("CONFIG", "RESETSTAT")
            assert await source.run_down(PRINTER) == 1
            costs.append(server.cli("INFO", "commandstats"))
            again = await living.take(100)
            assert all(one.redelivered for one in again)
            await in_batches(one.done() for one in [*held, *again])

    def calls(stats: dict[str, Any]) -> dict[str, int]:
        names = ("xpending", "xclaim", "xrange", "zadd", "xgroup|delconsumer")
        return {name: int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in names}

    assert calls(costs[0]) == calls(costs[1])
    assert calls(costs[0])["xclaim"] == 100
    alone, among = (float(stats["cmdstat_evalsha"]["usec"]) for stats in costs)
    assert among < 3 * alone + 2000, "microseconds of Redis"


async def in_batches(work: Any) -> None:
    some: list[Awaitable[Any]] = []
    for one in work:
        some.append(one)
        if len(some) == 500:
            await asyncio.gather(*some)
            some = []
    await asyncio.gather(*some)


async def test_a_replica_that_dies_between_bell_and_fetch_costs_a_resync(
    real_farm: Farm,
) -> None:
    async with pool(real_farm, ALERTS, **SPRY) as source:
        woken, other = [await Member.join(real_farm, **SPRY) for _ in range(2)]
        await woken.is_idle()
        await send(await source.open_channel(PRINTER, TYPE), b"page")
        await die(real_farm, woken.broker)
        assert (await other.delivery()).notification.data == b"page"
        await until(lambda: _are_living(real_farm, 2))


# Sleep -------------------------------------------------------------------------------------------


async def test_a_process_that_slept_past_its_lease_is_refused_and_joins_again(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    async with pool(real_farm, ALERTS, **SPRY) as source:
        channel = await source.open_channel(PRINTER, TYPE)
        async with process(real_farm, redis_server.url) as sleeper:
            await send(channel, b"1")
            (held,) = await sleeper.take(1)
            sleeper.freeze()
            awake = await Member.join(real_farm, **SPRY)
            again = await awake.delivery()
            assert (again.place.entry, again.redelivered) == (held["entry"], True)
            sleeper.tell("done", "0")
            sleeper.thaw()
            refused = await sleeper.said()
            assert refused["error"] in ("SessionLapsed", "NotInHand")
            await awake.replica.leave()
            (mine,) = await sleeper.take(1)
            assert (mine["entry"], mine["times"]) == (held["entry"], 3)
            said = await sleeper.asked("done", "0")
            assert said["error"] == "NotInHand", "it was the delivery before the last"
            assert said["lapses"] == 1
            assert said["session"] != sleeper.session
            assert "error" not in await sleeper.asked("done", "1")
            await counted(source, 0, 0)


async def test_a_process_that_slept_past_its_lease_answers_nothing(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    async with pool(real_farm, QUESTIONS, **SPRY) as source:
        channel = await real_farm.question(source)
        async with process(real_farm, redis_server.url, QUESTIONS) as sleeper:
            await sleeper.take(1)
            sleeper.freeze()
            awake = await Member.join(real_farm, QUESTIONS, **SPRY)
            offer = await awake.offer()
            assert offer.redelivered
            sleeper.tell("respond", "0", "late")
            sleeper.thaw()
            refused = await sleeper.said()
            assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
            await offer.respond(b"awake")
            assert (await channel.response(PATIENCE)).data == b"awake"
            assert not channel._arrived
            await channel.close()


async def test_a_lapse_takes_everything_out_of_hand(real_farm: Farm) -> None:
    async with pool(real_farm, ALERTS, QUESTIONS, **SPRY) as source:
        broker = await real_farm.broker("alice", **SPRY)
        alerts, questions = await Member.of(broker), await Member.of(broker, QUESTIONS)
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"page")
        asked, answered = [await real_farm.question(source) for _ in range(2)]
        held = await alerts.delivery()
        question, carried = await questions.take(2)
        await carried.respond(b"yes")
        finishing = await unfinished(alerts, held)
        session = alerts.replica.server.session

        await declared_dead(real_farm, session)
        for member in (alerts, questions):
            await until(lambda: _has_lapsed(member))  # noqa: B023 (awaited in the same turn)
        with pytest.raises((SessionLapsed, NotInHand)):
            await finishing
        for end in (question, carried):
            closing = await end.wait_closed(PATIENCE)
            assert closing is not None
            assert closing.reason.is_release
        assert set(questions.overs) == {question, carried}
        assert (alerts.replica.lost, questions.replica.lost) == (1, 1)
        assert asked.is_open
        assert answered.is_open

        assert (await alerts.delivery()).redelivered
        again = {one.id: one for one in await questions.take(2)}
        assert alerts.replica.server.session != session
        assert again[asked.id].redelivered
        assert again[answered.id].is_mine
        await answered.close()
        await asked.close()


async def _has_lapsed(member: Member) -> bool:
    return member.lapses == 1 and member.replica.is_joined


async def unfinished(member: Member, held: Any) -> asyncio.Task[None]:
    """A call to finish it that has not been written yet."""
    ask = member.replica.server.ask
    gate = asyncio.Event()

    async def held_up(make: Any) -> Any:
        if make().script.name == "finish":
            await gate.wait()
        return await ask(make)

    member.replica.server.ask = held_up  # type: ignore[method-assign]
    finishing = asyncio.create_task(held.done())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    async def let_go() -> None:
        await until(lambda: _has_lapsed(member))
        gate.set()

    member.letting = asyncio.create_task(let_go())  # type: ignore[attr-defined]
    return finishing


async def test_a_pool_that_was_deleted_while_its_replica_slept_stays_deleted(
    real_farm: Farm,
) -> None:
    async with pool(real_farm, ALERTS, **SPRY) as source:
        member = await Member.join(real_farm, **SPRY)
        await source.pools.delete(POOL, PRINTER)
        member.stirred.clear()
        await declared_dead(real_farm, member.replica.server.session)
        assert isinstance(await asyncio.wait_for(member.end, PATIENCE), NoSuchPool)
        assert await source.pools.on_server(SERVER) == []
        assert await member.replica.take(1) == []
        await declared_dead(real_farm, member.replica.server.session)
        await until(lambda: _has_session_lapsed(member, 2))
        assert await source.pools.on_server(SERVER) == []
        assert member.ends == 1
        await member.replica.leave()
        await until(lambda: _are_living(real_farm, 2))


async def _has_session_lapsed(member: Member, times: int) -> bool:
    return member.replica.server.lapses == times


# Redis loses something ---------------------------------------------------------------------------

Wreck = Callable[[Farm, RedisServer], Awaitable[None]]


async def emptied(_: Farm, server: RedisServer) -> None:
    await asyncio.to_thread(server.cli, "FLUSHALL")


async def groups_destroyed(farm: Farm, _: RedisServer) -> None:
    async for key in farm.client.scan_iter(f"{farm.namespace}:*:stream:*"):
        for group in await farm.client.xinfo_groups(key):
            await farm.client.xgroup_destroy(key, group["name"])


async def scripts_flushed(_: Farm, server: RedisServer) -> None:
    await asyncio.to_thread(server.cli, "SCRIPT", "FLUSH")


async def restarted(_: Farm, server: RedisServer) -> None:
    await asyncio.to_thread(server.restart)


async def killed(_: Farm, server: RedisServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)


async def restarted_empty(_: Farm, server: RedisServer) -> None:
    await asyncio.to_thread(server.kill)
    for name in list(server.data.rglob("*.aof")) + list(server.data.rglob("*.manifest")):
        name.unlink()
    await asyncio.to_thread(server.restart)


async def cut_off(_: Farm, server: RedisServer) -> None:
    for kind in ("normal", "pubsub"):
        await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", kind)


async def joins_forgotten(farm: Farm, _: RedisServer) -> None:
    """As by a failover that lost who joined."""
    async for key in farm.client.scan_iter(f"{farm.namespace}:*:held:*"):
        for one in await farm.client.execute_command("SMEMBERS", key):
            if one.startswith(b"replica:"):
                await farm.client.execute_command("SREM", key, one)


KEEPING = [groups_destroyed, scripts_flushed, restarted, killed, cut_off, joins_forgotten]
LOSING = [emptied, restarted_empty]


class Ledger:
    """What was sent with success, and what was handled how often."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.handled: Counter[bytes] = Counter()
        self.unmarked: Counter[bytes] = Counter()
        """Of these, how often it was not marked as redelivered."""

    async def send(self, channel: Any, body: bytes) -> None:
        """As a source that knows what a failed call means."""
        with contextlib.suppress(OutcomeUnknown, RedisUnreachable, SessionLapsed):
            assert await channel.send(body) == S_OK
            self.sent.append(body)

    async def handle(self, one: Any) -> None:
        body = one.notification.data
        self.handled[body] += 1
        self.unmarked[body] += not one.redelivered
        await asyncio.sleep(0.001)
        with contextlib.suppress(TympanError):
            await one.done()

    async def serve(self, member: Member) -> None:
        while True:
            try:
                await member.serve(4, self.handle)
            except (OutcomeUnknown, RedisUnreachable, SessionLapsed):
                await member.stirred.wait()

    def misses(self) -> set[bytes]:
        return set(self.sent) - set(self.handled)

    def check(self) -> None:
        again = {body for body, many in self.handled.items() if many > 1}
        assert all(self.unmarked[body] <= 1 for body in again), "a second delivery is marked"


@pytest.mark.parametrize("wreck", KEEPING)
async def test_what_redis_still_has_is_handled(
    own_farm: Farm, server: RedisServer, wreck: Wreck
) -> None:
    farm, ledger = own_farm, Ledger()
    async with pool(farm, ALERTS, **SPRY) as source:
        members = [await Member.join(farm, **SPRY) for _ in range(3)]
        serving = [asyncio.create_task(ledger.serve(member)) for member in members]
        channel = await source.open_channel(PRINTER, TYPE)
        for n in range(300):
            await ledger.send(channel, b"%d" % n)
            if n in (100, 200):
                await wreck(farm, server)
                await anew(farm)
        await until(lambda: _is_handled(ledger))
        assert len(ledger.sent) >= 298
        await counted(source, 0, 0)
        await stopped(serving)
        ledger.check()


async def _is_handled(ledger: Ledger) -> bool:
    return not ledger.misses()


@pytest.mark.parametrize("wreck", LOSING)
async def test_after_redis_lost_everything_its_pools_are_served_again(
    own_farm: Farm, server: RedisServer, wreck: Wreck
) -> None:
    """Several, so that one that is made again is not taken for the deletion of another."""
    farm, ledger = own_farm, Ledger()
    async with pool(farm, **SPRY) as source:
        brokers = [await farm.broker("alice", **SPRY) for _ in range(2)]
        members = [
            await Member.of(broker, wish, name)
            for broker in brokers
            for name in ("one", "two", "three")
            for wish in (ALERTS, QUESTIONS)
        ]
        for member in members:
            await member.replica.take(1)
        await wreck(farm, server)
        await anew(farm)
        for member in members:
            await until(lambda: _has_lapsed(member))  # noqa: B023 (awaited in the same turn)
            assert not member.end.done()
        there = await source.pools.on_server(SERVER)
        assert len(there) == 6
        assert all(len(each.replicas) == 2 for each in there)
        channel = await source.open_channel(PRINTER, TYPE)
        serving = [asyncio.create_task(ledger.serve(member)) for member in members]
        await ledger.send(channel, b"page")
        await until(lambda: _is_handled_times(ledger, 3))
        await stopped(serving)


async def _is_handled_times(ledger: Ledger, times: int) -> bool:
    return ledger.handled[b"page"] == times


async def test_a_source_that_outlives_a_loss_knows_the_pools_again(
    own_farm: Farm, server: RedisServer
) -> None:
    farm = own_farm
    async with pool(farm, **SPRY) as source:
        await source.pools.create("gone", ALERTS)
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"1")
        await emptied(farm, server)
        other = await farm.broker("alice", **SPRY)
        await other.pools.create(POOL, ALERTS)
        await until(lambda: _is_over(channel))
        channel = await source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"2") == S_OK
        assert await (await Member.join(farm, **SPRY)).drain() == [b"2"]


async def _is_over(end: End[Any]) -> bool:
    return end.closing is not None


async def test_after_its_group_was_destroyed_all_that_a_pool_may_have_had_is_marked(
    farm: Farm,
) -> None:
    async with pool(farm, ALERTS) as source:
        one, other = await Member.join(farm), await Member.join(farm)
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"0", b"1", b"2", b"3")
        finished, handed_back, held = await one.take(3)
        await finished.done()
        await handed_back.hand_back(60)
        stream = keys_of(farm).stream(plan_of(one).audiences[0])
        await farm.client.xgroup_destroy(stream, plan_of(one).group)

        again = await other.take(3)
        assert [each.notification.data for each in again] == [b"1", b"2", b"3"]
        assert all(each.redelivered for each in again)
        with pytest.raises(NotInHand):
            await held.done()
        await send(channel, b"4")
        (fresh,) = await other.take(1)
        assert not fresh.redelivered
        for each in [*again, fresh]:
            await each.done()
        await counted(source, 0, 0)


async def test_who_finishes_before_the_group_is_there_again_has_finished(farm: Farm) -> None:
    async with pool(farm, replace(ALERTS, buffer=1)) as source:
        member = await Member.join(farm)
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"1")
        held = await member.delivery()
        stream = keys_of(farm).stream(plan_of(member).audiences[0])
        await farm.client.xgroup_destroy(stream, plan_of(member).group)
        await held.done()
        assert await channel.send(b"2") == S_OK, "there is room"
        assert await member.drain() == [b"2"]


async def test_the_first_of_an_earlier_epoch_are_marked(
    own_farm: Farm, server: RedisServer
) -> None:
    """A restart may have forgotten who had them."""
    async with pool(own_farm, ALERTS, **SPRY) as source:
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"before")
        await restarted(own_farm, server)
        await anew(own_farm)
        await send(channel, b"after")
        member = await Member.join(own_farm, **SPRY)
        before, after = await member.take(2)
        assert (before.redelivered, before.times) == (True, 1)
        assert (after.redelivered, after.times) == (False, 1)
        await before.done()
        await after.done()


# Failovers ---------------------------------------------------------------------------------------


async def test_what_a_promoted_replica_had_not_heard_of_is_handled_again_and_marked() -> None:
    async with paired() as (pair, farm), pool(farm, ALERTS, **SPRY) as source:
        one, other = [await Member.join(farm, **SPRY) for _ in range(2)]
        channel = await source.open_channel(PRINTER, TYPE)
        await send(channel, b"1", b"2", b"3", b"4")
        known = await one.delivery()
        await pair.split()
        forgotten = await one.delivery()
        finished = await one.delivery()
        await finished.done()
        await pair.fail_over()

        again = await other.take(3)
        assert [each.notification.data for each in again] == [b"2", b"3", b"4"]
        assert all(each.redelivered for each in again), "Redis forgot who had them"
        await known.done()
        with pytest.raises(NotInHand):
            await forgotten.done()
        for each in again:
            await each.done()
        await counted(source, 0, 0)
        await send(channel, b"5")
        assert b"5" in {each.notification.data for each in await one.take(1)}


@pytest.mark.parametrize("changes", ["none", "another pool"])
async def test_a_pool_that_a_promoted_replica_had_not_heard_of_is_made_again(
    changes: str,
) -> None:
    async with paired() as (pair, farm), pool(farm, **SPRY) as source:
        await source.pools.create("known", ALERTS)
        channel = await source.open_channel(PRINTER, TYPE)
        await pair.split()
        member = await Member.join(farm, **SPRY)
        assert await channel.send(b"1") == S_OK
        held = await member.delivery()
        await pair.fail_over()
        if changes != "none":
            await source.pools.create("another", ALERTS)
        await until(lambda: _is_there(source, POOL))
        assert not member.end.done()
        channel = await source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"2") == S_OK
        assert await (await Member.join(farm, **SPRY, pool="known")).drain() == [b"2"]
        assert b"2" in await member.drain()
        await held.done()


async def test_a_list_that_a_promoted_replica_never_had_is_not_taken_for_its_next() -> None:
    """As many changes, but others: a source that knew the forgotten ones reads the list anew."""
    async with paired() as (pair, farm), pool(farm, **SPRY) as source:
        await source.pools.create("known", ALERTS)
        other = await farm.broker("alice", **SPRY)
        await other.server(PRINTER)
        first = await source.open_channel(PRINTER, TYPE)
        await pair.split()
        await other.pools.create("forgotten", ALERTS)
        await first.send(b"1")
        await pair.fail_over()
        await other.pools.create("instead", ALERTS)
        channel = await source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"2") == S_OK
        member = await Member.join(farm, **SPRY, pool="instead")
        assert await member.drain() == [b"2"]


async def _is_there(source: Broker, name: str) -> bool:
    found = [each for each in await source.pools.on_server(SERVER) if each.pool == name]
    return bool(found and found[0].replicas)


# Churn -------------------------------------------------------------------------------------------


class Churn:
    """Replicas that come and go while a source sends and asks."""

    def __init__(self, farm: Farm, source: Broker) -> None:
        self.farm = farm
        self.source = source
        self.ledger = Ledger()
        self.asked: list[Channel] = []
        self.answered = 0

    async def one_comes_and_goes(self, n: int, channel: Channel) -> None:
        """Some with work in hand, every third by death."""
        broker = await self.farm.broker("alice", **SPRY)
        alerts, questions = await Member.of(broker), await Member.of(broker, QUESTIONS)
        for i in range(3):
            await self.ledger.send(channel, b"%d.%d" % (n, i))
        self.asked.append(await self.farm.question(self.source))
        for one in (await alerts.replica.take(5))[n % 3 :]:
            await self.ledger.handle(one)
        await self.answer_some(questions, n)
        if n % 5 == 0:
            await self.asked.pop(0).close()
        if n % 3 == 0:
            await die(self.farm, broker)
        else:
            await broker.close()
            self.farm.brokers.remove(broker)

    async def answer_some(self, questions: Member, n: int) -> None:
        offers: list[Any] = await questions.replica.take(3)
        for offer in offers:
            if n % 2 and not offer.is_mine:
                await offer.respond(b"yes")
                self.answered += 1

    async def end(self) -> None:
        """What is left is handled and closed, and the dead are buried."""
        alerts = await Member.join(self.farm, **SPRY)
        questions = await Member.join(self.farm, QUESTIONS, **SPRY)
        serving = asyncio.create_task(self.ledger.serve(alerts))
        await until(lambda: _is_handled(self.ledger))
        for channel in self.asked:
            await channel.close()
        await until(lambda: _are_living(self.farm, 3))
        await counted(self.source, 0, 0)
        await counted(self.source, 0, 0, BIDIRECTIONAL)
        await stopped([serving])
        for member in (alerts, questions):
            await until(partial(self.is_clear, member))
            await self.has_one_replica(member)
            await member.broker.close()

    async def is_clear(self, member: Member) -> bool:
        """It looks through what was handed back and is over since, some at a time."""
        await member.is_idle()
        keys, id_ = keys_of(self.farm), member.replica.id
        back = [keys.returned(id_, audience) for audience in plan_of(member).audiences]
        return await self.farm.client.exists(*back) == 0

    async def has_one_replica(self, member: Member) -> None:
        """And no trace of those that were there before."""
        keys, plan, client = keys_of(self.farm), plan_of(member), self.farm.client
        assert await client.zcard(keys.idle(member.replica.id)) == 1
        for audience in plan.audiences:
            if await client.exists(keys.stream(audience)):
                consumers: Any = await client.xinfo_consumers(keys.stream(audience), plan.group)
                names = {one["name"].decode() for one in consumers}
                assert names <= {"~", member.replica.server.session}


@pytest.mark.slow
async def test_a_day_of_churn_in_small_leaves_nothing_behind(real_farm: Farm) -> None:
    async with pool(real_farm, ALERTS, QUESTIONS, **BRISK) as source:
        churn = Churn(real_farm, source)
        channel = await source.open_channel(PRINTER, TYPE)
        before = set(await real_farm.keys())
        for n in range(200):
            await churn.one_comes_and_goes(n, channel)
        assert churn.answered > 10
        await churn.end()
        churn.ledger.check()
        mine = keys_of(real_farm).inbox((await source.server(PRINTER)).session)
        left = [
            key
            for key in await real_farm.keys()
            if key not in {*before, mine} and await real_farm.client.ttl(key) < 0
        ]
        assert left == []


async def _are_living(farm: Farm, many: int) -> bool:
    return int(await farm.client.zcard(keys_of(farm).leases)) == many


async def test_ten_deaths_under_load_lose_nothing(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    """Each by force, with entries in hand; a new one comes for each."""
    farm, ledger = real_farm, Ledger()
    async with pool(farm, ALERTS, **SPRY) as source, contextlib.AsyncExitStack() as stack:
        channel = await source.open_channel(PRINTER, TYPE)
        steady = await Member.join(farm, **SPRY)
        serving = asyncio.create_task(ledger.serve(steady))
        held: set[str] = set()
        for n in range(10):
            dying = await stack.enter_async_context(process(farm, redis_server.url))
            sending = asyncio.create_task(_send_many(ledger, channel, n))
            held |= {one["entry"] for one in await dying.take(3)}
            await dying.kill()
            await sending
        began = time.monotonic()
        await until(lambda: _is_handled(ledger))
        assert time.monotonic() - began < LEASE * (1 + SWEEP) + 2 * SLACK
        await stopped([serving])
        ledger.check()
        again = [body for body in ledger.handled if not ledger.unmarked[body]]
        assert len(again) == len(held) >= 10, "each that somebody died with, and no other"


async def _send_many(ledger: Ledger, channel: Any, n: int) -> None:
    for i in range(40):
        await ledger.send(channel, b"%d.%d" % (n, i))
        await asyncio.sleep(0)
