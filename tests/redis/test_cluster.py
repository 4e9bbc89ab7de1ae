"""A farm on a Redis Cluster: each print server lives on one node, and may move while it works.

Nothing here is looked for by the clock: what is heard after a move was told by a bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from redis.crc import key_slot

from broker import BIDIRECTIONAL, Broker, Channel, Offer, Registration
from broker._bells import PUBLISH
from broker._cluster import MAP_PATIENCE, Cluster
from broker._cluster_bells import ClusterBells
from broker._keys import LAYOUT, Keys, directory
from broker.errors import (
    BrokerClosed,
    ClusterIncomplete,
    InvalidUrl,
    NotDurable,
    RedisUnreachable,
)
from broker.names import Name
from broker.results import S_OK
from tests.cluster import SLOTS, ClusterNode, RedisCluster
from tests.conformance.actors import eventually
from tests.farm import (
    PATIENCE,
    PRINTER,
    PRINTER_OF_OTHER_SERVER,
    TYPE,
    ClusterBackend,
    Farm,
)
from tests.redis.scenes import QUIET, heard
from tests.servers import RedisServer, await_agreement
from workers.embedded import HOST, free_port

SLACK = 3.0
AT_ONCE = 5
"""As many at most wait for a slot that moves: what they leave there moves, too."""
"""Seconds by which a bound may be passed on a loaded machine."""
FAST: dict[str, Any] = {"connect_timeout": 1.0, "reply_timeout": 1.0, "operation_timeout": 1.0}


@pytest.fixture(scope="module")
def replicated() -> Iterator[RedisCluster]:
    """Three masters with a replica each; a test leaves all of them alive and agreeing."""
    with RedisCluster(replicas=1) as cluster:
        yield cluster


@asynccontextmanager
async def farm_on(cluster: RedisCluster) -> AsyncIterator[Farm]:
    """A farm that leaves nothing behind: no key, no connection, no subscription.

    Keys of earlier tests that end by themselves are ended before: a slot that moves is not full.
    """
    for node in cluster.masters:
        node.cli("FLUSHALL")
    async with Farm(ClusterBackend(cluster)) as farm:
        yield farm
    for node in cluster.awake:
        await eventually(partial(is_left, node), "the last connection's end")
        assert node.cli("PUBSUB", "SHARDCHANNELS") == []
        assert node.cli("PUBSUB", "CHANNELS") == []


def is_left(node: ClusterNode) -> bool:
    return not ours(node)


def ours(node: ClusterNode) -> list[dict[str, str]]:
    """The connections of brokers to a node."""
    lines: list[str] = node.cli("CLIENT", "LIST").splitlines()
    clients = [dict(word.split("=", 1) for word in line.split()) for line in lines]
    return [each for each in clients if each["name"].startswith("tympan")]


@pytest.fixture
async def farm(redis_cluster: RedisCluster) -> AsyncIterator[Farm]:
    async with farm_on(redis_cluster) as made:
        yield made


def cluster_of(farm: Farm) -> RedisCluster:
    assert isinstance(farm.backend, ClusterBackend)
    return farm.backend.cluster


def keys_of(farm: Farm, name: str) -> Keys:
    return Keys(farm.namespace, Name.parse(name).server)


class Talk:
    """A source and a listener of one printer, in processes of their own, in a dialog."""

    source: Broker
    listener: Broker
    pages: Channel
    one_way: Registration[Any]
    two_way: Registration[Any]
    channel: Channel
    offer: Offer[Any]

    @classmethod
    async def begin(cls, farm: Farm, name: str = PRINTER, **options: Any) -> Talk:
        talk = cls()
        talk.farm, talk.name, talk.said = farm, name, 0
        talk.source = await farm.broker("alice", **QUIET | options)
        talk.listener = await farm.broker("alice", **QUIET | options)
        talk.one_way = await talk.listener.register(name, TYPE)
        talk.two_way = await talk.listener.register(name, TYPE, style=BIDIRECTIONAL)
        talk.pages = await talk.source.open_channel(name, TYPE)
        talk.channel, talk.offer = await talk.ask()
        return talk

    def __init__(self) -> None:
        self.farm: Farm
        self.name = ""
        self.said = 0
        self._speaking = asyncio.Lock()

    async def ask(self) -> tuple[Channel, Offer[Any]]:
        """A new question, and its offer."""
        channel = await self.farm.question(self.source, name=self.name)
        offer = await self.farm.offered(self.two_way)
        assert offer.id == channel.id
        return channel, offer

    async def goes_on(self) -> None:
        """Each end speaks, and the other hears it; one after the other for all who ask."""
        async with self._speaking:
            self.said += 1
            body = b"%d" % self.said
            assert await self.offer.respond(body) == S_OK
            assert (await self.channel.response(PATIENCE)).data == body
            assert await self.channel.send(body) == S_OK
            assert (await self.offer.follow_up(PATIENCE)).data == body
            assert await self.pages.send(body) == S_OK
            assert await heard(self.one_way) == body

    async def grows(self) -> None:
        """Something new: another question, answered and closed; another registration."""
        channel, offer = await self.ask()
        await offer.respond(b"yes")
        assert (await channel.response(PATIENCE)).data == b"yes"
        await channel.close(b"thanks")
        closing = await offer.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.data == b"thanks"
        registration = await self.listener.register(self.name, TYPE, user="bob")
        channel = await self.source.open_channel(self.name, TYPE, user="bob")
        assert await channel.send(b"for bob") == S_OK
        assert await heard(registration) == b"for bob"
        await registration.unregister()
        await channel.close()

    async def epoch(self) -> int:
        return int(await self.farm.client.hget(keys_of(self.farm, self.name).meta, "epoch") or 0)


async def two_talks(farm: Farm) -> list[Talk]:
    """Dialogs on two servers, which live on different masters."""
    talks = [await Talk.begin(farm, name) for name in (PRINTER, PRINTER_OF_OTHER_SERVER)]
    cluster = cluster_of(farm)
    assert len({cluster.node_of(keys_of(farm, talk.name).meta) for talk in talks}) == 2
    return talks


def other_than(cluster: RedisCluster, *nodes: ClusterNode) -> ClusterNode:
    return next(node for node in cluster.masters if node not in nodes)


# Slots that move --------------------------------------------------------------------------------


@pytest.mark.parametrize("bell", ["SPUBLISH", "PUBLISH"])
async def test_dialogs_go_on_while_their_slot_moves_there_and_back(farm: Farm, bell: str) -> None:
    """At every step of the way each end speaks; what cannot be done now waits, and is done.

    PUBLISH is what a server was given in a Cluster of Redis 6.2.
    """
    cluster, meta = cluster_of(farm), keys_of(farm, PRINTER).meta
    if bell == "PUBLISH":
        await farm.client.hset(meta, mapping={"layout": LAYOUT, "bell": bell})
    moving, resting = await two_talks(farm)
    assert await farm.client.hget(meta, "bell") == bell.encode()
    home = cluster.node_of(meta)
    epochs = [await moving.epoch()]
    for target in (other_than(cluster, home), home):
        speaking = [asyncio.create_task(moving.goes_on())]
        steps = cluster.migration(meta, target, batch=3)
        while (step := await asyncio.to_thread(next, steps, None)) is not None:
            if sum(not each.done() for each in speaking) < AT_ONCE:
                speaking.append(asyncio.create_task(moving.goes_on()))
            await asyncio.wait(speaking, timeout=0.02)
            if step in ("migrating", "taken"):
                await resting.goes_on()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*speaking)
        assert cluster.node_of(meta) is target
        await moving.goes_on()
        await moving.grows()
        epochs.append(await moving.epoch())
    assert epochs == sorted(set(epochs)), "with each move the epoch rises"
    assert moving.channel.is_open
    await resting.grows()


async def test_what_cannot_be_done_while_a_slot_is_half_open_waits(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    talk = await Talk.begin(farm)
    cluster, key = cluster_of(farm), keys_of(farm, PRINTER).meta
    home = cluster.node_of(key)
    target = other_than(cluster, home)
    steps = cluster.migration(key, target, batch=1)
    try:
        while int(target.cli("CLUSTER", "COUNTKEYSINSLOT", key_slot(key.encode()))) < 5:
            next(steps)
        assert cluster.node_of(key) is home, "half of it is there"
        doing = [
            asyncio.create_task(each)
            for each in (
                talk.goes_on(),
                talk.grows(),
                talk.source.open_channel(PRINTER, TYPE),
                talk.listener.register(PRINTER, TYPE),
                talk.source.grant(PRINTER, "bob", "use"),
                talk.source.channels(PRINTER),
            )
        ]
        with caplog.at_level(logging.WARNING, "tympan"):
            _, waiting = await asyncio.wait(doing, timeout=0.5)
        assert waiting
        assert not caplog.records, "the node answers"
        hasty = await farm.broker("alice", **QUIET | FAST)
        with pytest.raises(ClusterIncomplete, match=r"is moving between .* --cluster fix"):
            await hasty.open_channel(PRINTER, TYPE)
    finally:
        await asyncio.to_thread(list, steps)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*doing)
    await talk.goes_on()
    await asyncio.to_thread(cluster.migrate, key, home)
    await talk.goes_on()


async def test_a_registration_moves_with_what_it_has_not_read(farm: Farm) -> None:
    cluster = cluster_of(farm)
    source, listener = [await farm.broker("alice", **QUIET) for _ in range(2)]
    registration = await listener.register(PRINTER, TYPE, buffer=20)
    channel = await source.open_channel(PRINTER, TYPE)
    bodies = [b"%d" % number + b"." * (number % 2 * 20_000) for number in range(20)]
    for body in bodies[:15]:
        assert await channel.send(body) == S_OK
    key = keys_of(farm, PRINTER).meta
    home = cluster.node_of(key)
    for target in (other_than(cluster, home), home):
        await asyncio.to_thread(cluster.migrate, key, target)
    for body in bodies[15:]:
        assert await channel.send(body) == S_OK
    assert [await heard(registration) for _ in bodies] == bodies
    assert registration.is_registered
    assert (registration.denied, registration.unread) == (0, 0)


async def test_all_slots_of_a_master_may_leave_it(farm: Farm) -> None:
    """Its clients hang up there, and go on where their servers are."""
    talks = await two_talks(farm)
    cluster = cluster_of(farm)
    homes = [cluster.node_of(keys_of(farm, talk.name).meta) for talk in talks]
    third = other_than(cluster, *homes)
    for talk in talks:
        await asyncio.to_thread(cluster.migrate, keys_of(farm, talk.name).meta, third)
        await talk.goes_on()
    for node in homes:
        subscribed = [each for each in ours(node) if int(each["ssub"]) > 0]
        assert not subscribed, "nothing is heard any more where no server is"
    for talk, home in zip(talks, homes, strict=True):
        await asyncio.to_thread(cluster.migrate, keys_of(farm, talk.name).meta, home)
        await talk.goes_on()


# Holes ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hole(cluster: RedisCluster, key: str, *, covers_all: bool) -> Iterator[ClusterNode]:
    """The key's slot is nobody's; ``covers_all``: then no node serves."""
    owner = cluster.node_of(key)
    for node in cluster.nodes:
        node.config("cluster-require-full-coverage", "yes" if covers_all else "no")
    cluster.drop_slots(key)
    try:
        yield owner
    finally:
        cluster.add_slots(owner, key)
        for node in cluster.nodes:
            node.config("cluster-require-full-coverage", "yes")


def names_the_hole(error: Exception, farm: Farm) -> None:
    key = keys_of(farm, PRINTER).meta
    prefix = key.removesuffix("meta")
    which = f"slot {key_slot(key.encode())}"
    for part in (prefix, which, f"1 of {SLOTS} slots", "redis-cli --cluster fix"):
        assert part in str(error)


async def test_a_server_without_an_owner_is_said_to_be_so(farm: Farm) -> None:
    """At once at most after the operation timeout; all others work, and it does when mended."""
    cluster = cluster_of(farm)
    lost, resting = [
        await Talk.begin(farm, name, operation_timeout=0.5)
        for name in (PRINTER, PRINTER_OF_OTHER_SERVER)
    ]
    with hole(cluster, keys_of(farm, PRINTER).meta, covers_all=False):
        start = time.monotonic()
        for call in (
            lost.pages.send(b"page"),
            lost.source.open_channel(PRINTER, TYPE),
            lost.listener.register(PRINTER, TYPE),
            lost.listener.register(PRINTER, TYPE, user="bob"),
        ):
            with pytest.raises(ClusterIncomplete) as found:
                await call
            names_the_hole(found.value, farm)
            assert found.value.retryable
        assert time.monotonic() - start < 4 * 0.5 + SLACK
        await resting.goes_on()
        newcomer = await farm.broker("alice", **QUIET, operation_timeout=0.5)
        with pytest.raises(ClusterIncomplete):
            await newcomer.open_channel(PRINTER, TYPE)
        await (await newcomer.open_channel(PRINTER_OF_OTHER_SERVER, TYPE)).release()
    await lost.goes_on()
    await lost.grows()


async def test_where_no_node_serves_the_hole_is_named_as_the_reason(farm: Farm) -> None:
    """A bell that cannot be subscribed to again meanwhile is when it is mended."""
    cluster = cluster_of(farm)
    talks = [
        await Talk.begin(farm, name, operation_timeout=0.5)
        for name in (PRINTER, PRINTER_OF_OTHER_SERVER)
    ]
    with hole(cluster, keys_of(farm, PRINTER).meta, covers_all=True):
        await asyncio.to_thread(deafen, cluster)
        for talk in talks:
            with pytest.raises(ClusterIncomplete, match=f"1 of {SLOTS} slots have none"):
                await talk.pages.send(b"page")
        await listens_in_vain(talks[0])
    for talk in talks:
        await hears_bells(talk)
        await talk.goes_on()
        await talk.grows()
        await talk.goes_on()


async def test_that_a_node_serves_nothing_is_told_once_and_its_end_once(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    """It tells who owns which slots all the while: that is no end of it."""
    cluster, talk = cluster_of(farm), await Talk.begin(farm)
    key = keys_of(farm, PRINTER).meta
    topology = talk.source._topology
    assert isinstance(topology, Cluster)
    link = topology.at((HOST, cluster.node_of(key).port))
    with hole(cluster, keys_of(farm, PRINTER_OF_OTHER_SERVER).meta, covers_all=True):
        for _ in range(3):
            with pytest.raises(RedisUnreachable, match="cluster is down"):
                await link.command("HGET", key, "epoch")
            await link.command("CLUSTER", "SLOTS")
    await talk.goes_on()
    told = [record.getMessage() for record in caplog.records if link.where in record.getMessage()]
    for what in ("Redis does not answer; trying again", "Redis answers again"):
        assert len([message for message in told if message.startswith(what)]) == 1, told


# Bells ------------------------------------------------------------------------------------------


async def listens_in_vain(talk: Talk) -> None:
    """Another who would listen where the listener does loses patience."""
    bells = talk.listener._topology.bells
    assert isinstance(bells, ClusterBells)
    for channel in list(bells._homes):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await bells.subscribe(channel, "SPUBLISH")


def deafen(cluster: RedisCluster) -> None:
    """All nodes end all subscriptions."""
    for node in cluster.awake:
        node.cli("CLIENT", "KILL", "TYPE", "pubsub")


async def hears_bells(talk: Talk) -> None:
    """Its listener is subscribed again."""
    key = f"{{{Name.parse(talk.name).server}}}:stream:"
    cluster = cluster_of(talk.farm)

    def is_heard() -> bool:
        found = [c for node in cluster.awake for c in node.cli("PUBSUB", "SHARDCHANNELS")]
        return any(key in channel for channel in found)

    await eventually(is_heard, "a subscription")


async def test_bells_come_back_as_often_as_they_are_lost(farm: Farm) -> None:
    cluster = cluster_of(farm)
    talks = await two_talks(farm)
    killed, is_over = 0, False

    def kill() -> None:
        nonlocal killed
        while not is_over:
            deafen(cluster)
            killed += 1
            time.sleep(0.1)

    killing = asyncio.create_task(asyncio.to_thread(kill))
    try:
        while killed < 10:
            await asyncio.gather(*(talk.goes_on() for talk in talks))
    finally:
        is_over = True
        await killing
    for talk in talks:
        await talk.goes_on()


async def test_scripts_that_were_flushed_are_loaded_again_on_each_node(farm: Farm) -> None:
    talks = await two_talks(farm)
    for node in cluster_of(farm).nodes:
        node.cli("SCRIPT", "FLUSH")
    for talk in talks:
        await talk.goes_on()
        await talk.grows()


# Masters that fall ------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["fails over", "switches over"])
async def test_a_farm_goes_on_when_a_replica_takes_over(
    replicated: RedisCluster, manner: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with farm_on(replicated) as farm:
        talks = await two_talks(farm)
        key = keys_of(farm, PRINTER).meta
        before = replicated.node_of(key)
        assert await asyncio.to_thread(before.cli, "WAIT", 1, 5000) == 1
        if manner == "fails over":
            await asyncio.to_thread(replicated.fail_over, key)
        else:
            await asyncio.to_thread(replicated.switch_over, key)
        assert replicated.node_of(key) is not before
        for talk in talks:
            await talk.goes_on()
            await talk.grows()
        if manner == "fails over":
            node = f"{HOST}:{before.port}"
            for told in (f"trying again ({node})", f"the slots of {node} have other owners now"):
                assert told in caplog.text
            await asyncio.to_thread(replicated.restart, before)


async def test_a_farm_goes_on_when_a_master_froze(replicated: RedisCluster) -> None:
    async with farm_on(replicated) as farm:
        talks = [
            await Talk.begin(farm, name, connect_timeout=1.0, reply_timeout=1.0)
            for name in (PRINTER, PRINTER_OF_OTHER_SERVER)
        ]
        frozen = replicated.node_of(keys_of(farm, PRINTER).meta)
        assert await asyncio.to_thread(frozen.cli, "WAIT", 1, 5000) == 1
        frozen.pause()
        try:
            await asyncio.to_thread(replicated.await_master, keys_of(farm, PRINTER).meta)
            for talk in talks:
                await talk.goes_on()
        finally:
            frozen.resume()
            await asyncio.to_thread(replicated.await_agreement)
        for talk in talks:
            await talk.goes_on()


async def test_with_a_dead_master_the_others_serve_also_who_comes_new(
    replicated: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with farm_on(replicated) as farm:
        master = replicated.node_of(keys_of(farm, PRINTER).meta)
        while replicated.node_of(directory(farm.namespace)) is master:
            farm.namespace += "x"  # with the directory's node, nobody begins anything new
        resting = await Talk.begin(farm, PRINTER_OF_OTHER_SERVER)
        dead = [*replicated.replicas_of(master), master]
        for node in replicated.nodes:
            node.config("cluster-require-full-coverage", "no")
        for node in dead:
            node.kill()
        try:
            with caplog.at_level(logging.WARNING, "tympan"):
                newcomer = await farm.broker("alice", **QUIET | FAST)
            (warned,) = [record.getMessage() for record in caplog.records]
            assert warned == f"the master {HOST}:{master.port} does not answer: Connection refused"
            with pytest.raises(ClusterIncomplete) as found:
                await newcomer.open_channel(PRINTER, TYPE)
            names_the_master(found.value, keys_of(farm, PRINTER), master)
            with pytest.raises(ClusterIncomplete) as found:
                await newcomer.pools.on_server(PRINTER)
            names_the_master(found.value, keys_of(farm, PRINTER), master)
            await (await newcomer.open_channel(PRINTER_OF_OTHER_SERVER, TYPE)).release()
            await resting.goes_on()
        finally:
            for node in reversed(dead):
                await asyncio.to_thread(node.restart)
            for node in replicated.nodes:
                node.config("cluster-require-full-coverage", "yes")
            await asyncio.to_thread(replicated.await_agreement)
        await (await newcomer.open_channel(PRINTER, TYPE)).release()


def names_the_master(error: Exception, keys: Keys, master: ClusterNode) -> None:
    """Who is away, what lives there, and how much."""
    for part in (
        f"no connection to {HOST}:{master.port}: Connection refused",
        keys.meta.removesuffix("meta"),
        f" of {SLOTS:,} slots",
        "`tympan doctor`",
    ):
        assert part in str(error)
    assert "tympan up" not in str(error)


async def test_a_process_that_starts_while_all_masters_are_away_waits() -> None:
    """Replicas tell the map; with most masters gone nobody is promoted, so these come back."""
    with RedisCluster(1, 1, appendonly=True) as cluster:
        master, replica = cluster.nodes
        await asyncio.to_thread(cluster.kill_master, 0)
        url = f"redis+cluster://{HOST}:{replica.port}"
        starting = asyncio.create_task(Broker.connect(url, user="alice").start())
        asked = asyncio.to_thread(await_agreement, lambda: bool(ours(replica)), "somebody who asks")
        await asked
        assert not starting.done()
        await asyncio.to_thread(master.restart)
        broker = await starting
        await broker.close()


async def test_durability_is_what_the_replicas_of_the_servers_master_hold(
    replicated: RedisCluster,
) -> None:
    async with farm_on(replicated) as farm:
        talk = await Talk.begin(farm, durability="replica", durability_timeout=0.3)
        await talk.goes_on()
        (replica,) = replicated.replicas_of(replicated.node_of(keys_of(farm, PRINTER).meta))
        replica.pause()
        try:
            with pytest.raises(NotDurable) as found:
                await talk.pages.send(b"page")
            assert found.value.outcome == S_OK
        finally:
            replica.resume()
        await asyncio.to_thread(replicated.await_agreement)
        assert await heard(talk.one_way) == b"page"
        await talk.goes_on()


# Many servers -----------------------------------------------------------------------------------


async def test_twenty_servers_over_three_masters(farm: Farm) -> None:
    """A process has a few connections to each node, however many servers it speaks to."""
    cluster = cluster_of(farm)
    names = [rf"\\print{number:02}\laser-3" for number in range(1, 21)]
    source, listener = [await farm.broker("alice", **QUIET) for _ in range(2)]

    async def dialog(name: str) -> None:
        registration = await listener.register(name, TYPE, style=BIDIRECTIONAL)
        channel = await farm.question(source, name.encode(), name=name)
        offer = await farm.offered(registration)
        assert offer.notification.data == name.encode()
        await offer.respond(b"yes")
        assert (await channel.response(PATIENCE)).data == b"yes"

    await asyncio.gather(*(dialog(name) for name in names))
    assert len(await source.channels()) == len(names)
    homes = {cluster.node_of(keys_of(farm, name).meta) for name in names}
    assert homes == set(cluster.nodes)
    for node in cluster.nodes:
        assert node.cli("DBSIZE") > 0
        assert len(ours(node)) <= 2 * 3, "for each process calls, large bodies and bells"


# Addresses --------------------------------------------------------------------------------------


async def works(url: str, **options: Any) -> None:
    """A broker starts there, and opens channels on servers of all masters."""
    async with Broker.connect(url, user="alice", **options) as broker:
        for name in (PRINTER, PRINTER_OF_OTHER_SERVER):
            await (await broker.open_channel(name, TYPE)).release()


async def test_one_node_is_no_redis_of_its_own(redis_cluster: RedisCluster) -> None:
    node = redis_cluster.nodes[1]
    with pytest.raises(InvalidUrl) as found:
        await works(node.url)
    assert f"a node of a Cluster: write redis+cluster://{HOST}:{node.port}" in str(found.value)


async def test_one_redis_is_no_cluster(redis_server: RedisServer) -> None:
    with pytest.raises(InvalidUrl) as found:
        await works(f"redis+cluster://{HOST}:{redis_server.port}")
    assert f"write redis://{HOST}:{redis_server.port}/0" in str(found.value)


async def test_any_node_of_the_url_that_answers_is_enough(
    redis_cluster: RedisCluster, redis_server: RedisServer
) -> None:
    good = f"{HOST}:{redis_cluster.nodes[2].port}"
    for wrong in (
        f"{HOST}:{free_port()}",
        "no-such-host.invalid:7000",
        f"{HOST}:{redis_server.port}",
    ):
        await works(f"redis+cluster://{wrong},{good}", namespace="anynode")


async def test_a_node_that_is_silent_holds_nobody_up_for_long(redis_cluster: RedisCluster) -> None:
    with RedisServer() as silent:
        silent.pause()
        start = time.monotonic()
        good = f"{HOST}:{redis_cluster.nodes[0].port}"
        await works(f"redis+cluster://{HOST}:{silent.port},{good}", namespace="anynode")
        assert time.monotonic() - start < MAP_PATIENCE + SLACK


async def test_where_no_node_of_the_url_answers_each_is_named() -> None:
    ports = [free_port() for _ in range(2)]
    with pytest.raises(RedisUnreachable) as found:
        await works("redis+cluster://" + ",".join(f"{HOST}:{port}" for port in ports))
    assert "tells the map of slots" in str(found.value)
    for port in ports:
        assert f"{HOST}:{port}" in str(found.value)


@pytest.mark.parametrize("trouble", ["a node did not answer", "the slot went to a new node"])
async def test_a_call_that_outlives_its_broker_connects_to_nobody(
    replicated: RedisCluster, trouble: str
) -> None:
    """It goes on where its connection broke as the broker closed; nobody would close another."""
    new = replicated.replicas_of(replicated.masters[0])[0]
    async with farm_on(replicated) as farm:
        topology = (await farm.broker("alice"))._topology
        assert isinstance(topology, Cluster)
        await topology.close()
        if trouble == "a node did not answer":
            topology.doubt()
        else:
            topology.moved(key_slot(b"{print01}:x"), (HOST, new.port))
        with pytest.raises(BrokerClosed):
            await topology.link("{print01}:x").command("PING")
        with pytest.raises(BrokerClosed):
            await topology.bells.subscribe("{print01}:bell", PUBLISH)
        for node in replicated.nodes:
            await eventually(partial(is_left, node), "the last connection's end")
        assert not [task for task in asyncio.all_tasks() if "cluster" in task.get_name()]


async def test_the_map_is_known_to_replicas_and_to_masters_that_are_not_in_the_url(
    replicated: RedisCluster,
) -> None:
    """The one node of the URL dies after the start."""
    first = replicated.nodes[0]
    async with Farm(ClusterBackend(replicated)) as farm:
        url = f"redis+cluster://{HOST}:{first.port}"
        about = {"user": "alice", "namespace": farm.namespace} | QUIET
        async with Broker.connect(url, **about) as broker:
            names = {
                replicated.node_of(f"{{{name}}}"): rf"\\{name}\laser"
                for name in replicated.server_names(3)
            }
            key = keys_of(farm, names[replicated.masters[0]]).meta
            before = await asyncio.to_thread(replicated.kill_master, key)
            await asyncio.to_thread(replicated.await_master, key)
            for name in names.values():
                await (await broker.open_channel(name, TYPE)).release()
            await asyncio.to_thread(replicated.restart, before)
