"""What a pool put aside is listed, goes back to that pool alone and once, or is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Channel, Style
from broker._keys import Keys
from broker.dead_letter import DeadLetter
from broker.errors import (
    InvalidArgument,
    NoSuchLetter,
    NotInHand,
    NotReplayed,
    TympanError,
)
from broker.names import Name
from broker.pool import Subscription
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.redis.pooling import Member
from tests.redis.scenes import QUIET, clock

ONE_WAY = Subscription(PRINTER, TYPE)
TWO_WAY = Subscription(PRINTER, TYPE, style=BIDIRECTIONAL)
ALL_PRINTERS = Subscription(SERVER, TYPE, printers=True)
LARGE = b"x" * 30_000
"""Kept by reference."""


@pytest.fixture
async def farm(farm: Farm) -> AsyncIterator[Farm]:
    """A farm whose pools are ended with it; their letters may stay."""
    yield farm
    broker = await farm.broker(**QUIET)
    for pool in ("desk", "mail"):
        await broker.pools.delete(pool, SERVER)


class Part(Member):
    """A replica that puts aside what the test says."""

    async def bury(self, reason: str = "no such tray") -> str:
        """The next thing; the letter's id."""
        (found,) = await self.take(1)
        return str(await found.bury(reason))

    async def is_handed(self, body: bytes) -> Any:
        """The next thing, which has this body."""
        (found,) = await self.take(1)
        assert found.notification.data == body
        return found


async def letters(broker: Broker, **options: Any) -> list[DeadLetter]:
    return await broker.dead_letters.on_server(SERVER, **options)


async def told(source: Broker, *bodies: bytes, name: str = PRINTER) -> Channel:
    channel = await source.open_channel(name, TYPE)
    for body in bodies:
        await channel.send(body)
    return channel


# Looking ----------------------------------------------------------------------------------------


async def test_a_letter_says_whence_it_came_and_what_went_wrong(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "Desk")
    began = await clock(farm.client)
    channel = await told(broker, b"out of paper")
    first = await desk.delivery()
    await first.hand_back()
    letter_id = await desk.bury("KeyError: tray")
    (letter,) = await letters(broker)
    assert (letter.id, letter.pool, letter.registration) == (letter_id, "desk", desk.replica.id)
    assert (letter.name, letter.type, letter.user) == (Name.parse(PRINTER), TYPE, "alice")
    assert (letter.reason, letter.times, letter.data) == ("KeyError: tray", 2, b"out of paper")
    assert (letter.channel, letter.style.word, letter.is_dialog) == (channel.id, "uni", False)
    assert began - 0.01 <= letter.at <= letter.buried_at <= await clock(farm.client)
    assert await broker.dead_letters.get(SERVER, letter_id) == letter
    (facts,) = await broker.pools.on_server(SERVER)
    assert facts.backlog == 0, "its neighbours go on"


async def test_letters_come_newest_first_of_one_pool_or_printer_and_so_many(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ALL_PRINTERS, "desk")
    mail = await Part.of(broker, ONE_WAY, "mail")
    await told(broker, b"1", b"2")
    await told(broker, b"3", name=OTHER_PRINTER)
    ids = [await desk.bury() for _ in range(3)]
    of_mail = [await mail.bury() for _ in range(2)]
    assert [one.id for one in await letters(broker)] == [*reversed(ids + of_mail)]
    assert [one.data for one in await letters(broker, pool="DESK")] == [b"3", b"2", b"1"]
    assert [one.id for one in await letters(broker, limit=1)] == [of_mail[-1]]
    assert [one.id for one in await letters(broker, pool="desk", limit=2)] == [ids[2], ids[1]]
    there = await broker.dead_letters.on_server(OTHER_PRINTER, limit=None)
    assert [one.id for one in there] == [ids[2]]
    assert await letters(broker, pool="nobody") == []


async def test_more_letters_than_are_read_at_once(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, b"page")
    await desk.bury()
    key = Keys(farm.namespace, "print01").dead
    ((_, fields),) = cast(list[Any], await farm.client.xrange(key))
    for _ in range(600):
        await farm.client.xadd(key, fields)
    assert len(await letters(broker, limit=None)) == 601
    assert len(await letters(broker, limit=300)) == 300
    assert len(await letters(broker)) == 100


async def test_looking_begins_no_session_and_makes_no_server(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    assert await letters(broker) == []
    with pytest.raises(NoSuchLetter, match="no dead letter 1-1 on"):
        await broker.dead_letters.replay(SERVER, "1-1")
    assert not await broker.dead_letters.drop(SERVER, "1-1")
    assert await broker.pools.on_server(SERVER) == await broker.pools.delete("desk", SERVER) == []
    assert not await broker.survey()
    assert not await broker.servers()
    assert await farm.keys() == []


@pytest.mark.parametrize("text", ["", "-", "+", "12", "1-x", "1-1 ", "\u0661-1", "1-" + "9" * 30])
async def test_what_is_no_id_is_refused(farm: Farm, text: str) -> None:
    broker = await farm.broker(**QUIET)
    for call in (
        broker.dead_letters.get, broker.dead_letters.replay, broker.dead_letters.drop,
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match="is no id of a dead letter"):
            await call(SERVER, text)
    with pytest.raises(InvalidArgument, match="limit=0"):
        await letters(broker, limit=0)


async def test_what_cannot_be_written_down_is_put_aside_all_the_same(farm: Farm) -> None:
    """A file's name that is no text stands in an exception with lone surrogates."""
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, b"page")
    await desk.bury("no file caf\udce9.pdf")
    (letter,) = await letters(broker)
    assert letter.reason == r"no file caf\udce9.pdf"


# Replaying --------------------------------------------------------------------------------------


async def test_a_replayed_notification_reaches_that_pool_alone_and_once(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    mail = await Part.of(broker, ONE_WAY, "mail")
    listener = await broker.register(PRINTER, TYPE)
    channel = await told(broker, b"page")
    letter_id = await desk.bury()
    await (await mail.delivery()).done()
    assert await listener.fetch(PATIENCE)
    replayed = await broker.dead_letters.replay(SERVER, letter_id)
    assert replayed.id == letter_id
    found = await desk.is_handed(b"page")
    assert (found.notification.channel, found.notification.user) == (channel.id, "alice")
    assert found.times == 1, "its deliveries are counted anew"
    await found.done()
    assert await letters(broker) == []
    with pytest.raises(NoSuchLetter, match="replayed or dropped"):
        await broker.dead_letters.replay(SERVER, letter_id)
    assert await mail.replica.take(1) == await desk.replica.take(1) == []
    assert await listener.fetch(0) is None


async def test_of_many_who_replay_one_letter_one_does(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    others = [await farm.broker(**QUIET) for _ in range(3)]
    await told(broker, b"page")
    letter_id = await desk.bury()
    done = await asyncio.gather(
        *(one.dead_letters.replay(SERVER, letter_id) for one in others), return_exceptions=True
    )
    assert sum(isinstance(one, DeadLetter) for one in done) == 1
    assert sum(isinstance(one, NoSuchLetter) for one in done) == 2
    await desk.is_handed(b"page")
    assert await desk.replica.take(5) == []


async def test_a_question_that_is_open_is_handed_out_again(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, TWO_WAY, "desk")
    question = await farm.question(broker)
    letter_id = await desk.bury()
    await broker.dead_letters.replay(SERVER, letter_id)
    offer = await desk.is_handed(b"continue?")
    assert offer.redelivered
    await offer.respond(b"yes")
    assert (await question.response(PATIENCE)).data == b"yes"
    await question.close()


async def test_a_question_that_is_over_stays_a_letter(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, TWO_WAY, "desk")
    listener = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    await farm.question(broker)
    letter_id = await desk.bury()
    await (await farm.offered(listener)).respond(b"mine")
    await stays(broker, letter_id, "open no more")


async def test_a_dialog_cannot_be_replayed(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, TWO_WAY, "desk")
    question = await farm.question(broker)
    offer = await desk.offer()
    await offer.respond(b"yes")
    letter_id = await offer.bury("it broke later")
    assert await question.wait_closed(PATIENCE)
    (letter,) = await letters(broker)
    assert letter.is_dialog
    assert (letter.channel, letter.user, letter.data) == (question.id, "alice", b"continue?")
    await stays(broker, letter_id, "a dialog, which was closed")
    assert await broker.dead_letters.drop(SERVER, letter_id)


async def test_a_dialog_whose_question_is_gone_is_put_aside_without_it(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, TWO_WAY, "desk")
    question = await farm.question(broker, LARGE)
    held = await farm.client.hget(Keys(farm.namespace, "print01").channel(question.id), "held")
    assert held is not None
    await farm.client.delete(held)
    offer = await desk.offer()
    await offer.respond(b"yes")
    await offer.bury("it broke later")
    (letter,) = await letters(broker)
    assert (letter.channel, letter.data) == (question.id, None)


async def test_without_its_pool_a_letter_stays_until_that_is_made_again(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, b"page")
    letter_id = await desk.bury()
    await broker.pools.delete("desk", SERVER)
    await stays(broker, letter_id, "pool desk is gone")
    await broker.pools.create("desk", ALL_PRINTERS)
    await stays(broker, letter_id, "pool desk is gone")
    await broker.pools.create("desk", ONE_WAY)
    await broker.dead_letters.replay(SERVER, letter_id)
    (facts,) = await broker.pools.on_server(PRINTER)
    assert facts.waiting == 1


async def test_a_full_pool_takes_no_letter(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, Subscription(PRINTER, TYPE, buffer=2), "desk")
    channel = await told(broker, b"1", b"2")
    letter_id = await desk.bury()
    await channel.send(b"3")
    await stays(broker, letter_id, "no room: 2 are not finished")
    await (await desk.is_handed(b"2")).done()
    await broker.dead_letters.replay(SERVER, letter_id)
    assert [(await desk.delivery()).notification.data for _ in range(2)] == [b"3", b"1"]


async def stays(broker: Broker, letter_id: str, why: str) -> None:
    """It is not replayed, with the reason."""
    with pytest.raises(NotReplayed, match=why) as caught:
        await broker.dead_letters.replay(SERVER, letter_id)
    assert (caught.value.letter, caught.value.pool) == (letter_id, "desk")
    assert [letter.id for letter in await letters(broker)] == [letter_id]


# Bodies -----------------------------------------------------------------------------------------


async def test_a_body_that_is_kept_apart_comes_with_the_letter_and_goes_with_it(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, LARGE)
    letter_id = await desk.bury()
    (listed,) = await letters(broker)
    assert listed.data is None, "a list holds no bodies that are kept apart"
    assert listed.reference in await farm.keys()
    assert (await broker.dead_letters.get(SERVER, letter_id)).data == LARGE
    assert await broker.dead_letters.drop(SERVER, letter_id)
    assert listed.reference not in await farm.keys()
    assert not await broker.dead_letters.drop(SERVER, letter_id), "there was none any more"


@pytest.mark.parametrize("style", Style)
async def test_a_body_that_somebody_else_may_need_stays(farm: Farm, style: Style) -> None:
    """It is stored once for all who hear it."""
    broker = await farm.broker(**QUIET)
    asked = TWO_WAY if style is BIDIRECTIONAL else ONE_WAY
    desk = await Part.of(broker, asked, "desk")
    mail = await Part.of(broker, asked, "mail")
    channel = await broker.open_channel(PRINTER, TYPE, style=style)
    await channel.send(LARGE)
    assert await broker.dead_letters.drop(SERVER, await desk.bury())
    await mail.is_handed(LARGE)


async def test_a_body_stays_for_a_listener_who_was_sent_it(farm: Farm) -> None:
    admin = await farm.administrator("admin", **QUIET)
    desk = await Part.of(admin, Subscription(PRINTER, TYPE, user="alice"), "desk")
    await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    channel = await admin.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(LARGE)
    letter_id = await desk.bury()
    (letter,) = await letters(admin)
    assert await admin.dead_letters.drop(SERVER, letter_id)
    assert letter.reference in await farm.keys()


async def test_a_body_is_kept_as_long_as_its_letter_waits(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, LARGE)
    (body,) = [key for key in await farm.keys() if ":body:" in key]
    await farm.client.expire(body, 60)
    await desk.bury()
    assert await farm.client.ttl(body) > broker.settings.keep_pooled - 60


async def test_of_many_who_drop_one_letter_one_does(farm: Farm) -> None:
    """And who finds it replayed meanwhile takes no body away."""
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    others = [await farm.broker(**QUIET) for _ in range(3)]
    await told(broker, LARGE)
    letter_id = await desk.bury()
    done = await asyncio.gather(*(one.dead_letters.drop(SERVER, letter_id) for one in others))
    assert sorted(done) == [False, False, True]


async def test_the_body_of_an_open_question_does_not_end_before_it(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, TWO_WAY, "desk")
    await farm.question(broker, LARGE)
    letter_id = await desk.bury()
    (letter,) = await letters(broker)
    assert letter.reference is not None
    assert await farm.client.ttl(letter.reference) == -1
    await broker.dead_letters.replay(SERVER, letter_id)
    await desk.is_handed(LARGE)


async def test_a_letter_whose_body_is_gone_says_so_and_stays(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, LARGE)
    letter_id = await desk.bury()
    (letter,) = await letters(broker)
    assert letter.reference is not None
    await farm.client.delete(letter.reference)
    assert (await broker.dead_letters.get(SERVER, letter_id)).data is None
    await stays(broker, letter_id, "its body, which was kept apart, is gone")


async def test_a_replayed_body_is_kept_for_the_pool_again(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, LARGE)
    letter_id = await desk.bury()
    (letter,) = await letters(broker)
    assert letter.reference is not None
    await farm.client.expire(letter.reference, 60)
    await broker.dead_letters.replay(SERVER, letter_id)
    assert await farm.client.ttl(letter.reference) > broker.settings.keep_pooled - 60
    await desk.is_handed(LARGE)


# Burying ----------------------------------------------------------------------------------------


async def test_only_its_holder_puts_it_aside(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    other = await farm.broker(**QUIET)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, b"page")
    found = await desk.delivery()
    await found.hand_back()
    sibling = await Part.of(other, ONE_WAY, "desk")
    again = await sibling.is_handed(b"page")
    with pytest.raises(NotInHand):
        await found.bury("too late")
    assert await letters(broker) == []
    await again.done()
    with pytest.raises(TympanError):
        await found.bury("later still")
    assert await letters(broker) == []


async def test_a_server_keeps_its_newest_letters(farm: Farm) -> None:
    broker = await farm.broker(**QUIET, dead_letters=2)
    desk = await Part.of(broker, ONE_WAY, "desk")
    await told(broker, b"1", b"2", b"3")
    ids = [await desk.bury() for _ in range(3)]
    assert [letter.id for letter in await letters(broker)] == [ids[2], ids[1]]
