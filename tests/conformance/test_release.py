"""References: the implicit one of each handle is a single-use token, dropped exactly once.

It is dropped by whichever comes first: a close that succeeded, the call of ChannelClosed, or a
release where the handle is the caller's. One release after one's own close is allowed and changes
nothing; every other release without a reference is reported as a violation, and does nothing.
"""

from __future__ import annotations

import asyncio
import gc
import random
import secrets
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import (
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Code,
    Data,
    Notification,
    Offer,
    Result,
)
from broker._end import End
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    ChannelError,
    ChannelNotOpened,
    ContractViolation,
    InvalidArgument,
    InvalidNotificationType,
    NotificationTooLarge,
)
from broker.results import S_OK
from tests.conformance.actors import (
    Recorder,
    all_heard,
    asked,
    called,
    dialog,
    eventually,
    listener,
    pass_away,
    said,
    sessions,
    state,
)
from tests.conformance.rules import rule
from tests.farm import OTHER_TYPE, PATIENCE, PRINTER, TYPE, Farm

ROUNDS = 20
WRONG = Data(OTHER_TYPE, b"of another type")
Call = Callable[[], Awaitable[object]]


async def drops(farm: Farm, channel: End[Any]) -> int:
    """How many implicit references of the channel's handles Redis has dropped."""
    keys = [key for key in await farm.keys() if key.endswith(f":channel:{channel.id}")]
    assert len(keys) == 1, f"Redis does not know channel {channel.id}"
    return int(await farm.client.hget(keys[0], "drops") or 0)


async def violates(farm: Farm, end: End[Any]) -> None:
    """A release of this end is a violation, and changes nothing that Redis knows."""
    before = await drops(farm, end)
    with pytest.raises(ContractViolation) as violation:
        await end.release()
    assert not violation.value.result.succeeded
    assert await drops(farm, end) == before, "a violation dropped a reference"


async def new_channel(source: Broker, callback: Recorder | None = None) -> Channel:
    return await source.open_channel(
        PRINTER, TYPE, user="alice", style=BIDIRECTIONAL, callback=callback
    )


# Explicit references ----------------------------------------------------------------------------


@rule(107)
async def test_each_explicit_reference_takes_one_release_more(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await new_channel(source)
    assert [channel.add_ref(), channel.add_ref()] == [1, 2]
    for _ in range(2):
        assert await channel.release() == S_OK
    assert channel.references == 0
    assert await state(source, channel) == "open", "the implicit reference is another one"
    await channel.send(b"still alive")
    offer = await farm.offered(registration)
    offer.add_ref()
    assert await offer.release() == S_OK
    assert await state(source, channel) == "offered"
    assert await offer.respond(b"so am I") == S_OK
    assert await drops(farm, channel) == 0


@rule(107)
async def test_an_explicit_reference_outlives_the_close(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel, offer = await dialog(farm, source, registration)
    for end in (channel, offer):
        end.add_ref()
    assert await channel.close() == S_OK
    await offer.wait_closed(PATIENCE)
    assert await offer.release() == S_OK
    await violates(farm, offer)
    assert await channel.release() == S_OK, "the explicit one"
    assert await channel.release() == S_OK, "the one that is allowed after one's own close"
    await violates(farm, channel)
    assert await drops(farm, channel) == 2


# Unidirectional sources -------------------------------------------------------------------------


@rule(108)
async def test_a_unidirectional_sources_single_release_after_close_frees_the_handle(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=UNIDIRECTIONAL)
    await channel.send(b"page 1")
    assert await channel.close() == S_OK
    assert await channel.release() == S_OK
    assert await source.channels() == []
    for _ in range(2):
        await violates(farm, channel)
    assert await drops(farm, channel) == 1


@rule(108)
@pytest.mark.parametrize("sent", [False, True], ids=["nothing-sent", "sent"])
async def test_a_unidirectional_source_may_release_without_closing(farm: Farm, sent: bool) -> None:
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=UNIDIRECTIONAL)
    if sent:
        await channel.send(b"page 1")
    assert await channel.release() == S_OK
    assert await source.channels() == []
    await violates(farm, channel)
    with pytest.raises(ChannelError):
        await channel.send(b"page 2")
    assert await drops(farm, channel) == 1


# Around close -----------------------------------------------------------------------------------


@rule(109)
@pytest.mark.parametrize("told", [False, True], ids=["unaware", "told"])
@pytest.mark.parametrize("late", ["source", "owner", "listener"])
async def test_after_a_close_that_came_too_late_a_release_is_a_violation(
    farm: Farm, late: str, told: bool
) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    if late != "listener":
        await offer.respond(b"here")
        await channel.response(PATIENCE)
    end: End[Any] = channel if late == "source" else offer
    other: End[Any] = offer if late == "source" else channel
    assert await other.close(b"first") == S_OK
    if told:
        await end.wait_closed(PATIENCE)
    with pytest.raises(ChannelAlreadyClosed) as refused:
        await end.close(b"second")
    assert refused.value.result.hresult == 0x8004_0008
    before = await said(source, channel)
    for _ in range(2):
        await violates(farm, end)
    assert await said(source, channel) == before


@rule(110)
@pytest.mark.parametrize("releases", [False, True], ids=["close-only", "close-and-release"])
@pytest.mark.parametrize("closer", ["source", "source-unanswered", "owner", "listener"])
async def test_a_close_with_and_without_a_release_frees_the_handle_once(
    farm: Farm, closer: str, releases: bool
) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    if closer in ("source", "owner"):
        await offer.respond(b"here")
        await channel.response(PATIENCE)
    end: End[Any] = channel if closer.startswith("source") else offer
    assert await end.close() == S_OK
    dropped = 2 if closer in ("source", "owner") else 1
    assert await drops(farm, channel) == dropped
    if releases:
        assert await end.release() == S_OK
        await violates(farm, end)
    assert await drops(farm, channel) == dropped
    if closer == "listener":
        assert await state(source, channel) == "offered"


@rule(110)
@pytest.mark.parametrize("releases", [False, True], ids=["close-only", "close-and-release"])
async def test_a_losers_close_frees_its_handle_once(farm: Farm, releases: bool) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    winner, loser = [await farm.offered(registration) for registration in registrations]
    await winner.respond(b"mine")
    result = await loser.close()
    assert result.code is Code.CHANNEL_ACQUIRED
    if releases:
        assert await loser.release() == S_OK
        await violates(farm, loser)
    assert await drops(farm, channel) == 1
    assert await state(source, channel) == "answered"


# Inside and after ChannelClosed -----------------------------------------------------------------


@rule(111)
@pytest.mark.parametrize("told", ["source", "owner"])
async def test_release_and_close_inside_channel_closed_are_rejected(farm: Farm, told: str) -> None:
    refused: list[str] = []

    async def try_everything(end: Any, _: object) -> None:
        for name, call in (
            ("release", end.release),
            ("close", end.close),
            ("close with data", lambda: end.close(b"me too")),
        ):
            with pytest.raises(ContractViolation):
                await call()
            refused.append(name)

    recorders = {who: Recorder(on_closed=try_everything) for who in ("source", "owner")}
    source = await farm.broker("spooler")
    process, _ = await called(farm, recorders["owner"])
    channel = await asked(source, recorders["source"])
    await recorders["owner"].until(notified=1)
    offer = recorders["owner"].handle
    await offer.respond(b"here")
    await recorders["source"].until(notified=1)
    await (offer if told == "source" else channel).close(b"over")
    await recorders[told].until(closed=1)
    await recorders[told].until_idle()
    assert refused == ["release", "close", "close with data"]
    await all_heard(farm, source, process)
    other = "owner" if told == "source" else "source"
    assert not recorders[other].closed
    assert len(recorders[told].closed) == 1
    assert (await said(source, channel))[-1] == ("closed", b"over")
    assert await drops(farm, channel) == 2


def calls_of_source(channel: Channel) -> dict[str, Call]:
    async def add_ref() -> None:
        channel.add_ref()

    return {
        "send": lambda: channel.send(b"after"),
        "response": lambda: channel.response(0),
        "close": channel.close,
        "close with data": lambda: channel.close(b"after"),
        "release": channel.release,
        "add_ref": add_ref,
        "open": channel.open,
    }


def calls_of_listener(offer: Offer[Any]) -> dict[str, Call]:
    async def add_ref() -> None:
        offer.add_ref()

    return {
        "respond": lambda: offer.respond(b"after"),
        "follow_up": lambda: offer.follow_up(0),
        "exchange": lambda: offer.exchange(b"after"),
        "decline": offer.decline,
        "close with data": lambda: offer.close(b"after"),
        "release": offer.release,
        "add_ref": add_ref,
    }


@rule(112)
@pytest.mark.parametrize("told", ["source", "owner", "listener"])
async def test_any_call_after_channel_closed_is_rejected_without_effect(
    farm: Farm, told: str
) -> None:
    at_source, at_listener = Recorder(), Recorder()
    source = await farm.broker("spooler")
    process, _ = await called(farm, at_listener)
    channel = await asked(source, at_source)
    await at_listener.until(notified=1)
    offer = at_listener.handle
    if told != "listener":
        await offer.respond(b"here")
        await at_source.until(notified=1)
    await (offer if told == "source" else channel).close(b"over")
    heard = at_source if told == "source" else at_listener
    await heard.until(closed=1)
    await heard.until_idle()
    before = (await drops(farm, channel), await said(source, channel))
    calls = calls_of_source(channel) if told == "source" else calls_of_listener(offer)
    accepted: list[str] = []
    for name, call in calls.items():
        try:
            async with asyncio.timeout(PATIENCE):
                await call()
        except ChannelError:
            continue
        accepted.append(name)
    assert not accepted, "calls on a dead handle were accepted"
    await all_heard(farm, source, process)
    assert (await drops(farm, channel), await said(source, channel)) == before
    assert len(at_source.closed) + len(at_listener.closed) == 1


@rule(112)
async def test_a_losers_release_after_its_channel_closed_is_rejected(farm: Farm) -> None:
    losing = Recorder()
    source = await farm.broker("spooler")
    await called(farm, losing)
    _, registration = await listener(farm)
    channel = await farm.question(source)
    await losing.until(notified=1)
    await (await farm.offered(registration)).respond(b"mine")
    await losing.until(closed=1)
    await losing.until_idle()
    loser = losing.handle
    await violates(farm, loser)
    assert await state(source, channel) == "answered"


# A source's release -----------------------------------------------------------------------------


@rule(113)
async def test_a_source_that_never_sent_abandons_the_channel_unheard(farm: Farm) -> None:
    at_source, at_listener = Recorder(), Recorder()
    source = await farm.broker("spooler")
    process, _ = await called(farm, at_listener)
    channel = await new_channel(source, at_source)
    assert await channel.release() == S_OK
    assert await source.channels() == []
    await violates(farm, channel)
    with pytest.raises(ChannelError):
        await channel.send(b"too late")
    _, late = await listener(farm)
    await all_heard(farm, source, process)
    assert not at_source.told
    assert not at_listener.told
    assert late.unread == 0
    assert await drops(farm, channel) == 1


@rule(113)
@pytest.mark.parametrize("failure", ["type", "size", "close"])
async def test_a_source_whose_only_calls_failed_abandons_the_channel(
    farm: Farm, failure: str
) -> None:
    source = await farm.broker("spooler", max_payload=10)
    channel = await new_channel(source)
    match failure:
        case "type":
            with pytest.raises(InvalidNotificationType):
                await channel.send(WRONG)
        case "size":
            with pytest.raises(NotificationTooLarge):
                await channel.send(b"x" * 11)
        case "close":
            with pytest.raises(ChannelNotOpened):
                await channel.close()
    assert await channel.release() == S_OK
    assert await source.channels() == []


@rule(113)
async def test_a_source_that_nobody_listened_to_abandons_its_question(farm: Farm) -> None:
    source = await farm.broker("spooler")
    channel = await new_channel(source)
    result = await channel.send(b"anybody?")
    assert result.code is Code.NO_LISTENERS
    assert await channel.release() == S_OK, "the channel stayed with the caller"
    _, late = await listener(farm)
    left = await farm.question(source)
    assert (await farm.offered(late)).id == left.id
    assert [each.id for each in await source.channels()] == [left.id]


@rule(114)
async def test_a_source_may_not_release_between_its_send_and_the_answer(farm: Farm) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await asked(source, at_source)
    offer = await farm.offered(registration)
    await violates(farm, channel)
    assert await state(source, channel) == "offered"
    assert await offer.respond(b"one") == S_OK
    await at_source.until(notified=1)
    await channel.send(b"and?")
    await violates(farm, channel)
    assert await state(source, channel) == "asked"
    assert (await offer.follow_up(PATIENCE)).data == b"and?"
    assert await offer.respond(b"two") == S_OK
    await at_source.until(notified=2)
    assert at_source.bodies == [b"one", b"two"]
    assert await channel.release() == S_OK, "after OnEventNotify it is the caller's again"
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.is_release
    await all_heard(farm, source, process)
    assert not at_source.closed


@rule(114)
async def test_a_source_may_not_release_before_the_answer_is_presented(farm: Farm) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def ask_again_and_linger(channel: Any, notification: Notification[Any]) -> None:
        if notification.data == b"one":
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
    await offer.respond(b"two")
    await all_heard(farm, source, process)
    await violates(farm, channel)
    go_on.set()
    await at_source.until(notified=2)
    assert at_source.bodies == [b"one", b"two"]
    assert await channel.release() == S_OK


@rule(114)
@pytest.mark.parametrize("in_dialog", [False, True], ids=["first", "in-dialog"])
async def test_a_source_may_not_release_while_its_send_is_under_way(
    farm: Farm, in_dialog: bool
) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    if in_dialog:
        channel, _ = await dialog(farm, source, registration)
    else:
        channel = await new_channel(source)
    sent, released = await asyncio.gather(
        channel.send(b"well?"), channel.release(), return_exceptions=True
    )
    assert sent == S_OK
    assert isinstance(released, ContractViolation)
    assert await state(source, channel) == ("asked" if in_dialog else "offered")
    assert await drops(farm, channel) == 0


@rule(114)
async def test_a_source_may_release_inside_on_event_notify(farm: Farm) -> None:
    results: list[Result] = []

    async def let_go(channel: Any, _: object) -> None:
        results.append(await channel.release())

    at_source = Recorder(let_go)
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await asked(source, at_source)
    offer = await farm.offered(registration)
    await offer.respond(b"here")
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.acquire_data() == (None, 0, NOTIFICATION_RELEASE)
    await at_source.until_idle()
    assert results == [S_OK]
    await violates(farm, channel)
    assert not at_source.closed
    assert await drops(farm, channel) == 2


@rule(114)
async def test_after_a_failed_close_the_reference_is_still_the_callers(farm: Farm) -> None:
    source = await farm.broker("spooler", max_payload=10)
    _, registration = await listener(farm)
    channel, offer = await dialog(farm, source, registration)
    with pytest.raises(InvalidNotificationType):
        await channel.close(WRONG)
    with pytest.raises(NotificationTooLarge):
        await channel.close(b"x" * 11)
    assert await drops(farm, channel) == 0
    assert await channel.release() == S_OK
    assert await offer.wait_closed(PATIENCE) is not None
    assert await drops(farm, channel) == 2


# A listener's release ---------------------------------------------------------------------------


@rule(115)
async def test_a_listener_that_releases_unanswered_declines(farm: Farm) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    _, other = await listener(farm)
    channel = await asked(source, at_source)
    offer = await farm.offered(registration)
    assert await offer.release() == S_OK
    assert await state(source, channel) == "offered"
    await violates(farm, offer)
    with pytest.raises(ChannelError):
        await offer.respond(b"after all")
    await all_heard(farm, source, process)
    assert not at_source.told, "the source was told of a decline"
    assert await (await farm.offered(other)).respond(b"I will") == S_OK
    await at_source.until(notified=1)
    left = await farm.question(source)
    assert (await farm.offered(registration)).id == left.id, "offered the same channel again"
    assert at_source.bodies == [b"I will"]


@rule(115)
async def test_a_listener_may_release_inside_on_event_notify(farm: Farm) -> None:
    async def let_go(offer: Any, _: object) -> None:
        assert await offer.release() == S_OK

    at_listener = Recorder(let_go)
    source = await farm.broker("spooler")
    process, _ = await called(farm, at_listener)
    channel = await farm.question(source)
    await at_listener.until(notified=1)
    await at_listener.until_idle()
    assert await drops(farm, channel) == 1
    assert await state(source, channel) == "offered"
    await channel.close(b"over")
    await all_heard(farm, source, process)
    assert [told.event for told in at_listener.told] == ["notified"]


@rule(115)
async def test_an_owner_may_release_on_its_own_turn_only(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel, offer = await dialog(farm, source, registration)
    await violates(farm, offer)
    assert await state(source, channel) == "answered"
    await channel.send(b"go on")
    await offer.follow_up(PATIENCE)
    assert await offer.release() == S_OK
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.acquire_data() == (None, 0, NOTIFICATION_RELEASE)
    await violates(farm, offer)
    assert await drops(farm, channel) == 2


@rule(115)
async def test_a_loser_releases_after_its_send_was_refused(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    winner, loser = [await farm.offered(registration) for registration in registrations]
    await winner.respond(b"mine")
    with pytest.raises(ChannelAcquired):
        await loser.respond(b"too late")
    assert await drops(farm, channel) == 0, "a failing call changed a reference"
    assert await loser.release() == S_OK
    await violates(farm, loser)
    assert await state(source, channel) == "answered"
    assert await drops(farm, channel) == 1


# Handles ----------------------------------------------------------------------------------------


@rule(116)
@pytest.mark.parametrize("closer", ["source", "owner"])
async def test_callbacks_present_the_handle_that_was_given_first(farm: Farm, closer: str) -> None:
    at_source, at_listener = Recorder(), Recorder()
    source = await farm.broker("spooler")
    await called(farm, at_listener)
    channel = await asked(source, at_source)
    await at_listener.until(notified=1)
    offer = at_listener.handle
    for turn in range(1, 4):
        await offer.respond(b"here")
        await at_source.until(notified=turn)
        await channel.send(b"go on")
        await at_listener.until(notified=1 + turn)
    await (channel if closer == "source" else offer).close()
    await (at_listener if closer == "source" else at_source).until(closed=1)
    assert all(told.channel is channel for told in at_source.told)
    assert all(told.channel is offer for told in at_listener.told)


@rule(116)
async def test_each_channel_and_each_listener_has_a_handle_of_its_own(farm: Farm) -> None:
    first, second = Recorder(), Recorder()
    source = await farm.broker("spooler")
    for recorder in (first, second):
        await called(farm, recorder)
    channels = [await farm.question(source) for _ in range(2)]
    for recorder in (first, second):
        await recorder.until(notified=2)
    for channel in channels:
        await channel.close()
    for recorder in (first, second):
        await recorder.until(closed=2)
        given = {told.channel.id: told.channel for told in recorder.told if told.channel}
        assert sorted(given) == sorted(channel.id for channel in channels)
        assert all(
            told.channel and told.channel is given[told.channel.id] for told in recorder.told
        )
    handles = {id(told.channel) for recorder in (first, second) for told in recorder.told}
    assert len(handles) == 4


async def outcome(call: Call, pause: float) -> Result | ChannelError:
    await asyncio.sleep(pause)
    try:
        result = await call()
    except ChannelError as error:
        return error
    assert isinstance(result, Result)
    return result


@rule(117)
@pytest.mark.parametrize("style", ["close-close", "close-release", "release-release"])
@pytest.mark.parametrize("side", ["source", "listener"])
async def test_a_foreground_task_and_a_callback_drop_the_handle_once(
    farm: Farm, side: str, style: str
) -> None:
    """Both finish the channel at once: from OnEventNotify and from a task of its own."""
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    for count in range(ROUNDS):
        inside: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        from_callback: asyncio.Future[Result | ChannelError] = inside.get_loop().create_future()
        calls = style.split("-")
        rng.shuffle(calls)
        pauses = [rng.choice((0, 0, rng.random() / 300)) for _ in calls]

        async def finish(
            end: Any,
            _: object,
            inside: asyncio.Future[Any] = inside,
            done: asyncio.Future[Result | ChannelError] = from_callback,
            method: str = calls[0],
            pause: float = pauses[0],
        ) -> None:
            inside.set_result(end)
            done.set_result(await outcome(getattr(end, method), pause))

        recorder = Recorder(finish)
        at_source = recorder if side == "source" else Recorder()
        at_listener = recorder if side == "listener" else Recorder()
        async with await process.listen(PRINTER, TYPE, at_listener, style=BIDIRECTIONAL):
            channel = await asked(source, at_source)
            await at_listener.until(notified=1)
            if side == "source":
                await at_listener.handle.respond(b"here")
            async with asyncio.timeout(PATIENCE):
                end = await inside
                outcomes = [
                    await outcome(getattr(end, calls[1]), pauses[1]),
                    await from_callback,
                ]
            where = f"round {count}, {calls}, seed {seed}: {outcomes}"
            dropped = 1 if side == "listener" else 2
            assert await drops(farm, channel) == dropped, where
            successes = [each for each in outcomes if isinstance(each, Result)]
            assert successes, where
            if style != "close-release":
                assert successes == [S_OK], f"two calls dropped one handle ({where})"
            await recorder.until_idle()
            assert not recorder.closed, where
            if side == "listener":
                await channel.close()


@rule(117)
async def test_a_foreground_close_and_the_peers_close_drop_the_handle_once(farm: Farm) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    for count in range(ROUNDS):
        channel, offer = await dialog(farm, source, registration, turn="owner")
        ends: list[End[Any]] = [channel, offer]
        calls: list[Call] = [channel.close, rng.choice((offer.close, offer.release))]
        order = [0, 1]
        rng.shuffle(order)
        outcomes = await asyncio.gather(
            *(outcome(calls[i], rng.choice((0, rng.random() / 300))) for i in order)
        )
        where = f"round {count}, seed {seed}: {outcomes}"
        assert outcomes.count(S_OK) == 1, where
        assert await drops(farm, channel) == 2, f"one for each end, no more ({where})"
        for end in ends:
            assert await end.wait_closed(PATIENCE) is not None, where
        await violates(farm, ends[order[1 - outcomes.index(S_OK)]])


# References to callbacks ------------------------------------------------------------------------


@rule(118)
async def test_a_registration_and_each_live_channel_hold_one_callback_reference(
    farm: Farm,
) -> None:
    recorder = Recorder()
    source = await farm.broker("spooler")
    _, registration = await called(farm, recorder)
    assert registration.callback_references == 1
    channels = [await farm.question(source) for _ in range(3)]
    await recorder.until(notified=3)
    assert registration.callback_references == 4
    for told in list(recorder.told):
        assert isinstance(told.channel, Offer)
        await told.channel.respond(b"here")
    assert registration.callback_references == 4, "answering keeps the channel alive"
    await channels[0].response(PATIENCE)
    await channels[0].close()
    await eventually(lambda: registration.callback_references == 3, "the first channel's end")
    await registration.unregister()
    await eventually(lambda: registration.callback_references == 2, "the registration's end")
    await channels[1].close()
    await eventually(lambda: registration.callback_references == 1, "the second channel's end")
    assert isinstance(recorder.told[2].channel, Offer)
    await recorder.told[2].channel.close()
    await eventually(lambda: registration.callback_references == 0, "the third channel's end")


@rule(118)
@pytest.mark.parametrize("way", ["decline", "release", "lose"])
async def test_a_handle_that_ends_early_gives_its_callback_reference_back(
    farm: Farm, way: str
) -> None:
    recorder = Recorder()
    source = await farm.broker("spooler")
    _, registration = await called(farm, recorder)
    _, other = await listener(farm)
    await farm.question(source)
    await recorder.until(notified=1)
    await eventually(lambda: registration.callback_references == 2, "the channel's reference")
    match way:
        case "decline":
            await recorder.handle.decline()
        case "release":
            await recorder.handle.release()
        case "lose":
            await (await farm.offered(other)).respond(b"mine")
    await eventually(lambda: registration.callback_references == 1, "the handle's end")


async def forgotten(callback: weakref.ref[Recorder]) -> None:
    """Wait until nothing holds the callback object any more."""

    def is_gone() -> bool:
        gc.collect()
        return callback() is None

    await eventually(is_gone, "the callback object to be collected")


@rule(118)
@pytest.mark.parametrize("style", [BIDIRECTIONAL, UNIDIRECTIONAL], ids=["bi", "uni"])
async def test_after_unregister_the_broker_holds_the_callback_no_more(
    farm: Farm, style: Any
) -> None:
    process = await farm.broker("alice")
    recorder = Recorder()
    callback = weakref.ref(recorder)
    registration = await process.listen(PRINTER, TYPE, recorder, style=style)
    del recorder
    gc.collect()
    assert callback() is not None, "the registration holds its callback"
    await registration.unregister()
    await forgotten(callback)


@rule(118)
async def test_a_callback_outlives_its_registration_until_its_last_channel_closed(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler")
    recorder = Recorder()
    callback = weakref.ref(recorder)
    _, registration = await called(farm, recorder)
    channel = await farm.question(source)
    await recorder.until(notified=1)
    await recorder.handle.respond(b"here")
    await channel.response(PATIENCE)
    await registration.unregister()
    await eventually(lambda: registration.callback_references == 1, "the registration's end")
    await channel.send(b"go on")
    await recorder.until(notified=2)
    del recorder
    gc.collect()
    assert callback() is not None, "the dialog holds its callback"
    await channel.close()
    await eventually(lambda: registration.callback_references == 0, "the dialog's end")
    await forgotten(callback)


@rule(118)
@pytest.mark.parametrize("end", ["close", "release", "peer"])
async def test_a_sources_callback_is_held_until_its_channel_closed(farm: Farm, end: str) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    recorder = Recorder()
    callback = weakref.ref(recorder)
    channel = await asked(source, recorder)
    offer = await farm.offered(registration)
    await offer.respond(b"here")
    await recorder.until(notified=1)
    del recorder
    gc.collect()
    assert callback() is not None, "the channel holds its callback"
    match end:
        case "close":
            await channel.close()
        case "release":
            await channel.release()
        case "peer":
            await offer.close()
    await forgotten(callback)


# Data objects -----------------------------------------------------------------------------------


@rule(119)
@pytest.mark.parametrize("size", [10, 50_000], ids=["small", "by-reference"])
@pytest.mark.parametrize("style", [BIDIRECTIONAL, UNIDIRECTIONAL], ids=["bi", "uni"])
async def test_data_stays_readable_until_release_data(farm: Farm, style: Any, size: int) -> None:
    body = secrets.token_bytes(size)
    kept: list[Notification[Any]] = []

    async def keep(_: object, notification: Notification[Any]) -> None:
        notification.acquire_data()
        kept.append(notification)

    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    recorder = Recorder(keep)
    registration = await process.listen(PRINTER, TYPE, recorder, style=style)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=style)
    await channel.send(body)
    await recorder.until(notified=1)
    await channel.close()
    await channel.release()
    await source.close()
    await registration.unregister()
    (notification,) = kept
    assert notification.acquire_data() == (body, size, TYPE)
    assert notification.references == 2
    notification.release_data()
    assert notification.data == body, "one of two references is left"
    notification.release_data()
    assert notification.references == 0
    with pytest.raises(InvalidArgument):
        notification.release_data()


@rule(119)
async def test_a_reason_stays_readable_after_the_closer_is_gone(farm: Farm) -> None:
    body = secrets.token_bytes(50_000)
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    await asked(source, at_source)
    await (await farm.offered(registration)).close(body)
    await at_source.until(closed=1)
    at_source.closed[0].acquire_data()
    await process.close()
    assert at_source.closed[0].acquire_data() == (body, len(body), TYPE)


@rule(120)
@pytest.mark.parametrize("cause", ["close", "lost", "death"])
async def test_acquire_data_of_release_gives_no_bytes_size_nought_and_that_type(
    farm: Farm, cause: str
) -> None:
    recorder = Recorder()
    source = await farm.broker("spooler")
    await called(farm, recorder)
    _, other = await listener(farm)
    channel = await farm.question(source)
    await recorder.until(notified=1)
    match cause:
        case "close":
            await channel.close()
        case "lost":
            await (await farm.offered(other)).respond(b"mine")
        case "death":
            await pass_away(farm, source)
    await recorder.until(closed=1)
    reason = recorder.closed[0]
    assert reason.is_release
    assert reason.acquire_data() == (None, 0, NOTIFICATION_RELEASE)
    assert str(reason.type) == "ba9a5027-a70e-4ae7-9b7d-eb3e06ad4157"
    reason.release_data()
