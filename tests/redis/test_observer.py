"""What an observer is told, on a real server: each thing once, and gaps only where some are."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Offer
from broker.errors import ChannelAcquired, NotificationFailure, OutcomeUnknown, RedisUnreachable
from broker.results import LOST_THE_RACE
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.proxy import Proxy
from tests.recorder import Recorder
from tests.redis.scenes import QUIET, BehindProxy, bells_of, heard, until
from tests.servers import RedisServer


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def question(farm: Farm, *listeners: Broker) -> tuple[Any, list[Offer[Any]]]:
    """A channel on which something was asked, and the offers to these listeners."""
    source = await farm.broker(**QUIET)
    registrations = [
        await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL) for listener in listeners
    ]
    channel = await farm.question(source)
    return channel, [await farm.offered(registration) for registration in registrations]


# Calls and sends --------------------------------------------------------------------------------


async def test_each_call_of_a_script_is_told_with_its_answer(
    real_farm: Farm, recorder: Recorder
) -> None:
    source = await real_farm.broker(observer=recorder, **QUIET)
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(b"one")
    await channel.close()
    assert recorder.of("script") == [
        ("open", "OK"),
        ("uni_send", "NO_LISTENERS"),
        ("source_close", "OK"),
    ]
    assert all(0 < seconds < PATIENCE for seconds in recorder.seconds)


async def test_a_call_that_got_no_answer_is_told_by_its_error(
    redis_server: RedisServer, recorder: Recorder
) -> None:
    async with (
        Proxy("127.0.0.1", redis_server.port) as proxy,
        Farm(BehindProxy(redis_server, proxy)) as farm,
    ):
        source = await farm.broker(observer=recorder, operation_timeout=0.2, **QUIET)
        channel = await source.open_channel(PRINTER, TYPE)
        proxy.refuse(on=True)
        proxy.cut()
        with pytest.raises((RedisUnreachable, OutcomeUnknown)) as raised:
            await channel.send(b"one")
        assert recorder.of("script")[-1] == ("uni_send", raised.type.__name__)
        assert recorder.seconds[-1] >= 0.2, "its time is told, too"
        assert recorder.of("sent") == [], "nobody knows of a send"
        proxy.refuse(on=False)


async def test_each_send_is_told_with_its_word_whether_it_succeeded_or_not(
    real_farm: Farm, recorder: Recorder
) -> None:
    source = await real_farm.broker(observer=recorder, **QUIET)
    listener = await real_farm.broker(**QUIET)
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(b"nobody")
    await listener.register(PRINTER, TYPE, buffer=1)
    await channel.send(b"fits")
    with pytest.raises(NotificationFailure):
        await channel.send(b"does not")
    asked = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    await asked.send(b"go on?")
    assert recorder.of("sent") == [
        (UNIDIRECTIONAL, "NO_LISTENERS"),
        (UNIDIRECTIONAL, "OK"),
        (UNIDIRECTIONAL, "FAILURE"),
        (BIDIRECTIONAL, "NO_LISTENERS"),
    ]


# Acquisitions and responses ---------------------------------------------------------------------


async def test_the_first_answer_is_told_as_won_the_late_one_as_lost(real_farm: Farm) -> None:
    first, second = Recorder(), Recorder()
    channel, (winner, loser) = await question(
        real_farm,
        await real_farm.broker(observer=first, **QUIET),
        await real_farm.broker(observer=second, **QUIET),
    )
    await winner.respond(b"yes")
    with pytest.raises(ChannelAcquired):
        await loser.respond(b"no")
    await channel.response(PATIENCE)
    await channel.send(b"sure?")
    await winner.follow_up(PATIENCE)
    await winner.respond(b"sure")
    assert first.of("acquisition") == [(True,)], "a dialog is acquired once"
    assert second.of("acquisition") == [(False,)]


async def test_an_answer_that_closes_acquires_too_and_declining_does_not(real_farm: Farm) -> None:
    recorders = [Recorder() for _ in range(3)]
    brokers = [await real_farm.broker(observer=each, **QUIET) for each in recorders]
    _, (declining, closing, late) = await question(real_farm, *brokers)
    await declining.decline()
    await closing.close(b"no")
    assert await late.close(b"yes") == LOST_THE_RACE
    told = [each.of("acquisition") for each in recorders]
    assert told == [[], [(True,)], [(False,)]]


async def test_each_response_is_told_where_it_arrives(real_farm: Farm, recorder: Recorder) -> None:
    source = await real_farm.broker(observer=recorder, **QUIET)
    answering = Recorder()
    listener = await real_farm.broker(observer=answering, **QUIET)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await real_farm.question(source)
    offer = await real_farm.offered(registration)
    await offer.respond(b"yes")
    await channel.response(PATIENCE)
    assert recorder.of("responded") == [()]
    await channel.send(b"sure?")
    await offer.follow_up(PATIENCE)
    await offer.close(b"at last")
    assert (await channel.response(PATIENCE)).is_final
    assert recorder.of("responded") == [(), ()]
    assert answering.of("acquisition") == [(True,)], "it was its own already"


async def test_a_close_without_a_word_is_no_response(real_farm: Farm, recorder: Recorder) -> None:
    source = await real_farm.broker(observer=recorder, **QUIET)
    listener = await real_farm.broker(**QUIET)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await real_farm.question(source)
    offer = await real_farm.offered(registration)
    await offer.respond(b"yes")
    await channel.response(PATIENCE)
    await channel.send(b"sure?")
    await offer.follow_up(PATIENCE)
    await offer.close()
    assert await channel.wait_closed(PATIENCE) is not None
    assert recorder.of("responded") == [()]


# Losses -----------------------------------------------------------------------------------------


async def test_a_lost_lease_is_told_once(real_farm: Farm, recorder: Recorder) -> None:
    broker = await real_farm.broker(observer=recorder, **QUIET)
    server = await broker.server(PRINTER)
    await real_farm.client.zadd(server.keys.leases, {server.session: 0})
    channels = [await broker.channel(PRINTER, TYPE) for _ in range(3)]
    await asyncio.gather(*(channel.open() for channel in channels))
    assert server.lapses == 1
    assert recorder.of("lease") == [("print01",)]
    assert ("open", "LAPSED") in recorder.of("script")
    await broker.run_down()


class Deaf:
    """Swallows the bells of one broker whose numbers, in the order of their ringing, are named."""

    def __init__(self, broker: Broker) -> None:
        self.lost: set[int] = set()
        self.rung = 0
        bells = bells_of(broker)
        self._ring = bells._on_ring
        bells._on_ring = self._perhaps

    def _perhaps(self, channel: str, payload: bytes) -> None:
        self.rung += 1
        if self.rung not in self.lost:
            self._ring(channel, payload)


async def test_a_lost_bell_is_told_when_the_next_one_shows_it(
    real_farm: Farm, recorder: Recorder
) -> None:
    source = await real_farm.broker(**QUIET)
    listener = await real_farm.broker(observer=recorder, **QUIET)
    registration = await listener.register(PRINTER, TYPE)
    deaf = Deaf(listener)
    deaf.lost = {2}
    channel = await source.open_channel(PRINTER, TYPE)
    for number in range(4):
        await channel.send(b"%d" % number)
    assert [await heard(registration) for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert recorder.of("resync") == [("print01",)]


async def test_a_lost_bell_of_a_board_is_told_too(real_farm: Farm, recorder: Recorder) -> None:
    source = await real_farm.broker(**QUIET)
    listener = await real_farm.broker(observer=recorder, **QUIET)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    deaf = Deaf(listener)
    deaf.lost = {2}
    for _ in range(3):
        await real_farm.question(source)
    for _ in range(3):
        await real_farm.offered(registration)
    assert recorder.of("resync") == [("print01",)]


async def test_a_subscription_that_was_away_is_told_once(
    real_farm: Farm, recorder: Recorder
) -> None:
    listener = await real_farm.broker(observer=recorder, **QUIET)
    for style in (UNIDIRECTIONAL, BIDIRECTIONAL):
        await listener.register(PRINTER, TYPE, style=style)
    assert recorder.of("resync") == []
    await real_farm.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    async def is_told() -> bool:
        return bool(recorder.of("resync"))

    await until(is_told)
    server = await listener.server(PRINTER)
    assert server._checking is not None
    await asyncio.wait({server._checking})
    assert recorder.of("resync") == [("print01",)], "once for all its streams"


@pytest.fixture
async def brisk(real_farm: Farm, recorder: Recorder) -> tuple[Broker, Broker]:
    """A source and a listener that look by the clock again and again."""
    options: dict[str, Any] = {"lease": 60.0, "resync": 0.02}
    source = await real_farm.broker(**options)
    return source, await real_farm.broker(observer=recorder, **options)


async def test_looking_by_the_clock_is_no_gap(
    brisk: tuple[Broker, Broker], recorder: Recorder
) -> None:
    source, listener = brisk
    one_way = await listener.register(PRINTER, TYPE)
    two_way = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await source.open_channel(PRINTER, TYPE)
    server = await listener.server(PRINTER)
    readers = list(server.listening.readers.values())
    for number in itertools.count():
        await channel.send(b"%d" % number)
        assert await heard(one_way) == b"%d" % number
        asked = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
        await asked.send(b"go on?")
        offer = await two_way.fetch(PATIENCE)
        assert isinstance(offer, Offer)
        await offer.close(b"no")
        if number >= 30 and all(reader.resyncs >= 10 for reader in readers):
            break
    assert recorder.of("resync") == []


async def test_a_large_body_is_no_gap(real_farm: Farm, recorder: Recorder) -> None:
    """Its bell does not carry it, so it is read from Redis; no bell was lost."""
    source = await real_farm.broker(**QUIET)
    listener = await real_farm.broker(observer=recorder, **QUIET)
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE)
    for body in (b"small", b"x" * 8_000, b"x" * 20_000, b"small"):
        await channel.send(body)
        assert await heard(registration) == body
    assert recorder.of("resync") == []


async def test_a_registration_in_the_midst_of_sends_is_no_gap(
    real_farm: Farm, recorder: Recorder
) -> None:
    source = await real_farm.broker(**QUIET)
    listener = await real_farm.broker(observer=recorder, **QUIET)
    channel = await source.open_channel(PRINTER, TYPE)
    await (await real_farm.broker(**QUIET)).register(PRINTER, TYPE, buffer=10_000)
    is_over = False

    async def chatter() -> None:
        while not is_over:
            await channel.send(b"x")
            asked = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
            await asked.send(b"?")
            await asked.close()

    chattering = asyncio.create_task(chatter())
    for _ in range(20):
        for style in (UNIDIRECTIONAL, BIDIRECTIONAL):
            await (await listener.register(PRINTER, TYPE, style=style)).unregister()
    is_over = True
    await chattering
    assert recorder.of("resync") == []
