"""Pools on a Redis Cluster: each print server's lives on one node, and may move while it works.

Nothing is looked for by the clock: who waits for work is woken by a bell, before a move and after.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel
from broker._keys import LAYOUT
from broker.results import S_OK
from tests.cluster import RedisCluster
from tests.farm import PATIENCE, PRINTER, PRINTER_OF_OTHER_SERVER, TYPE, Farm
from tests.redis.pooling import ALERTS, POOL, QUESTIONS, Member, counted, send, stopped
from tests.redis.scenes import QUIET, until
from tests.redis.test_cluster import AT_ONCE, cluster_of, farm_on, keys_of, other_than

ELSEWHERE = replace(ALERTS, name=PRINTER_OF_OTHER_SERVER)


@pytest.fixture
async def farm(redis_cluster: RedisCluster) -> AsyncIterator[Farm]:
    async with farm_on(redis_cluster) as made:
        yield made


@pytest.fixture
async def source(farm: Farm) -> AsyncIterator[Broker]:
    broker = await farm.broker("alice", **QUIET)
    yield broker
    for name in (PRINTER, PRINTER_OF_OTHER_SERVER):
        for each in await broker.pools.on_server(name):
            await broker.pools.delete(each.pool, name)


class Work:
    """A source that sends and asks, and members who handle and answer, all the time."""

    def __init__(self, farm: Farm, source: Broker) -> None:
        self.farm = farm
        self.source = source
        self.alerts: Channel
        self.handled: list[tuple[bytes, bool]] = []
        self.sent: list[bytes] = []
        self.serving: list[asyncio.Task[None]] = []

    @classmethod
    async def begin(cls, farm: Farm, source: Broker) -> Work:
        work = cls(farm, source)
        work.alerts = await source.open_channel(PRINTER, TYPE)
        for _ in range(2):
            alerts = await Member.join(farm)
            questions = await Member.of(alerts.broker, QUESTIONS)
            work.serving += [
                asyncio.create_task(alerts.serve(2, work.handle)),
                asyncio.create_task(questions.serve(2, work.answer)),
            ]
        return work

    async def handle(self, one: Any) -> None:
        self.handled.append((one.notification.data, one.redelivered))
        await one.done()

    async def answer(self, one: Any) -> None:
        await one.respond(b"re: " + one.notification.data, ends_turn=True)

    async def goes_on(self) -> None:
        """A notification is sent and handled, a question asked and answered."""
        body = b"%d" % len(self.sent)
        self.sent.append(body)
        assert await self.alerts.send(body) == S_OK
        channel = await self.farm.question(self.source, body)
        assert (await channel.response(PATIENCE)).data == b"re: " + body
        await channel.close()

    async def is_done(self) -> bool:
        return {body for body, _ in self.handled} == set(self.sent)

    async def end(self) -> None:
        """Each was handled; what was handled twice is marked."""
        await until(self.is_done)
        await counted(self.source, 0, 0)
        await counted(self.source, 0, 0, BIDIRECTIONAL)
        await stopped(self.serving)
        unmarked = [body for body, redelivered in self.handled if not redelivered]
        assert len(set(unmarked)) == len(unmarked)


async def test_a_pool_on_two_servers_is_one_on_each(farm: Farm, source: Broker) -> None:
    cluster = cluster_of(farm)
    names = (PRINTER, PRINTER_OF_OTHER_SERVER)
    homes = {cluster.node_of(keys_of(farm, name).meta) for name in names}
    assert len(homes) == 2
    broker = await farm.broker("alice", **QUIET)
    here, there = [await Member.of(broker, wish) for wish in (ALERTS, ELSEWHERE)]
    for member in (here, there):
        await member.is_idle()
    for name, member in ((PRINTER, here), (PRINTER_OF_OTHER_SERVER, there)):
        await send(await source.open_channel(name, TYPE), name.encode())
        one = await member.delivery()
        assert one.notification.data == name.encode()
        await one.done()
    await source.pools.delete(POOL, PRINTER)
    (left,) = await source.pools.on_server(PRINTER_OF_OTHER_SERVER)
    assert left.replicas == (there.replica.server.session,)


async def test_one_idle_replica_is_woken_at_a_time(farm: Farm, source: Broker) -> None:
    members = [await Member.join(farm) for _ in range(3)]
    for member in members:
        await member.is_idle()
    channel = await source.open_channel(PRINTER, TYPE)
    for n in range(3):
        await channel.send(b"%d" % n)
        await until(lambda: _are_stirred(members, n + 1))  # noqa: B023 (awaited in the same turn)


async def _are_stirred(members: list[Member], many: int) -> bool:
    return sum(member.stirred.is_set() for member in members) == many


@pytest.mark.parametrize("bell", ["SPUBLISH", "PUBLISH"])
async def test_a_pool_goes_on_while_its_slot_moves_there_and_back(farm: Farm, bell: str) -> None:
    """PUBLISH is what a server was given in a Cluster of Redis 6.2."""
    cluster, meta = cluster_of(farm), keys_of(farm, PRINTER).meta
    if bell == "PUBLISH":
        await farm.client.hset(meta, mapping={"layout": LAYOUT, "bell": bell})
    source = await farm.broker("alice", **QUIET)
    work = await Work.begin(farm, source)
    await work.goes_on()
    home = cluster.node_of(meta)
    for target in (other_than(cluster, home), home):
        going = [asyncio.create_task(work.goes_on())]
        steps = cluster.migration(meta, target, batch=3)
        while await asyncio.to_thread(next, steps, None) is not None:
            if sum(not each.done() for each in going) < AT_ONCE:
                going.append(asyncio.create_task(work.goes_on()))
            await asyncio.wait(going, timeout=0.02)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*going)
        assert cluster.node_of(meta) is target
        await work.goes_on()
    await work.end()
    await source.pools.delete(POOL, PRINTER)


async def test_a_pool_moves_with_what_it_collected_and_who_has_it(
    farm: Farm, source: Broker
) -> None:
    cluster, meta = cluster_of(farm), keys_of(farm, PRINTER).meta
    home = cluster.node_of(meta)
    member, other = [await Member.join(farm) for _ in range(2)]
    channel = await source.open_channel(PRINTER, TYPE)
    large = b"x" * 30_000
    await send(channel, b"1", b"2", large, b"3")
    held, later = await member.take(2)
    await later.hand_back(0.2)
    for target in (other_than(cluster, home), home):
        await asyncio.to_thread(cluster.migrate, meta, target)
        await counted(source, 3, 1)
    await held.done()
    taken = await other.take(3)
    assert {one.notification.data for one in taken} == {b"2", large, b"3"}
    for one in taken:
        await one.done()
    await counted(source, 0, 0)


async def test_a_dialog_changes_hands_after_its_slot_moved(farm: Farm, source: Broker) -> None:
    cluster, meta = cluster_of(farm), keys_of(farm, PRINTER).meta
    home = cluster.node_of(meta)
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    await other.is_idle()
    channel = await farm.question(source)
    offer = await one.offer()
    await offer.respond(b"yes", ends_turn=True)
    await channel.response(PATIENCE)
    await asyncio.to_thread(cluster.migrate, meta, other_than(cluster, home))
    await one.replica.leave()
    again = await other.offer()
    await asyncio.to_thread(cluster.migrate, meta, home)
    await channel.send(b"sure?")
    assert (await again.follow_up(PATIENCE)).data == b"sure?"
    await again.respond(b"quite", ends_turn=True)
    assert (await channel.response(PATIENCE)).data == b"quite"
    await channel.close()
