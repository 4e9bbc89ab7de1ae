"""The reply to each single command of each operation is lost, one at a time.

Whatever was lost, the operation comes to the result that it must have, and happened once.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel
from broker._scripts import SCRIPTS
from broker.pooled_offer import PooledOffer
from broker.results import S_OK
from tests.conformance.actors import die
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.faults.case import Extent, Report, case
from tests.proxy import Proxy
from tests.redis.pooling import (
    ALERTS,
    POOL,
    QUESTIONS,
    Member,
    counted,
    end_pools,
    facts,
    keys_of,
    send,
)
from tests.redis.scenes import QUIET, BehindProxy, Scene, heard, until
from tests.redis.test_lost_replies import (
    OPERATIONS,
    all_was_told_once,
    with_an_administrator,
)
from tests.redis.test_pool_lost_replies import ask, goes_on
from tests.servers import RedisServer
from workers.embedded import HOST

LANES = 3
"""Operations that are played side by side, each by a proxy of its own."""
MOST = 60
"""Replies of one operation, at the very most."""
WATCHFUL: dict[str, Any] = QUIET | {"resync": 0.2}
"""What is unknown is found soon, and nobody is declared dead."""


@dataclass
class Deed:
    """One operation, on a stage that is set: done, and then looked at."""

    do: Callable[[], Awaitable[object]]
    check: Callable[[], Awaitable[object]]


Play = Callable[[Farm, Broker], Awaitable[Deed]]
"""Sets the stage on a farm behind the proxy; the broker looks on without it."""


@case(
    "the reply to each command of each operation dropped",
    "the operation has its one result, and happened once",
    is_short=True,
)
async def replies(extent: Extent) -> Report:
    report = Report()
    plays = {name: PLAYS[name] for name in TELLING} if extent is Extent.SHORT else PLAYS
    rounds = [False] if extent is not Extent.LONG else [False, True] * 5
    with RedisServer() as server:
        for is_flushed in rounds:  # scripts that Redis does not know make calls longer
            waiting = deque(plays.items())
            for script in SCRIPTS:
                server.cli("SCRIPT", "LOAD", script.source)

            async def lane() -> None:
                async with Proxy(HOST, server.port) as proxy:
                    while waiting:  # noqa: B023 - the lanes are over before the next round
                        name, play = waiting.popleft()  # noqa: B023
                        await lose_each(
                            server,
                            proxy,
                            name,
                            play,
                            report,
                            is_flushed=is_flushed,  # noqa: B023
                        )

            await asyncio.gather(*(lane() for _ in range(LANES)))
    return report


async def lose_each(
    server: RedisServer, proxy: Proxy, name: str, play: Play, report: Report, *, is_flushed: bool
) -> None:
    """Play it so often that each reply was lost once."""
    for number in range(MOST):
        before = proxy.dropped
        try:
            async with _farm(server, proxy) as (farm, onlooker):
                deed = await play(farm, onlooker)
                if is_flushed:
                    server.cli("SCRIPT", "FLUSH")
                proxy.lose_reply(number)
                try:
                    await deed.do()
                finally:
                    proxy.lose_reply(None)
                await deed.check()
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - it is told
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
            told = "".join(traceback.format_exception(first, limit=-3, chain=False))
            report.violations.append(f"{name}, reply {number + 1} lost: {told}")
        if proxy.dropped == before:
            report.checked["operations"] += 1
            return
        report.runs += 1
    report.violations.append(f"{name}: no end after {MOST} replies")


@asynccontextmanager
async def _farm(server: RedisServer, proxy: Proxy) -> AsyncIterator[tuple[Farm, Broker]]:
    async with Farm(BehindProxy(server, proxy)) as farm:
        options: dict[str, Any] = QUIET | {"namespace": farm.namespace}
        async with Broker.connect(server.url, user="alice", **options) as onlooker:
            try:
                yield farm, onlooker
            finally:
                await end_pools(onlooker)
                for name in await farm.keys():
                    if name.endswith(":dead"):
                        await farm.client.delete(name)


# Of sources and listeners -----------------------------------------------------------------------


def of_scene(what: str) -> Play:
    """One of the operations that the tests do with one script's reply lost."""
    operation = OPERATIONS[what]

    async def play(farm: Farm, onlooker: Broker) -> Deed:
        scene = await Scene.set(farm)

        async def do() -> None:
            assert await operation.use(scene) == operation.answer

        return Deed(do, lambda: operation.check(scene, onlooker))

    return play


async def begin(farm: Farm, onlooker: Broker) -> Deed:
    broker = await farm.broker("alice", **QUIET)

    async def check() -> None:
        server = await broker.server(PRINTER)
        leases = await farm.client.zrange(server.keys.leases, 0, -1)
        assert server.session.encode() in leases
        assert await onlooker.servers() == ["print01"], "one name was claimed"
        channel = await broker.open_channel(PRINTER, TYPE)
        await channel.release()

    return Deed(lambda: broker.server(PRINTER), check)


async def renew(farm: Farm, onlooker: Broker) -> Deed:  # noqa: ARG001
    server = await (await farm.broker("alice", **QUIET)).server(PRINTER)
    await farm.client.zadd(server.keys.leases, {server.session: 1}, xx=True)

    async def check() -> None:
        assert int(await farm.client.zscore(server.keys.leases, server.session) or 0) > 1
        assert server.lapses == 0

    return Deed(server._renew, check)


async def take(farm: Farm, onlooker: Broker) -> Deed:  # noqa: ARG001
    """What an application takes makes room, once."""
    source, listener = [await farm.broker("alice", **WATCHFUL) for _ in range(2)]
    registration = await listener.register(PRINTER, TYPE, buffer=2)
    channel = await source.open_channel(PRINTER, TYPE)
    await send(channel, b"1", b"2")

    async def do() -> None:
        assert [await heard(registration) for _ in range(2)] == [b"1", b"2"]
        assert [await _sent(channel, b"3"), await _sent(channel, b"4")] == [S_OK, S_OK]

    async def check() -> None:
        assert [await heard(registration) for _ in range(2)] == [b"3", b"4"]
        assert registration.unread == 0

    return Deed(do, check)


async def _sent(channel: Channel, body: bytes) -> object:
    """Without a loss: a take that is written a little late is none."""
    return await channel.send(body, lossless=True, timeout=PATIENCE)


async def run_down(farm: Farm, onlooker: Broker) -> Deed:
    dead = await farm.broker("alice", **QUIET)
    await dead.register(PRINTER, TYPE)
    await farm.question(dead)
    survivor = await farm.broker("bob", **QUIET)
    server = await survivor.server(PRINTER)
    session = (await dead.server(PRINTER)).session
    await die(farm, dead)
    await farm.client.zadd(server.keys.leases, {session: 0}, xx=True)

    async def check() -> None:
        await onlooker.run_down(PRINTER)
        assert (await onlooker.channels(), await onlooker.registrations()) == ([], [])
        assert await farm.client.zscore(server.keys.leases, session) is None, "it is buried"

    return Deed(lambda: survivor.run_down(PRINTER), check)


async def close(farm: Farm, onlooker: Broker) -> Deed:
    """A broker that goes takes along what it held, or it ends with its lease."""
    scene = await Scene.set(farm, lease=1.0)
    server = await scene.source.server(PRINTER)
    leases, session = server.keys.leases, server.session

    async def check() -> None:
        await onlooker.server(PRINTER)

        async def is_gone() -> bool:
            await farm.client.hset(server.keys.meta, "grace", 0)  # the onlooker's lease is long
            await onlooker.run_down(PRINTER)
            return await farm.client.zscore(leases, session) is None

        await until(is_gone)
        assert await onlooker.channels() == []

    return Deed(scene.source.close, check)


async def delete_printer(farm: Farm, onlooker: Broker) -> Deed:  # noqa: ARG001
    scene = await Scene.set(farm)
    everyones = await with_an_administrator(scene)

    async def do() -> None:
        deletion = await scene.source.delete_printer(PRINTER)
        found = (deletion.channels, deletion.told, deletion.ended, deletion.grants)
        assert found == (4, 2, 1, 2), found

    return Deed(do, lambda: all_was_told_once(scene, everyones))


# Of pools ---------------------------------------------------------------------------------------


async def create_pool(farm: Farm, onlooker: Broker) -> Deed:
    broker = await farm.broker("alice", **QUIET)

    async def do() -> None:
        assert await broker.pools.create(POOL, ALERTS), "this call made it"

    async def check() -> None:
        assert len(await onlooker.pools.on_server(SERVER)) == 1
        counts: Any = await farm.client.hgetall(keys_of(farm).counts)
        assert list(counts.values()) == [b"1"]

    return Deed(do, check)


async def delete_pool(farm: Farm, onlooker: Broker) -> Deed:
    broker = await farm.broker("alice", **QUIET)
    for name in (POOL, "other"):
        await broker.pools.create(name, ALERTS)

    async def do() -> None:
        (ended,) = await broker.pools.delete(POOL, PRINTER)
        assert ended.pool == POOL

    async def check() -> None:
        assert [each.pool for each in await onlooker.pools.on_server(SERVER)] == ["other"]

    return Deed(do, check)


async def join(farm: Farm, onlooker: Broker) -> Deed:
    broker = await farm.broker("alice", **QUIET)
    members: list[Member] = []

    async def do() -> None:
        members.append(await Member.of(broker))

    async def check() -> None:
        (member,) = members
        assert (await facts(onlooker)).replicas == (member.replica.server.session,)
        await send(await onlooker.open_channel(PRINTER, TYPE), b"page")
        assert await member.drain() == [b"page"]

    return Deed(do, check)


async def fetch(farm: Farm, onlooker: Broker) -> Deed:
    member = await Member.join(farm, **WATCHFUL)
    await send(await onlooker.open_channel(PRINTER, TYPE), b"1", b"2")
    taken: list[Any] = []

    async def do() -> None:
        taken.extend(await member.replica.take(1))

    async def check() -> None:
        taken.extend(await member.take(2 - len(taken)))
        assert sorted(one.notification.data for one in taken) == [b"1", b"2"]
        await member.replica.audit()
        await counted(onlooker, 0, 2)
        for one in taken:
            await one.done()
        await counted(onlooker, 0, 0)

    return Deed(do, check)


async def finish(farm: Farm, onlooker: Broker) -> Deed:
    member = await Member.join(farm, replace(ALERTS, buffer=2), **WATCHFUL)
    channel = await onlooker.open_channel(PRINTER, TYPE)
    await send(channel, b"1", b"2")
    one, other = await member.take(2)

    async def check() -> None:
        await counted(onlooker, 0, 1)
        assert await channel.send(b"3") == S_OK
        await other.done()
        assert await member.drain() == [b"3"]

    return Deed(one.done, check)


async def hand_back(farm: Farm, onlooker: Broker) -> Deed:
    one, other = [await Member.join(farm, **WATCHFUL) for _ in range(2)]
    await send(await onlooker.open_channel(PRINTER, TYPE), b"page")
    first = await one.delivery()

    async def check() -> None:
        again = await other.delivery()
        assert again.times == 2
        await other.replica.audit()
        await counted(onlooker, 0, 1)
        await again.done()

    return Deed(first.hand_back, check)


async def bury(farm: Farm, onlooker: Broker) -> Deed:
    member = await Member.join(farm, **WATCHFUL)
    await send(await onlooker.open_channel(PRINTER, TYPE), b"1", b"1")
    one, other = await member.take(2)
    letters: list[str] = []

    async def do() -> None:
        letters.append(await one.bury("it burns"))

    async def check() -> None:
        letters.append(await other.bury("it burns"))
        found = await onlooker.dead_letters.on_server(SERVER)
        assert [each.id for each in found] == letters[::-1]
        await counted(onlooker, 0, 0)

    return Deed(do, check)


async def replay(farm: Farm, onlooker: Broker) -> Deed:
    member = await Member.join(farm, **WATCHFUL)
    await send(await onlooker.open_channel(PRINTER, TYPE), b"poison")
    letter = await (await member.delivery()).bury("it burns")
    operator = await farm.broker("bob", **QUIET)
    await operator.server(PRINTER)

    async def check() -> None:
        assert await onlooker.dead_letters.on_server(SERVER) == []
        again = await member.delivery()
        assert again.notification.data == b"poison"
        await again.done()
        assert await member.drain() == [], "it came once"
        await counted(onlooker, 0, 0)

    return Deed(lambda: operator.dead_letters.replay(PRINTER, letter), check)


async def drop(farm: Farm, onlooker: Broker) -> Deed:
    member = await Member.join(farm, **WATCHFUL)
    await send(await onlooker.open_channel(PRINTER, TYPE), b"x" * 30_000)
    letter = await (await member.delivery()).bury("it burns")
    operator = await farm.broker("bob", **QUIET)
    await operator.server(PRINTER)

    async def do() -> None:
        assert await operator.dead_letters.drop(PRINTER, letter), "this call dropped it"

    async def check() -> None:
        assert await onlooker.dead_letters.on_server(SERVER) == []
        assert not [key for key in await farm.keys() if ":body:" in key], "its body went, too"

    return Deed(do, check)


async def adopt(farm: Farm, onlooker: Broker) -> Deed:
    one, other = [await Member.join(farm, QUESTIONS, **WATCHFUL) for _ in range(2)]
    channel, _ = await ask(farm, onlooker, one)
    await one.replica.leave()
    taken: list[Any] = []

    async def do() -> None:
        taken.extend(await other.replica.take(1))

    async def check() -> None:
        again = taken[0] if taken else await other.offer()
        assert isinstance(again, PooledOffer)
        await goes_on(channel, again)

    return Deed(do, check)


async def answer(farm: Farm, onlooker: Broker) -> Deed:
    member = await Member.join(farm, QUESTIONS, **WATCHFUL)
    channel = await farm.question(onlooker)
    offer = await member.offer()

    async def check() -> None:
        assert (await channel.response(PATIENCE)).data == b"yes"
        await goes_on(channel, offer)

    return Deed(lambda: offer.respond(b"yes", ends_turn=True), check)


async def leave(farm: Farm, onlooker: Broker) -> Deed:
    one, other = [await Member.join(farm, QUESTIONS, **WATCHFUL) for _ in range(2)]
    channel, _ = await ask(farm, onlooker, one)
    asked = await farm.question(onlooker)
    await one.offer()

    async def check() -> None:
        taken: dict[str, Any] = {offer.id: offer for offer in await other.take(2)}
        assert taken[asked.id].redelivered
        await goes_on(channel, taken[channel.id])
        await asked.close()
        session = other.replica.server.session
        assert (await facts(onlooker, style=BIDIRECTIONAL)).replicas == (session,)

    return Deed(one.replica.leave, check)


PLAYS: Mapping[str, Play] = {
    **{what: of_scene(what) for what in OPERATIONS},
    "begin a session": begin,
    "renew a lease": renew,
    "take": take,
    "run the dead down": run_down,
    "close a broker": close,
    "delete a printer": delete_printer,
    "create a pool": create_pool,
    "delete a pool": delete_pool,
    "join a pool": join,
    "fetch": fetch,
    "finish": finish,
    "hand back": hand_back,
    "put aside": bury,
    "replay": replay,
    "drop a dead letter": drop,
    "adopt a dialog": adopt,
    "answer for a pool": answer,
    "leave a pool": leave,
}
TELLING = ("open a channel", "send", "ask", "answer", "close as the source", "register", "fetch")
"""What the test run plays: the steps of a dialog, without those that a pool needs besides."""
