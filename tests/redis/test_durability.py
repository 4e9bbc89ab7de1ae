"""What a success means is chosen, and kept: memory, replicas, or the disk.

What was done but is not yet as safe as was asked says so, with the outcome; it was done once, and
the channel goes on. A Redis that can never give what is asked is refused at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from broker import Broker, Channel
from broker._scripts import UNI_SEND
from broker.errors import DurabilityUnavailable, InvalidSettings, NotDurable
from broker.memory import MemoryRedis
from broker.results import NO_LISTENERS, S_OK
from tests.farm import PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.proxy import Proxy
from tests.redis.scenes import QUIET, Scene, heard
from tests.servers import RedisServer
from workers.embedded import HOST

REPLICA: dict[str, Any] = QUIET | {"durability": "replica", "durability_timeout": 0.1}
Use = Callable[[Scene], Awaitable[object]]

DURABLE: dict[str, Use] = {
    "send": lambda scene: scene.used.send(b"page"),
    "ask": lambda scene: scene.fresh.send(b"continue?"),
    "follow up": lambda scene: scene.answered.send(b"sure?"),
    "answer": lambda scene: scene.question.respond(b"yes"),
    "answer and close": lambda scene: scene.question.close(b"yes"),
    "close as the source": lambda scene: scene.answered.close(b"thanks"),
    "close as the owner": lambda scene: scene.owned.close(b"bye"),
}
everything_durable = pytest.mark.parametrize("what", DURABLE)


# Replicas ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primary() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def replica(primary: RedisServer) -> Iterator[RedisServer]:
    with primary.replica() as server:
        yield server


@pytest.fixture
async def farm(primary: RedisServer, replica: RedisServer) -> AsyncIterator[Farm]:
    assert replica.running
    async with Farm(RedisBackend(primary)) as made:
        yield made


@everything_durable
async def test_what_a_replica_holds_is_done(farm: Farm, replica: RedisServer, what: str) -> None:
    scene = await Scene.set(farm, **REPLICA | {"durability_timeout": 30.0})
    assert await DURABLE[what](scene) == S_OK
    held = replica.cli("KEYS", f"{farm.namespace}:*")
    assert set(held) == set(await farm.keys()), "the replica had it when the call returned"


@everything_durable
async def test_what_no_replica_holds_in_time_is_done_but_not_durable(
    farm: Farm, replica: RedisServer, what: str
) -> None:
    scene = await Scene.set(farm, **REPLICA)
    replica.pause()
    try:
        with pytest.raises(NotDurable, match=r"done.*durability=replica") as found:
            await DURABLE[what](scene)
    finally:
        replica.resume()
    assert found.value.outcome == S_OK
    assert found.value.retryable
    await ONCE[what](scene)


async def test_the_outcome_of_what_is_not_durable_is_the_one_it_had(
    farm: Farm, replica: RedisServer
) -> None:
    source = await farm.broker(**REPLICA)
    channel = await source.open_channel(PRINTER, TYPE)
    replica.pause()
    try:
        with pytest.raises(NotDurable) as found:
            await channel.send(b"page")
    finally:
        replica.resume()
    assert found.value.outcome == NO_LISTENERS
    assert await channel.send(b"page") == NO_LISTENERS


async def page(channel: Channel) -> None:
    async with channel:
        await channel.send(b"page")


async def page_and_go_on(channel: Channel, fault: Exception | None = None) -> None:
    async with channel:
        with contextlib.suppress(NotDurable):
            await channel.send(b"page")
        if fault is not None:
            raise fault


async def test_an_error_that_leaves_a_channel_is_not_replaced_by_its_close(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    source = await farm.broker(**REPLICA, replicas=2)
    sent, other = [await source.open_channel(PRINTER, TYPE) for _ in range(2)]
    with pytest.raises(NotDurable, match="NO_LISTENERS"):
        await page(sent)
    with pytest.raises(ValueError, match="out of paper"):
        await page_and_go_on(other, ValueError("out of paper"))
    assert f"channel {sent.id}, left by NotDurable: " in caplog.text
    assert f"channel {other.id}, left by ValueError: " in caplog.text
    assert await source.channels() == [], "they were closed"


async def test_a_close_that_is_not_durable_says_so_where_nothing_else_does(farm: Farm) -> None:
    source = await farm.broker(**REPLICA, replicas=2)
    with pytest.raises(NotDurable, match="S_OK"):
        await page_and_go_on(await source.open_channel(PRINTER, TYPE))
    assert await source.channels() == []


async def test_more_replicas_than_there_are_hold_nothing(farm: Farm) -> None:
    source = await farm.broker(**REPLICA, replicas=2)
    channel = await source.open_channel(PRINTER, TYPE)
    with pytest.raises(NotDurable):
        await channel.send(b"page")


async def test_calls_that_wait_for_replicas_do_not_hold_up_each_other(
    farm: Farm, replica: RedisServer
) -> None:
    """Eight channels wait side by side; those who ask for memory only do not wait at all."""
    slow = await farm.broker(**REPLICA | {"durability_timeout": 0.4})
    quick = await farm.broker(**QUIET)
    channels = [await slow.open_channel(PRINTER, TYPE) for _ in range(8)]
    other = await quick.open_channel(PRINTER, TYPE)
    loop = asyncio.get_running_loop()
    replica.pause()
    try:
        begun = loop.time()
        sends = asyncio.gather(
            *(channel.send(b"page") for channel in channels), return_exceptions=True
        )
        assert await other.send(b"page") == NO_LISTENERS
        assert loop.time() - begun < 0.3
        results = await sends
        taken = loop.time() - begun
    finally:
        replica.resume()
    assert {type(each) for each in results} == {NotDurable}
    assert taken < 2, "the waits do not add up"


async def test_what_is_asked_for_again_waits_for_replicas_again(
    farm: Farm, primary: RedisServer, replica: RedisServer
) -> None:
    """The second time nothing is written any more; what was written must be held all the same."""
    async with Proxy(HOST, primary.port) as proxy:
        options = REPLICA | {"namespace": farm.namespace}
        async with Broker.connect(proxy.url, user="alice", **options) as source:
            channel = await source.open_channel(PRINTER, TYPE)
            await channel.send(b"page")
            proxy.lose_reply_to(UNI_SEND.sha.encode())
            replica.pause()
            try:
                with pytest.raises(NotDurable):
                    await channel.send(b"page")
            finally:
                replica.resume()
            assert proxy.dropped == 1


# How each looks when it was done once, and what goes on after it --------------------------------


async def _sent_once(scene: Scene) -> None:
    assert await scene.used.send(b"last") == S_OK
    assert [await heard(scene.one_way) for _ in range(2)] == [b"page", b"last"]
    assert scene.one_way.unread == 0


async def _asked_once(scene: Scene) -> None:
    (offer,) = await scene.two_way.fetch_offers(PATIENCE)
    assert await offer.respond(b"yes") == S_OK
    assert (await scene.fresh.response(PATIENCE)).data == b"yes"


async def _followed_up_once(scene: Scene) -> None:
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    assert await scene.owned.respond(b"quite") == S_OK
    assert (await scene.answered.response(PATIENCE)).data == b"quite"


async def _answered_once(scene: Scene) -> None:
    assert scene.question.is_mine
    assert (await scene.asked.response(PATIENCE)).data == b"yes"
    assert await scene.asked.send(b"sure?") == S_OK
    assert (await scene.question.follow_up(PATIENCE)).data == b"sure?"


async def _answered_finally_once(scene: Scene) -> None:
    final = await scene.asked.response(PATIENCE)
    assert (final.data, final.is_final) == (b"yes", True)
    assert await scene.question.release() == S_OK


async def _closed_by_source_once(scene: Scene) -> None:
    closing = await scene.owned.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"thanks"
    assert await scene.answered.release() == S_OK


async def _closed_by_owner_once(scene: Scene) -> None:
    closing = await scene.answered.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"bye"
    assert await scene.owned.release() == S_OK


ONCE: dict[str, Use] = {
    "send": _sent_once,
    "ask": _asked_once,
    "follow up": _followed_up_once,
    "answer": _answered_once,
    "answer and close": _answered_finally_once,
    "close as the source": _closed_by_source_once,
    "close as the owner": _closed_by_owner_once,
}


# The disk ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def disk() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        yield server


async def test_with_appendfsync_always_the_disk_has_it(disk: RedisServer) -> None:
    """A server that is killed outright comes back with everything that was acknowledged."""
    options: dict[str, Any] = QUIET | {"durability": "fsync"}
    async with Farm(RedisBackend(disk)) as farm:
        scene = await Scene.set(farm, **options)
        for what, use in DURABLE.items():
            if what not in ("answer and close", "close as the source", "close as the owner"):
                assert await use(scene) == S_OK, what
        before = sorted(await farm.keys())
        disk.kill()
        disk.restart()
        await farm.client.connection_pool.disconnect()
        assert sorted(await farm.keys()) == before


def _supports_waitaof(server: RedisServer) -> bool:
    version = server.cli("INFO", "server")["redis_version"]
    return tuple(map(int, version.split(".")[:2])) >= (7, 2)


async def test_with_appendfsync_everysec_it_takes_a_later_redis(disk: RedisServer) -> None:
    """WAITAOF came with Redis 7.2; before it nobody can wait for the disk once a second."""
    disk.config("appendfsync", "everysec")
    try:
        broker = Broker.connect(disk.url, user="alice", durability="fsync")
        if _supports_waitaof(disk):
            async with broker:
                channel = await broker.open_channel(PRINTER, TYPE)
                assert await channel.send(b"page") == NO_LISTENERS
            return
        with pytest.raises(DurabilityUnavailable) as refused:
            await broker.start()
    finally:
        disk.config("appendfsync", "always")
    said = str(refused.value)
    assert disk.url in said
    assert "7.2" in said
    assert "CONFIG SET appendfsync always" in said, "the message names the command that mends it"
    assert not refused.value.retryable


async def test_without_an_append_only_file_there_is_no_disk(primary: RedisServer) -> None:
    with pytest.raises(DurabilityUnavailable) as refused:
        await Broker.connect(primary.url, user="alice", durability="fsync").start()
    assert primary.url in str(refused.value)
    assert "CONFIG SET appendonly yes" in str(refused.value)


async def test_a_disk_that_is_taken_away_later_is_told(disk: RedisServer) -> None:
    async with Broker.connect(
        disk.url, user="alice", durability="fsync", namespace="later", **QUIET
    ) as broker:
        channel = await broker.open_channel(PRINTER, TYPE)
        disk.config("appendfsync", "no")
        try:
            with pytest.raises(DurabilityUnavailable, match="appendfsync"):
                await channel.send(b"page")
        finally:
            disk.config("appendfsync", "always")
        assert await channel.send(b"page") == NO_LISTENERS


@pytest.mark.parametrize("durability", ["replica", "fsync"])
def test_the_double_is_memory_only(durability: str) -> None:
    with pytest.raises(InvalidSettings, match="durability"):
        MemoryRedis().broker(user="alice", durability=durability)
