"""Sentinel says who the primary is, and a farm follows it there.

Who most Sentinels name counts, without a majority the newest configuration; and the process that
they name has to call itself a primary. A farm on Sentinel goes on through orderly and disorderly
changes of the primary, and is told by bells, not by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio

from broker import Broker, _waiting
from broker.errors import (
    InvalidUrl,
    RedisError,
    RedisRefused,
    RedisUnreachable,
    SentinelsDisagree,
)
from broker.results import S_OK
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.scenes import QUIET, Scene, heard
from tests.sentinels import MASTER_NAME, Sentinels, SentinelServer
from tests.servers import RedisServer
from workers.embedded import HOST, free_port

FAST: dict[str, Any] = {"connect_timeout": 1.0, "reply_timeout": 1.0, "operation_timeout": 2.0}
SLACK = 3.0
"""Seconds by which a bound may be passed on a loaded machine."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinels]:
    """A primary, its replica and three Sentinels, with passwords; a test leaves all alive."""
    with Sentinels(password="secret", sentinel_password="other") as running:
        yield running


class SentinelBackend:
    """A farm's primary is who the Sentinels name."""

    name = "sentinel"

    def __init__(self, watched: Sentinels) -> None:
        self.watched = watched
        self.finder = redis.asyncio.Sentinel(
            [(HOST, sentinel.port) for sentinel in watched.sentinels],
            sentinel_kwargs={"password": "other"},
        )

    def broker(self, **options: Any) -> Broker:
        return Broker.connect(self.watched.url, **options)

    direct = broker

    def client(self) -> redis.asyncio.Redis:
        client: redis.asyncio.Redis = self.finder.master_for(
            MASTER_NAME, password="secret", protocol=2
        )
        return client


@pytest.fixture
async def farm(watched: Sentinels) -> AsyncIterator[Farm]:
    backend = SentinelBackend(watched)
    async with Farm(backend) as made:
        yield made
    for client in backend.finder.sentinels:
        await client.aclose()


async def reached(url: str) -> None:
    """Connect, and ask something of the primary."""
    async with Broker.connect(url, user="alice", **FAST) as broker:
        assert await broker.channels() == []


async def refused(url: str) -> RedisError:
    """The error with which a broker does not start."""
    with pytest.raises(RedisError) as found:
        await reached(url)
    return found.value


@contextlib.contextmanager
def monitor(server: RedisServer, password: str | None = None) -> Iterator[SentinelServer]:
    """A Sentinel that watches one server, and has nobody to talk to about it."""
    sentinel = SentinelServer(password=password)
    about = f"{HOST} {server.port} 1"
    sentinel._settings |= {f"sentinel monitor {MASTER_NAME}": about}
    try:
        yield sentinel.start()
    finally:
        sentinel.discard()


def url_of(*sentinels: SentinelServer) -> str:
    hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in sentinels)
    return f"redis+sentinel://{hosts}/{MASTER_NAME}"


# Who is the primary -----------------------------------------------------------------------------


async def test_a_dead_and_a_frozen_sentinel_hold_nobody_up(watched: Sentinels) -> None:
    first, second, third = watched.sentinels
    first.kill()
    try:
        await reached(watched.url)
        second.pause()
        start = time.monotonic()
        await reached(watched.url)
        assert time.monotonic() - start < 3 + SLACK, "one second for each connection at the most"
        third.pause()
        assert isinstance(await refused(watched.url), RedisUnreachable)
    finally:
        third.resume()
        second.resume()
        first.restart()


async def test_no_sentinel_at_all_is_said(watched: Sentinels) -> None:
    try:
        for sentinel in watched.sentinels:
            sentinel.kill()
        error = await refused(watched.url)
    finally:
        for sentinel in watched.sentinels:
            sentinel.restart()
    assert type(error) is RedisUnreachable
    assert "no Sentinel answers" in str(error)
    for sentinel in watched.sentinels:
        assert f"{HOST}:{sentinel.port} does not answer" in str(error)


async def test_a_name_that_no_sentinel_knows_is_said(watched: Sentinels) -> None:
    error = await refused(watched.url.replace(MASTER_NAME, "hismaster"))
    assert isinstance(error, SentinelsDisagree)
    assert str(error).count("does not know the name") == 3
    assert "is hismaster the name in their sentinel monitor line?" in str(error)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param(":secret@", ":mistaken@", id="of Redis"),
        pytest.param(":secret@", "", id="none for Redis"),
        pytest.param("sentinel_password=other", "sentinel_password=mistaken", id="of Sentinel"),
        pytest.param("?sentinel_password=other", "", id="none for Sentinel"),
    ],
)
async def test_a_wrong_password_is_refused_at_once(
    watched: Sentinels, right: str, wrong: str
) -> None:
    error = await refused(watched.url.replace(right, wrong))
    assert isinstance(error, RedisRefused)
    assert not {"secret", "mistaken", "other"} & set(str(error).replace(":", " ").split())


async def test_sentinels_that_disagree_are_named_with_what_they_say() -> None:
    with (
        RedisServer() as one,
        RedisServer() as two,
        monitor(one) as first,
        monitor(two) as second,
        monitor(two) as third,
    ):
        error = await refused(url_of(first, second))
        assert isinstance(error, SentinelsDisagree)
        for sentinel, named in ((first, one), (second, two)):
            told = f"{HOST}:{sentinel.port} names {HOST}:{named.port} (configuration 0)"
            assert told in str(error)
        assert "compare SENTINEL MASTER mymaster" in str(error)
        assert error.retryable, "in the midst of a failover it passes"

        await reached(url_of(first, second, third))
        async with Broker.connect(url_of(first, second, third), user="alice") as broker:
            await broker.open_channel(PRINTER, TYPE)
            assert (one.cli("DBSIZE"), two.cli("DBSIZE") > 0) == (0, True), "most name this one"


async def test_without_a_majority_the_newest_configuration_counts(watched: Sentinels) -> None:
    """Of two Sentinels one was asleep: it names a server of an older configuration."""
    watched.switch_over()
    with RedisServer(password="secret") as stale, monitor(stale, "other") as behind:
        awake = watched.sentinels[0]
        assert int(awake.facts("MASTER")["config-epoch"]) > 0
        url = watched.url.replace(
            f"{HOST}:{watched.sentinels[1].port},{HOST}:{watched.sentinels[2].port}",
            f"{HOST}:{behind.port}",
        )
        async with Broker.connect(url, user="alice", namespace="newest") as broker:
            await broker.grant(PRINTER, "alice", "use")
        assert stale.cli("DBSIZE") == 0
        assert watched.master.cli("KEYS", "newest:*")


async def test_a_replica_that_sentinel_takes_for_the_primary_is_not_spoken_to() -> None:
    with RedisServer() as primary, primary.replica() as replica, monitor(replica) as sentinel:
        error = await refused(url_of(sentinel))
        assert isinstance(error, RedisUnreachable)
        assert f"{HOST}:{replica.port}" in str(error)
        assert "it calls itself a slave" in str(error)


async def test_an_address_of_a_sentinel_is_no_address_of_a_redis() -> None:
    with RedisServer() as server, monitor(server) as sentinel:
        with pytest.raises(InvalidUrl) as found:
            await reached(sentinel.url)
        url = f"redis+sentinel://{HOST}:{sentinel.port}/NAME-OF-THE-PRIMARY"
        assert f"a Sentinel: write {url}" in str(found.value)


# Starting in the midst of it ---------------------------------------------------------------------


async def test_a_process_that_starts_while_the_primary_is_away_waits(watched: Sentinels) -> None:
    """It follows the Sentinels to the successor."""
    watched.kill_master()
    starting = asyncio.create_task(Broker.connect(watched.url, user="alice").start())
    try:
        await asyncio.to_thread(watched.await_failover)
        broker = await starting
    finally:
        await asyncio.to_thread(watched.rejoin)
    assert await broker.channels() == []
    await broker.close()


async def test_who_waits_says_so_and_gives_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_waiting, "MOMENT", 0.1)
    monkeypatch.setattr(_waiting, "LONG", 0.4)
    with RedisServer() as primary, monitor(primary) as sentinel:
        why = f"no connection to the primary {HOST}:{primary.port} of mymaster: Connection refused"
        primary.kill()
        with caplog.at_level(logging.WARNING, "tympan"):
            error = await refused(url_of(sentinel))
    assert str(error) == why, "and no word of `tympan up`"
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"waiting for up to 2 s: {why}"


async def test_where_no_sentinel_answers_nobody_waits(watched: Sentinels) -> None:
    """An address that is wrong is no weather."""
    nowhere = f"redis+sentinel://{HOST}:{free_port()},{HOST}:{free_port()}/{MASTER_NAME}"
    with pytest.raises(RedisUnreachable) as found:
        async with asyncio.timeout(PATIENCE), Broker.connect(nowhere, user="alice"):
            pass
    assert "no Sentinel answers" in str(found.value)
    assert "tympan up" not in str(found.value)
    unknown = watched.url.replace(MASTER_NAME, "hismaster")
    with pytest.raises(SentinelsDisagree):
        async with asyncio.timeout(PATIENCE), Broker.connect(unknown, user="alice"):
            pass


# Changes of the primary -------------------------------------------------------------------------


async def test_a_farm_goes_on_through_an_orderly_change(watched: Sentinels, farm: Farm) -> None:
    """Each end says something before and after; nobody looks by the clock."""
    scene = await Scene.set(farm, **QUIET)
    before = watched.master
    assert await asyncio.to_thread(watched.switch_over) is not before
    await goes_on(scene)


async def test_a_farm_goes_on_after_its_primary_died(watched: Sentinels, farm: Farm) -> None:
    scene = await Scene.set(farm, **QUIET)
    assert await asyncio.to_thread(watched.master.cli, "WAIT", 1, 5000) == 1
    await asyncio.to_thread(watched.fail_over)
    await goes_on(scene)


async def test_a_farm_goes_on_after_its_primary_froze(watched: Sentinels, farm: Farm) -> None:
    """A host that says nothing more; its connections are never closed."""
    scene = await Scene.set(farm, **QUIET | {"reply_timeout": 1.0, "connect_timeout": 1.0})
    frozen = watched.master
    assert await asyncio.to_thread(frozen.cli, "WAIT", 1, 5000) == 1
    frozen.pause()
    try:
        await asyncio.to_thread(watched.await_failover)
        await goes_on(scene)
    finally:
        frozen.resume()
        await asyncio.to_thread(watched.rejoin)
    assert await scene.used.send(b"after the thaw") == S_OK
    assert await heard(scene.one_way) == b"after the thaw"


async def goes_on(scene: Scene) -> None:
    """Everything that was open is, and both ends hear each other."""
    assert await scene.used.send(b"page") == S_OK
    assert await heard(scene.one_way) == b"page"
    assert await scene.answered.send(b"sure?") == S_OK
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    assert await scene.owned.respond(b"sure") == S_OK
    assert (await scene.answered.response(PATIENCE)).data == b"sure"
    assert await scene.question.respond(b"yes") == S_OK
    assert (await scene.asked.response(PATIENCE)).data == b"yes"
    assert await scene.fresh.send(b"and now?") == S_OK
    offer = await scene.two_way.fetch(PATIENCE)
    assert offer is not None, "a question that was sent afterwards is offered"


async def test_a_primary_that_became_a_replica_is_weather() -> None:
    """READONLY on a living connection: the call waits until Sentinel names the successor."""
    with RedisServer() as former, former.replica() as successor, monitor(former) as sentinel:
        about = {"user": "alice"} | QUIET
        async with Broker.connect(url_of(sentinel), **about) as broker:
            channel = await broker.open_channel(PRINTER, TYPE)
            assert former.cli("WAIT", 1, 5000) == 1
            successor.promote()
            former.follow(successor)
            sending = asyncio.create_task(channel.send(b"page"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(sending), 0.5)
            sentinel.cli("SENTINEL", "REMOVE", MASTER_NAME)
            sentinel.cli("SENTINEL", "MONITOR", MASTER_NAME, HOST, successor.port, 1)
            result = await sending
            assert result.succeeded
