"""Channels of a print host, on a real Redis: in order, once, and through whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker import ALL_USERS, Broker, Name, Registration
from broker.errors import AccessDenied, OutcomeUnknown, RedisRefused
from tests.farm import Farm
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.unit.test_proxy import until
from workers.cups import claim
from workers.cups.claim import Claim, Claimed, identity
from workers.cups.events import sending
from workers.cups.events.levels import Told
from workers.cups.events.sending import Sending
from workers.cups.types import JobStatus, PrinterStatus, ServerStatus

SERVER = Name.parse(r"\\print01")
AT = datetime(2026, 11, 21, tzinfo=UTC)


def status(number: int, queue: str = "laser-3") -> Told:
    said = PrinterStatus(
        host="print01", event=f"print01/1/1/{number}", at=AT, printer=queue, state="idle"
    )
    return Told(queue, None, said)


def job(number: int, user: str = "alice") -> Told:
    said = JobStatus(
        host="print01",
        event=f"print01/1/1/{number}",
        at=AT,
        printer="laser-3",
        job=number,
        owner=user,
        state="processing",
    )
    return Told("laser-3", user, said)


async def heard(registration: Registration[Any], many: int) -> list[Any]:
    """So many payloads, with the printers that they are of."""
    found = []
    async with asyncio.timeout(20):
        async for notification in registration:
            if notification.is_release:
                continue
            found.append(notification.payload)
            if len(found) == many:
                break
    return found


def numbers(payloads: list[Any]) -> list[int]:
    return [int(payload.event.rpartition("/")[2]) for payload in payloads]


@pytest.fixture
async def spooler(real_farm: Farm) -> Broker:
    return await real_farm.broker("spooler", lease=2.0)


@pytest.fixture
async def out(spooler: Broker) -> AsyncIterator[Sending]:
    made = Sending(spooler, SERVER, patience=0.3)
    yield made
    await made.close()


async def test_what_is_sent_arrives_in_order(real_farm: Farm, out: Sending) -> None:
    admin = await real_farm.administrator("admin", r"\\print01")
    hears = await admin.register(
        SERVER, PrinterStatus, user_filter=ALL_USERS, printers=True, buffer=10
    )
    out.patience = 10.0
    listening = asyncio.create_task(heard(hears, 300))
    await out.send([status(number) for number in range(300)])
    assert numbers(await listening) == list(range(300))
    assert out.counts == {"sent": 300}


async def test_a_job_is_its_owners_business(real_farm: Farm, out: Sending) -> None:
    alice, bob = await real_farm.broker("alice"), await real_farm.broker("bob")
    hers = await alice.register(r"\\print01\laser-3", JobStatus)
    his = await bob.register(r"\\print01\laser-3", JobStatus)
    await out.send([job(1), job(2, "bob"), job(3)])
    assert numbers(await heard(hers, 2)) == [1, 3]
    assert numbers(await heard(his, 1)) == [2]


async def test_a_print_host_administers_printers_that_are_new(
    real_farm: Farm, out: Sending
) -> None:
    await out.send([status(1, "new one"), status(2, "büro, 2")])
    names = {str(grant.name) for grant in await (await real_farm.broker()).grants(SERVER)}
    assert names == {r"\\print01\new one", r"\\print01\büro%2c 2"}
    assert out.counts == {"sent": 2, "unheard": 2}


async def test_nobody_waits_long_for_a_listener_without_room(
    real_farm: Farm, out: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "IMPATIENCE", 60.0)
    admin = await real_farm.administrator("admin", r"\\print01\laser-3")
    other = await real_farm.administrator("other", r"\\print01\laser-3")
    options: dict[str, Any] = {"user_filter": ALL_USERS}
    full = await admin.register(r"\\print01\laser-3", PrinterStatus, buffer=1, **options)
    roomy = await other.register(r"\\print01\laser-3", PrinterStatus, buffer=100, **options)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await out.send([status(number) for number in range(20)])
    assert loop.time() - begun < 10
    assert numbers(await heard(roomy, 20)) == list(range(20))
    assert out.counts["sent"] == 20
    assert out.counts["missed"] >= 18
    assert numbers(await heard(full, 1)) == [0]
    begun = loop.time()
    await out.send([status(number) for number in range(20, 30)])
    assert loop.time() - begun < out.patience


async def test_nobody_waits_forever_for_a_listener_that_is_slow(
    real_farm: Farm, out: Sending
) -> None:
    admin = await real_farm.administrator("admin", r"\\print01\laser-3")
    options: dict[str, Any] = {"user_filter": ALL_USERS}
    slow = await admin.register(r"\\print01\laser-3", PrinterStatus, buffer=1, **options)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    sent = asyncio.create_task(out.send([status(number) for number in range(40)]))
    taken = []
    while not sent.done():  # one in 0.2 s: each time before anybody loses patience
        taken.append(await slow.fetch(0.1))
        await asyncio.wait([sent], timeout=0.2)
    assert loop.time() - begun < 4 * out.patience + 5
    assert out.counts["sent"] == 40
    assert out.counts["missed"] > 0
    assert numbers([one.payload for one in taken if one is not None]) == sorted(
        numbers([one.payload for one in taken if one is not None])
    )


def _large() -> PrinterStatus:
    said = status(1).payload
    assert isinstance(said, PrinterStatus)
    return said.model_copy(update={"text": "x" * 11_000_000})


async def test_what_can_be_sent_to_nobody_is_counted_and_left(out: Sending) -> None:
    odd = job(1)._replace(user="*")
    large = Told("laser-3", None, _large())
    await out.send([odd, large, status(2)])
    assert out.counts == {"refused": 2, "sent": 1, "unheard": 1}


async def test_idle_channels_are_closed_and_opened_again(
    real_farm: Farm, out: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = await real_farm.broker("watcher")
    await out.send([status(1), job(1)])
    assert len(await watcher.channels(SERVER)) == 2
    await out.sweep()
    assert len(await watcher.channels(SERVER)) == 2
    monkeypatch.setattr(sending, "MOST_OPEN", 1)
    await out.sweep()
    assert [facts.user for facts in await watcher.channels(SERVER)] == ["alice"]
    monkeypatch.setattr(sending, "IDLE", 0.0)
    await out.sweep()
    assert await watcher.channels(SERVER) == []
    await out.send([status(2)])
    assert out.counts["sent"] == 3


async def test_a_channel_that_somebody_closed_is_opened_again(
    real_farm: Farm, out: Sending
) -> None:
    admin = await real_farm.administrator("admin", r"\\print01")
    await out.send([status(1)])
    await admin.delete_printer(r"\\print01\laser-3")
    await out.send([status(2)])
    assert out.counts["sent"] == 2


async def test_a_redis_that_is_away_is_waited_for(redis_server: RedisServer) -> None:
    quick = {"lease": 4.0, "reply_timeout": 0.3, "operation_timeout": 0.5, "connect_timeout": 0.3}
    options: dict[str, Any] = {"namespace": "sending-away", **quick}
    async with (
        Proxy("127.0.0.1", redis_server.port) as proxy,
        Broker.connect(proxy.url, user="spooler", **options) as broker,
        Broker.connect(redis_server.url, user="admin", namespace="sending-away") as admin,
    ):
        await admin.grant(r"\\print01\laser-3", "admin", "administer")
        hears = await admin.register(r"\\print01\laser-3", PrinterStatus, user_filter=ALL_USERS)
        out = Sending(broker, SERVER)
        await out.send([status(0)])
        proxy.refuse(True)
        proxy.cut()
        waiting = asyncio.gather(*[out.put(status(number)) for number in range(1, 40)])
        await until(lambda: out.trouble is not None)
        assert not waiting.done()
        proxy.refuse(False)
        async with asyncio.timeout(20):
            await waiting
        assert numbers(await heard(hears, 40)) == list(range(40))
        assert out.trouble is None
        await out.close()


async def test_a_reply_that_is_lost_sends_nothing_twice(redis_server: RedisServer) -> None:
    quick = {"reply_timeout": 0.3, "operation_timeout": 0.4, "connect_timeout": 0.3}
    options: dict[str, Any] = {"namespace": "sending-lost", **quick}
    async with (
        Proxy("127.0.0.1", redis_server.port) as proxy,
        Broker.connect(proxy.url, user="spooler", **options) as broker,
        Broker.connect(redis_server.url, user="admin", **options) as admin,
    ):
        await admin.grant(r"\\print01\laser-3", "admin", "administer")
        hears = await admin.register(r"\\print01\laser-3", PrinterStatus, user_filter=ALL_USERS)
        out = Sending(broker, SERVER)
        await out.send([status(0)])
        proxy.drop_replies(0.3)
        async with asyncio.timeout(60):
            for number in range(1, 20):
                await out.send([status(number)])
        proxy.drop_replies(0.0)
        found = await heard(hears, 20)
        assert numbers(found) == list(range(20))
        await out.close()


async def test_what_may_come_twice_says_so(
    real_farm: Farm, out: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call was done, its answer was lost, and then the channel: Redis was away for long."""
    admin = await real_farm.administrator("admin", r"\\print01")
    hears = await admin.register(SERVER, PrinterStatus, user_filter=ALL_USERS, printers=True)
    await out.send([status(0)])
    (line,) = out._lines.values()
    channel = line._channel
    assert channel is not None
    send = channel.send

    async def lost(*given: Any, **options: Any) -> None:
        monkeypatch.undo()
        await send(*given, **options)
        await channel.close()
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(channel, "send", lost)
    await out.send([status(1)])
    await out.send([status(2)])
    found = await heard(hears, 4)
    assert numbers(found) == [0, 1, 1, 2]
    assert [one.repeated for one in found] == [False, False, True, False]


async def test_a_host_that_may_not_speak_to_all_says_what_it_needs(
    spooler: Broker, out: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise RedisRefused("NOPERM")

    monkeypatch.setattr(spooler, "grant", refused)
    with pytest.raises(AccessDenied, match="tympan acl source observer --all-users"):
        await out.begin()
    task = asyncio.ensure_future(out.put(status(1)))
    await until(lambda: out.trouble is not None)
    assert "tympan grant" in str(out.trouble)
    monkeypatch.undo()
    async with asyncio.timeout(20):
        await task
    assert out.trouble is None


async def test_one_bridge_speaks_for_a_server(
    real_farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "PAUSE", 0.02)
    first = await real_farm.broker("spooler", lease=1.5)
    second = await real_farm.broker("spooler", lease=1.5)
    one = Claim(first, SERVER, "bridge of host-a (/var/spool/tympan)")
    other = Claim(second, SERVER, "bridge of host-b (/var/spool/tympan)")
    await one.make()
    with pytest.raises(Claimed, match=r"bridge of host-a .* bridge of host-b"):
        await other.make()
    await one.renew()
    await one.end()
    await other.make()
    await other.end()
    assert await first.channels(SERVER) == []


async def test_a_bridge_is_not_in_the_way_of_the_one_after_it(real_farm: Farm) -> None:
    first = await real_farm.broker("spooler", lease=30.0)
    second = await real_farm.broker("spooler", lease=30.0)
    same = identity(Path("/var/spool/tympan"))
    one, other = Claim(first, SERVER, same), Claim(second, SERVER, same)
    await one.make()
    async with asyncio.timeout(10):
        await other.make()
    await one.end()
    await other.end()


async def test_a_claim_that_redis_lost_is_made_again(
    real_farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "PAUSE", 0.02)
    broker = await real_farm.broker("spooler", lease=1.5)
    made = Claim(broker, SERVER, "bridge of host-a (/x)")
    await made.make()
    assert made._channel is not None
    await made._channel.release()
    await made.renew()
    claims = [f for f in await broker.channels(SERVER) if f.type == ServerStatus.notification_type]
    assert "bridge of host-a (/x)" in {facts.user for facts in claims}
    await made.end()


def test_two_places_are_two_bridges() -> None:
    assert identity(Path("/a")) != identity(Path("/b"))
    assert len(identity(Path("/" + "x" * 400))) == 256
    assert "|" not in identity(Path("/a|b"))
