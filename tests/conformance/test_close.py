"""Close: one of the two ends ends the channel, the other one is told once, and then it is quiet.

What is queued when the close arrives is gone; what was refused because of it reached nobody.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Any

import pytest

from broker import (
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    Channel,
    Code,
    Data,
    Notification,
    Offer,
    Payload,
    Registration,
    Result,
)
from broker._end import End
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    ChannelError,
    ChannelNotOpened,
    TympanError,
)
from broker.results import LOST_THE_RACE, S_OK
from tests.conformance.actors import (
    Recorder,
    all_heard,
    asked,
    called,
    dialog,
    eventually,
    listener,
    said,
    sessions,
    state,
)
from tests.conformance.rules import rule
from tests.farm import PATIENCE, PRINTER, TYPE, Farm

ROUNDS = 25
PROMPT = 2.0
"""Seconds within which a call that waits for nobody has returned, on the slowest machine."""
RELEASE = (None, 0, NOTIFICATION_RELEASE)
TURNS = pytest.mark.parametrize("turn", ["source", "owner"])


async def refused_as_closed(call: Any) -> ChannelAlreadyClosed:
    """The call fails with CHANNEL_ALREADY_CLOSED."""
    with pytest.raises(ChannelAlreadyClosed) as refused:
        await call
    assert refused.value.result.hresult == 0x8004_0008
    return refused.value


async def held_dialog(
    farm: Farm, *, turn: str = "source"
) -> tuple[Channel, Offer[Any], Recorder, Recorder]:
    """A dialog whose both ends hear through callbacks: channel, offer, source's, owner's."""
    at_source, at_owner = Recorder(), Recorder()
    source = await farm.broker("spooler")
    await called(farm, at_owner)
    channel = await asked(source, at_source)
    await at_owner.until(notified=1)
    offer = at_owner.handle
    assert isinstance(offer, Offer)
    await offer.respond(b"here")
    await at_source.until(notified=1)
    if turn == "owner":
        await channel.send(b"go on")
        await at_owner.until(notified=2)
    return channel, offer, at_source, at_owner


async def everybody_heard(farm: Farm) -> None:
    """All processes of the farm have heard what was told to them; the first one is the source."""
    source, *listeners = farm.brokers
    await all_heard(farm, source, *listeners)


# Who closes, and who is told --------------------------------------------------------------------


@rule(94, 95)
@TURNS
@pytest.mark.parametrize("closer", ["source", "owner"])
async def test_either_end_closes_a_dialog_and_the_other_is_told_once(
    farm: Farm, closer: str, turn: str
) -> None:
    channel, offer, at_source, at_owner = await held_dialog(farm, turn=turn)
    ends: dict[str, End[Any]] = {"source": channel, "owner": offer}
    heard = {"source": at_source, "owner": at_owner}
    other = "owner" if closer == "source" else "source"
    assert await ends[closer].close(b"enough") == S_OK
    await heard[other].until(closed=1)
    await everybody_heard(farm)
    assert [reason.data for reason in heard[other].closed] == [b"enough"]
    assert not heard[closer].closed, "the closer itself is not told"
    assert heard[other].told[-1].event == "closed"
    assert await state(farm.brokers[0], channel) == "closed"


@rule(95)
async def test_a_source_that_closes_unanswered_tells_every_listener_once(farm: Farm) -> None:
    recorders = [Recorder() for _ in range(3)]
    at_source = Recorder()
    source = await farm.broker("spooler")
    for recorder in recorders:
        await called(farm, recorder)
    channel = await asked(source, at_source)
    for recorder in recorders:
        await recorder.until(notified=1)
    assert await channel.close(b"never mind") == S_OK
    await everybody_heard(farm)
    for recorder in recorders:
        await recorder.until(closed=1)
        assert [reason.data for reason in recorder.closed] == [b"never mind"]
    assert not at_source.told


REASONS = [
    pytest.param(b"enough", (b"enough", 6, TYPE), id="bytes"),
    pytest.param(b"", (b"", 0, TYPE), id="empty"),
    pytest.param(b"\0\xff" * 4000, (b"\0\xff" * 4000, 8000, TYPE), id="too-large-for-a-bell"),
    pytest.param(b"\xfe" * 50_000, (b"\xfe" * 50_000, 50_000, TYPE), id="by-reference"),
    pytest.param(None, RELEASE, id="none"),
    pytest.param(Data(NOTIFICATION_RELEASE), RELEASE, id="release"),
]


@rule(96)
@pytest.mark.parametrize("closer", ["source", "owner", "source-unanswered"])
@pytest.mark.parametrize(("reason", "told"), REASONS)
async def test_channel_closed_carries_the_reason_unchanged_or_release(
    farm: Farm, closer: str, reason: bytes | Data | None, told: tuple[object, ...]
) -> None:
    heard, at_source = Recorder(), Recorder()
    source = await farm.broker("spooler")
    await called(farm, heard)
    channel = await asked(source, at_source)
    await heard.until(notified=1)
    if closer != "source-unanswered":
        await heard.handle.respond(b"here")
        await at_source.until(notified=1)
    if closer == "owner":
        await heard.handle.close(reason)
        await at_source.until(closed=1)
        assert at_source.closed[0].acquire_data() == told
    else:
        await channel.close(reason)
        await heard.until(closed=1)
        assert heard.closed[0].acquire_data() == told


# What a close discards --------------------------------------------------------------------------


@rule(97)
async def test_a_notification_that_the_owner_has_not_fetched_is_discarded(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel, offer = await dialog(farm, source, registration)
    await channel.send(b"queued")
    await all_heard(farm, source, process)
    await channel.close(b"over")
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    await refused_as_closed(offer.follow_up(PATIENCE))


@rule(89, 97)
async def test_an_accepted_response_outlives_its_owners_close_and_not_the_sources_own(
    farm: Farm,
) -> None:
    """What was accepted is in the source's inbox before the close is (docs/decisions.md)."""
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.respond(b"queued")
    await all_heard(farm, source, process)
    await offer.close()
    assert await channel.wait_closed(PATIENCE) is not None
    assert (await channel.response(PATIENCE)).data == b"queued"
    await refused_as_closed(channel.response(PATIENCE))

    mine, offer = await dialog(farm, source, registration)
    await mine.send(b"and?")
    await offer.follow_up(PATIENCE)
    await offer.respond(b"queued")
    await all_heard(farm, source, process)
    await mine.close()
    await refused_as_closed(mine.response(PATIENCE))


@rule(97, 98)
async def test_a_question_that_nobody_fetched_is_discarded(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    withdrawn = await farm.question(source)
    await eventually(lambda: registration.unread == 1, "the question")
    await withdrawn.close(b"never mind")
    left = await farm.question(source)
    assert (await farm.offered(registration)).id == left.id
    assert registration.unread == 0


@rule(97)
async def test_a_unidirectional_close_keeps_the_copies_already_handed_out(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    registration = await process.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    for turn in range(3):
        assert await channel.send(f"page {turn}".encode()) == S_OK
    assert await channel.close() == S_OK
    for turn in range(3):
        notification = await registration.fetch(PATIENCE)
        assert isinstance(notification, Notification)
        assert notification.data == f"page {turn}".encode()
    await refused_as_closed(channel.send(b"after"))
    assert registration.unread == 0


@rule(98)
@pytest.mark.parametrize("size", [10, 50_000], ids=["small", "by-reference"])
async def test_a_source_close_before_any_answer_discards_the_held_notification(
    farm: Farm, size: int
) -> None:
    source = await farm.broker("spooler")
    process, early = await listener(farm)
    withdrawn = await farm.question(source, b"x" * size)
    await withdrawn.close()
    _, late = await listener(farm)
    left = await farm.question(source)
    for registration in (early, late):
        assert (await farm.offered(registration)).id == left.id
        assert registration.unread == 0
    await all_heard(farm, source, process)
    assert [each.id for each in await source.channels()] == [left.id]


@rule(99)
@pytest.mark.parametrize("told", [False, True], ids=["unaware", "told"])
@pytest.mark.parametrize("reason", [b"never mind", None], ids=["data", "none"])
async def test_answering_a_channel_that_its_source_closed_unanswered_fails(
    farm: Farm, told: bool, reason: bytes | None
) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    offers = [await farm.offered(registration) for registration in registrations]
    await channel.close(reason)
    for offer in offers:
        if told:
            assert await offer.wait_closed(PATIENCE) is not None
        for call in (offer.respond, offer.close):
            refused = await refused_as_closed(call(b"too late"))
            assert refused.detail is not None, "who closed it is known"
            assert refused.detail.code is Code.CHANNEL_CLOSED_BY_SERVER
    assert b"too late" not in [data for _, data in await said(source, channel)]


# Calls that are refused -------------------------------------------------------------------------


@rule(100)
@pytest.mark.parametrize("reason", [None, b"why"], ids=["none", "data"])
async def test_closing_before_anything_was_sent_is_refused(
    farm: Farm, reason: bytes | None
) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    with pytest.raises(ChannelNotOpened) as refused:
        await channel.close(reason)
    assert refused.value.result.hresult == 0x8004_000B
    assert await state(source, channel) == "open"
    assert await channel.send(b"still alive") == S_OK
    assert (await farm.offered(registration)).notification.data == b"still alive"
    assert await channel.close() == S_OK


@rule(100)
async def test_closing_a_unidirectional_channel_before_anything_was_sent_is_refused(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    with pytest.raises(ChannelNotOpened):
        await channel.close()
    result = await channel.send(b"to nobody")
    assert result.code is Code.NO_LISTENERS
    assert await channel.close() == S_OK


@rule(101)
@pytest.mark.parametrize("closer", ["source", "owner"])
async def test_a_second_close_by_the_same_end_fails_and_tells_nobody(
    farm: Farm, closer: str
) -> None:
    channel, offer, at_source, at_owner = await held_dialog(farm)
    end: End[Any] = channel if closer == "source" else offer
    heard = at_owner if closer == "source" else at_source
    assert await end.close(b"first") == S_OK
    await heard.until(closed=1)
    for reason in (b"second", None):
        await refused_as_closed(end.close(reason))
    await everybody_heard(farm)
    assert [reason.data for reason in heard.closed] == [b"first"]
    assert len([event for event, _ in await said(farm.brokers[0], channel)]) == 3


@rule(101)
async def test_a_second_close_of_a_unidirectional_channel_fails(farm: Farm) -> None:
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"to nobody")
    assert await channel.close() == S_OK
    await refused_as_closed(channel.close())


@rule(101)
async def test_a_listener_that_declined_cannot_close_again(farm: Farm) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await asked(source, at_source)
    offer = await farm.offered(registration)
    assert await offer.close() == S_OK
    await refused_as_closed(offer.close())
    await refused_as_closed(offer.close(b"with data"))
    assert await state(source, channel) == "offered"
    await all_heard(farm, source, process)
    assert not at_source.told


@rule(101)
@pytest.mark.parametrize("told", [False, True], ids=["unaware", "told"])
async def test_a_loser_that_closed_cannot_close_again(farm: Farm, told: bool) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    await farm.question(source)
    winner, loser = [await farm.offered(registration) for registration in registrations]
    await winner.respond(b"mine")
    if told:
        await loser.wait_closed(PATIENCE)
    assert await loser.close() == LOST_THE_RACE
    await refused_as_closed(loser.close())


# Close beside a parked call ---------------------------------------------------------------------


@rule(102)
async def test_an_owners_close_is_done_at_once_beside_its_parked_call(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.exchange()
    parked = asyncio.create_task(offer.exchange(b"answer"))
    assert (await channel.response(PATIENCE)).data == b"answer"
    assert not parked.done()
    async with asyncio.timeout(PROMPT):
        assert await offer.close(b"enough") == S_OK
        handle, _ = await parked
    assert handle is None
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"enough"


@rule(102)
async def test_a_sources_close_is_done_at_once_beside_its_parked_call(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    parked = asyncio.create_task(channel.response())
    await asyncio.sleep(0)
    async with asyncio.timeout(PROMPT):
        assert await channel.close() == S_OK
        await refused_as_closed(parked)
    assert await offer.wait_closed(PATIENCE) is not None


@rule(102)
async def test_a_close_by_the_other_end_wakes_a_parked_call(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.exchange()
    parked = asyncio.create_task(offer.exchange(b"answer"))
    await channel.response(PATIENCE)
    assert await channel.close(b"that will do") == S_OK
    async with asyncio.timeout(PATIENCE):
        handle, notification = await parked
    assert handle is None
    assert notification.acquire_data() == (b"that will do", 12, TYPE)


@rule(102)
async def test_a_close_is_done_at_once_beside_a_send_that_waits_for_room(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    await process.register(PRINTER, TYPE, buffer=1)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"fills the buffer")
    waiting = asyncio.create_task(channel.send(b"waits", lossless=True, timeout=2 * PROMPT))
    await asyncio.sleep(0)
    async with asyncio.timeout(PROMPT):
        assert await channel.close() == S_OK
        await refused_as_closed(waiting)


@rule(103)
@pytest.mark.parametrize(
    "attached",
    [
        pytest.param(b"not to be read", id="bytes"),
        pytest.param(b"x" * 101, id="above-the-limit"),
    ],
)
@pytest.mark.parametrize("closer", ["source", "owner", "listener"])
async def test_data_attached_to_release_is_ignored(
    farm: Farm, closer: str, attached: bytes
) -> None:
    source = await farm.broker("spooler", max_payload=100)
    _, registration = await listener(farm, max_payload=100)
    reason = Data(NOTIFICATION_RELEASE, attached)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    if closer != "listener":
        await offer.respond(b"here")
        await channel.response(PATIENCE)
    end: End[Any] = channel if closer == "source" else offer
    other: End[Any] = offer if closer == "source" else channel
    assert await end.close(reason) == S_OK
    if closer == "listener":
        assert await state(source, channel) == "offered", "a decline in spite of its bytes"
        await channel.close()
    else:
        closing = await other.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.acquire_data() == RELEASE
    assert attached not in [data for _, data in await said(source, channel)]


# Silence after the close ------------------------------------------------------------------------


def busy() -> tuple[asyncio.Event, asyncio.Event]:
    """Set when the callback is in; to be set to let it go on."""
    return asyncio.Event(), asyncio.Event()


@rule(104, 97)
async def test_an_owner_is_not_notified_of_what_was_queued_when_the_source_closed(
    farm: Farm,
) -> None:
    inside, go_on = busy()

    async def answer_and_linger(offer: Any, _: object) -> None:
        await offer.respond(b"here")
        inside.set()
        await go_on.wait()

    heard = Recorder(answer_and_linger)
    source = await farm.broker("spooler")
    process, _ = await called(farm, heard)
    channel = await farm.question(source)
    await inside.wait()
    await channel.response(PATIENCE)
    await channel.send(b"queued behind the busy callback")
    await all_heard(farm, source, process)
    await channel.close(b"over")
    await heard.handle.wait_closed(PATIENCE)
    go_on.set()
    await heard.until(closed=1)
    await all_heard(farm, source, process)
    assert [told.event for told in heard.told] == ["notified", "closed"]
    assert heard.bodies == [b"continue?"]


async def lingering_source(farm: Farm) -> tuple[Channel, Offer[Any], Recorder, asyncio.Event]:
    """A source whose callback asks again and lingers; the owner's next response is queued."""
    inside, go_on = busy()

    async def ask_again_and_linger(channel: Any, _: object) -> None:
        await channel.send(b"and?")
        inside.set()
        await go_on.wait()

    at_source = Recorder(ask_again_and_linger)
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await asked(source, at_source)
    offer = await farm.offered(registration)
    await offer.respond(b"one")
    await inside.wait()
    await offer.follow_up(PATIENCE)
    await offer.respond(b"two, behind the busy callback")
    await all_heard(farm, source, process)
    return channel, offer, at_source, go_on


@rule(104, 97)
async def test_a_source_is_not_notified_of_what_was_queued_when_the_owner_closed(
    farm: Farm,
) -> None:
    channel, offer, at_source, go_on = await lingering_source(farm)
    assert await offer.close(b"over") == S_OK
    await channel.wait_closed(PATIENCE)
    go_on.set()
    await at_source.until(closed=1)
    await everybody_heard(farm)
    assert [told.event for told in at_source.told] == ["notified", "closed"]
    assert at_source.bodies == [b"one"]


@rule(104, 97)
async def test_a_source_is_not_notified_of_what_was_queued_when_it_closed_itself(
    farm: Farm,
) -> None:
    channel, offer, at_source, go_on = await lingering_source(farm)
    assert await channel.close(b"over") == S_OK
    go_on.set()
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    await everybody_heard(farm)
    await at_source.until_idle()
    assert at_source.bodies == [b"one"]
    assert not at_source.closed


@rule(104)
async def test_listeners_are_not_notified_of_a_question_that_reached_them_closed(
    farm: Farm,
) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, _ = await called(farm, heard)
    for _ in range(ROUNDS):
        channel = await farm.question(source)
        await channel.close()
        await all_heard(farm, source, process)
        before = len(heard.told)
        await all_heard(farm, source, process)
        assert len(heard.told) == before, "told long after the close"
    events = [(told.event, told.channel) for told in heard.told]
    for event, handle in events:
        if event == "notified":
            assert ("closed", handle) in events, "notified, and then not told of the close"


# Races ------------------------------------------------------------------------------------------


async def attempt(call: Any, pause: float) -> Result | TympanError:
    """A call after a pause: its result, or the channel error that it ended in."""
    await asyncio.sleep(pause)
    try:
        result: Result = await call
    except ChannelError as error:
        return error
    return result


def pauses(rng: random.Random, count: int) -> list[float]:
    """Mostly none, so that the calls leave together, in either order."""
    return [rng.choice((0, 0, rng.random() / 300)) for _ in range(count)]


@rule(105)
@TURNS
async def test_of_two_ends_that_close_at_once_exactly_one_succeeds(farm: Farm, turn: str) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    at_owner = Recorder()
    source = await farm.broker("spooler")
    await called(farm, at_owner)
    for count in range(ROUNDS):
        at_source = Recorder()
        channel = await asked(source, at_source)
        await at_owner.until(notified=len(at_owner.notified) + 1)
        offer = at_owner.told[-1].channel
        assert isinstance(offer, Offer)
        del at_owner.told[:-1]
        await offer.respond(b"here")
        await at_source.until(notified=1)
        if turn == "owner":
            await channel.send(b"go on")
            await at_owner.until(notified=2)
        ends: list[tuple[End[Any], bytes]] = [(channel, b"source"), (offer, b"owner")]
        rng.shuffle(ends)
        outcomes = await asyncio.gather(
            *(
                attempt(end.close(reason), pause)
                for (end, reason), pause in zip(ends, pauses(rng, 2), strict=True)
            )
        )
        where = f"round {count}, seed {seed}: {outcomes}"
        assert outcomes.count(S_OK) == 1, where
        (failed,) = [outcome for outcome in outcomes if outcome != S_OK]
        assert isinstance(failed, ChannelAlreadyClosed), where
        winner, reason = ends[outcomes.index(S_OK)]
        told, silent = (at_owner, at_source) if winner is channel else (at_source, at_owner)
        await told.until(closed=1)
        assert [each.data for each in told.closed] == [reason], where
        assert not silent.closed, where
        if count % 5 == 4:
            await everybody_heard(farm)
            assert (len(told.closed), len(silent.closed)) == (1, 0), where


class Race:
    """One response racing with the source's close of its channel."""

    def __init__(self, channel: Channel, offer: Offer[Any], at_source: Recorder) -> None:
        self.channel = channel
        self.offer = offer
        self.at_source = at_source
        self.before = len(at_source.notified)
        self.notified_at_close = 0

    async def close(self) -> Result:
        result = await self.channel.close(b"over")
        self.notified_at_close = len(self.at_source.notified)
        return result

    async def run(self, rng: random.Random) -> Result | TympanError:
        """The outcome of the response; the close must succeed."""
        calls = [self.offer.respond(b"racing"), self.close()]
        order = [0, 1]
        rng.shuffle(order)
        tasks = {
            i: asyncio.create_task(attempt(calls[i], pause))
            for i, pause in zip(order, pauses(rng, 2), strict=True)
        }
        assert await tasks[1] == S_OK
        return await tasks[0]


@rule(106)
@pytest.mark.parametrize("first", [True, False], ids=["acquiring", "in-dialog"])
async def test_a_response_racing_with_a_close_is_taken_before_it_or_refused(
    farm: Farm, first: bool
) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    races: list[tuple[Race, Result | TympanError]] = []
    for _ in range(ROUNDS):
        at_source = Recorder()
        channel = await asked(source, at_source)
        offer = await farm.offered(registration)
        if not first:
            await offer.respond(b"here")
            await at_source.until(notified=1)
            await channel.send(b"go on")
            await offer.follow_up(PATIENCE)
        race = Race(channel, offer, at_source)
        races.append((race, await race.run(rng)))
    await all_heard(farm, source, process)
    for race, outcome in races:
        log = await said(source, race.channel)
        where = f"seed {seed}: {outcome}, {log}"
        delivered = race.at_source.notified[race.before :]
        if outcome == S_OK:
            assert log[-2:] == [("response", b"racing"), ("closed", b"over")], where
            closing = await race.offer.wait_closed(PATIENCE)
            assert closing is not None, f"a success and then silence ({where})"
            assert closing.reason.data == b"over", where
        else:
            assert isinstance(outcome, ChannelAlreadyClosed), where
            assert ("response", b"racing") not in log, where
            assert not delivered, f"refused, and delivered all the same ({where})"
        assert len(race.at_source.notified) == race.notified_at_close, (
            f"the source was notified after its close ({where})"
        )
        assert [each.data for each in delivered] in ([], [b"racing"]), where


@rule(106, 82)
async def test_of_responses_racing_with_a_close_none_is_lost_after_success(farm: Farm) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    source = await farm.broker("spooler")
    registrations: list[Registration[Payload]] = await sessions(farm, 4)
    for count in range(ROUNDS // 2):
        channel = await farm.question(source)
        offers = [await farm.offered(registration) for registration in registrations]
        rng.shuffle(offers)
        *outcomes, closed = await asyncio.gather(
            *(
                attempt(offer.respond(str(i).encode()), pause)
                for (i, offer), pause in zip(enumerate(offers), pauses(rng, 4), strict=True)
            ),
            attempt(channel.close(b"over"), rng.random() / 300),
        )
        log = await said(source, channel)
        where = f"round {count}, seed {seed}: {outcomes}, {closed}, {log}"
        assert closed == S_OK, where
        won = [i for i, outcome in enumerate(outcomes) if outcome == S_OK]
        responses = [data for event, data in log if event == "response"]
        assert responses == [str(i).encode() for i in won], where
        assert len(won) <= 1, where
        assert log[-1] == ("closed", b"over"), where
        losing = ChannelAcquired if won else ChannelAlreadyClosed
        for i, outcome in enumerate(outcomes):
            if i not in won:
                assert isinstance(outcome, losing), where
