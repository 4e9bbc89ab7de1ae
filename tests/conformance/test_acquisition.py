"""A question is offered to every listener that matches, and held until one of them answers.

Whoever the broker hears first owns the channel, for ever; the others keep nothing but the answer
that they lost.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    Broker,
    Code,
    Data,
    Offer,
    Payload,
    Registration,
    Result,
)
from broker.errors import (
    CallAlreadyParked,
    ChannelAcquired,
    ChannelAlreadyClosed,
    ResponseTimeout,
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
    pass_away,
    said,
    sessions,
    state,
)
from tests.conformance.rules import rule
from tests.farm import OTHER_PRINTER, OTHER_TYPE, PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.proxy import Proxy

RACERS = 8
ROUNDS = 12


async def offers_of(farm: Farm, registrations: list[Registration[Payload]]) -> list[Offer[Any]]:
    return [await farm.offered(registration) for registration in registrations]


# The offer --------------------------------------------------------------------------------------


@rule(66)
async def test_the_initial_notification_reaches_every_matching_listener(farm: Farm) -> None:
    source = await farm.broker("spooler")
    two_sessions = await sessions(farm, 2)
    admin = await farm.administrator()
    everybody = await admin.register(PRINTER, TYPE, style=BIDIRECTIONAL, user_filter=ALL_USERS)
    channel = await farm.question(source, b"out of paper")
    for registration in (*two_sessions, everybody):
        offer = await farm.offered(registration)
        assert (offer.id, offer.notification.data) == (channel.id, b"out of paper")


@rule(66)
async def test_a_question_to_all_users_reaches_every_user(farm: Farm) -> None:
    source = await farm.administrator("spooler")
    registrations = [(await listener(farm, user))[1] for user in ("alice", "bob", "carol")]
    channel = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL, user_filter=ALL_USERS)
    assert await channel.send(b"fire!") == S_OK
    for offer in await offers_of(farm, registrations):
        assert (offer.id, offer.notification.data) == (channel.id, b"fire!")


@rule(67)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(range(256)), id="every-byte"),
        pytest.param(secrets.token_bytes(10_000), id="too-large-for-a-bell"),
        pytest.param(secrets.token_bytes(100_000), id="by-reference"),
    ],
)
async def test_every_listener_sees_the_same_bytes_and_type(farm: Farm, body: bytes) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 3)
    await farm.question(source, body)
    late = await sessions(farm, 1)
    for offer in await offers_of(farm, registrations + late):
        assert offer.notification.acquire_data() == (body, len(body), TYPE)
        offer.notification.release_data()


@rule(68)
async def test_who_registers_before_anyone_responded_gets_the_same_notification(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler")
    _, early = await listener(farm)
    channel = await farm.question(source, b"continue?")
    first = await farm.offered(early)
    _, late = await listener(farm)
    second = await farm.offered(late)
    assert second.id == first.id == channel.id
    assert second.notification.acquire_data() == first.notification.acquire_data()
    await first.decline()
    _, later = await listener(farm)
    assert (await farm.offered(later)).notification.data == b"continue?", "declining is no response"


@rule(69)
@pytest.mark.parametrize("ended", [False, True], ids=["dialog-open", "dialog-over"])
async def test_who_registers_after_the_acquisition_is_not_offered_the_channel(
    farm: Farm, ended: bool
) -> None:
    source = await farm.broker("spooler")
    _, early = await listener(farm)
    channel, _ = await dialog(farm, source, early)
    if ended:
        await channel.close()
    _, late = await listener(farm)
    open_one = await farm.question(source, b"another")
    assert (await farm.offered(late)).id == open_one.id
    assert late.unread == 0


# The held notification --------------------------------------------------------------------------


@rule(70)
async def test_the_initial_notification_is_held_while_nobody_listens(farm: Farm) -> None:
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    result = await channel.send(b"anybody?")
    assert result.succeeded
    assert result.code is Code.NO_LISTENERS
    _, registration = await listener(farm)
    offer = await farm.offered(registration)
    assert offer.notification.data == b"anybody?"
    assert await offer.respond(b"me") == S_OK
    assert (await channel.response(PATIENCE)).data == b"me"


@rule(70)
@pytest.mark.parametrize("leaving", ["declines", "unregisters", "ends", "dies"])
async def test_the_initial_notification_outlives_listeners_that_leave_unanswered(
    farm: Farm, leaving: str
) -> None:
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await farm.question(source, b"anybody?")
    offer = await farm.offered(registration)
    match leaving:
        case "declines":
            await offer.decline()
        case "unregisters":
            await registration.unregister()
        case "ends":
            await process.close()
        case "dies":
            await pass_away(farm, process)
    assert await state(source, channel) == "offered"
    _, next_one = await listener(farm)
    assert (await farm.offered(next_one)).notification.data == b"anybody?"


# Fetching channels ------------------------------------------------------------------------------


@rule(71)
async def test_one_fetch_returns_all_open_channels_not_yet_returned(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, other = await listener(farm)
    await dialog(farm, source, other)
    closed = await farm.question(source)
    await closed.close()
    await farm.question(source, name=OTHER_PRINTER)
    await farm.question(source, user="bob")
    unlike = await source.open_channel(PRINTER, OTHER_TYPE, user="alice", style=BIDIRECTIONAL)
    await unlike.send(b"another type")
    before = [(await farm.question(source)).id for _ in range(3)]
    _, registration = await listener(farm)
    found = await registration.fetch_offers(PATIENCE)
    assert [offer.id for offer in found] == before, "open, matching, and in the order asked"

    after = [(await farm.question(source)).id for _ in range(2)]
    await eventually(lambda: registration.unread == 2, "both new questions")
    assert [offer.id for offer in await registration.fetch_offers(PATIENCE)] == after


@rule(71)
async def test_a_channel_acquired_before_it_was_fetched_is_not_returned(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, slow = await listener(farm)
    _, quick = await listener(farm)
    taken = await farm.question(source)
    left = await farm.question(source)
    await eventually(lambda: slow.unread == 2, "both questions")
    await (await farm.offered(quick)).respond(b"mine")
    await taken.response(PATIENCE)
    await eventually(lambda: slow.unread == 1, "the withdrawal of the acquired channel")
    assert [offer.id for offer in await slow.fetch_offers(PATIENCE)] == [left.id]


@rule(72)
@pytest.mark.parametrize("declined", [False, True], ids=["held", "declined"])
async def test_a_channel_is_returned_to_a_registration_at_most_once(
    farm: Farm, declined: bool
) -> None:
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await farm.question(source)
    (offer,) = await registration.fetch_offers(PATIENCE)
    assert offer.id == channel.id
    if declined:
        await offer.decline()
    async with await process.register(PRINTER, TYPE, style=BIDIRECTIONAL) as beside:
        assert (await farm.offered(beside)).id == channel.id, "another registration gets its own"
    second = await farm.question(source)
    found = await registration.fetch_offers(PATIENCE)
    assert [offer.id for offer in found] == [second.id], "the first one came a second time"
    assert registration.unread == 0


@rule(73)
async def test_a_second_concurrent_fetch_of_channels_fails_and_the_first_stays(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    parked = asyncio.create_task(registration.fetch_offers())
    await asyncio.sleep(0)
    for fetch in (registration.fetch_offers, registration.fetch):
        with pytest.raises(CallAlreadyParked) as refused:
            await fetch()
        assert refused.value.result.hresult == 0x8004_000C
    channel = await farm.question(source)
    async with asyncio.timeout(PATIENCE):
        assert [offer.id for offer in await parked] == [channel.id]


# Seeing is not acquiring ------------------------------------------------------------------------


@rule(74)
async def test_several_listeners_hold_the_first_notification_at_once(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 3)
    channel = await farm.question(source)
    offers = await offers_of(farm, registrations)
    shown = await source.show(channel.id)
    assert shown is not None
    assert (shown[0].state, shown[0].owner) == ("offered", None)
    assert not any(offer.is_mine or offer.is_lost for offer in offers)
    assert await offers[-1].respond(b"last to see, first to speak") == S_OK


@rule(75)
@pytest.mark.parametrize(
    "ignored",
    [
        pytest.param(b"too early", id="data"),
        pytest.param(b"x" * 101, id="above-the-limit"),
        pytest.param(Data(OTHER_TYPE, b"wrong"), id="wrong-type"),
    ],
)
async def test_data_given_with_the_first_fetch_on_a_handle_is_ignored(
    farm: Farm, ignored: bytes | Data
) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, eager = await listener(farm, max_payload=100)
    _, other = await listener(farm)
    channel = await asked(source, heard, b"continue?")
    offer = await farm.offered(eager)
    handle, notification = await offer.exchange(ignored)
    assert handle is offer
    assert notification.acquire_data() == (b"continue?", 9, TYPE)
    assert await state(source, channel) == "offered", "the first fetch acquired the channel"
    assert await (await farm.offered(other)).respond(b"the answer") == S_OK
    await heard.until(notified=1)
    await all_heard(farm, source, process)
    assert heard.bodies == [b"the answer"]


# Acquisition ------------------------------------------------------------------------------------


async def answer(offer: Offer[Any], body: bytes, pause: float) -> Result | ChannelAcquired:
    """Answer after a pause: the result, or the loser's error. Anything else fails the test."""
    await asyncio.sleep(pause)
    try:
        return await offer.respond(body)
    except ChannelAcquired as lost:
        return lost


@rule(76, 77)
async def test_of_listeners_that_answer_at_once_exactly_one_acquires(farm: Farm) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    heard = Recorder()
    source = await farm.broker("spooler")
    registrations = await sessions(farm, RACERS)
    winners: list[bytes | None] = []
    for turn in range(ROUNDS):
        channel = await asked(source, heard)
        offers = await offers_of(farm, registrations)
        rng.shuffle(offers)
        bodies = [f"round {turn}, racer {i}".encode() for i in range(RACERS)]
        outcomes = await asyncio.gather(
            *(
                answer(offer, body, rng.choice((0, 0, rng.random() / 500)))
                for offer, body in zip(offers, bodies, strict=True)
            )
        )
        won = [i for i, outcome in enumerate(outcomes) if outcome == S_OK]
        assert len(won) == 1, f"{len(won)} winners in round {turn} (seed {seed})"
        lost = [outcome for outcome in outcomes if isinstance(outcome, ChannelAcquired)]
        assert len(lost) == RACERS - 1
        assert {error.result.hresult for error in lost} == {0x8004_0010}
        winner, body = offers[won[0]], bodies[won[0]]
        shown = await source.show(channel.id)
        assert shown is not None
        responses = [each.data for each in shown[1] if each.event == "response"]
        assert responses == [body], f"the broker took {responses} (seed {seed})"
        await heard.until(notified=turn + 1)
        assert channel.owner == winner.registration.id, f"not the accepted one (seed {seed})"
        winners.append(body)
    await all_heard(farm, source, await farm.broker("fence"))
    assert heard.bodies == winners, f"the source saw more, or others (seed {seed})"
    assert not heard.closed


@rule(77)
async def test_the_first_accepted_response_wins_though_it_travels_longer(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    slow, quick = await offers_of(farm, registrations)
    large = secrets.token_bytes(2_000_000)
    assert await slow.respond(large) == S_OK
    with pytest.raises(ChannelAcquired):
        await quick.respond(b"small")
    response = await channel.response(PATIENCE)
    assert response.registration == registrations[0].id
    assert response.data == large


@rule(77, on="redis")
async def test_the_first_accepted_response_wins_while_the_source_is_cut_off(
    real_farm: Farm,
) -> None:
    backend = real_farm.backend
    assert isinstance(backend, RedisBackend)
    async with Proxy("127.0.0.1", backend.server.port) as proxy:
        source = Broker.connect(proxy.url, user="spooler", namespace=real_farm.namespace)
        async with source:
            registrations = await sessions(real_farm, 3)
            channel = await real_farm.question(source)
            offers = await offers_of(real_farm, registrations)
            proxy.stall(True)
            assert await offers[1].respond(b"first") == S_OK
            for late in (offers[0], offers[2]):
                with pytest.raises(ChannelAcquired):
                    await late.respond(b"late")
            proxy.stall(False)
            response = await channel.response(PATIENCE)
            assert (response.data, response.registration) == (b"first", registrations[1].id)
            with pytest.raises(ResponseTimeout):
                await channel.response(0)


# Closing with data as the answer ----------------------------------------------------------------


@rule(78)
async def test_closing_with_data_acquires_closes_and_tells_the_source(farm: Farm) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await asked(source, heard)
    first, second = await offers_of(farm, registrations)
    assert await first.close(b"yes, and done") == S_OK
    await heard.until(closed=1)
    assert heard.closed[0].acquire_data() == (b"yes, and done", 13, TYPE)
    assert not heard.notified, "the final answer is the close reason, not a notification"
    shown = await source.show(channel.id)
    assert shown is not None
    assert (shown[0].state, shown[0].owner) == ("closed", "alice")
    with pytest.raises(ChannelAcquired):
        await second.respond(b"me too")
    assert await second.close(b"me too") == LOST_THE_RACE
    _, late = await listener(farm)
    open_one = await farm.question(source)
    assert (await farm.offered(late)).id == open_one.id
    assert len(heard.told) == 1


@rule(78)
async def test_of_listeners_that_close_with_data_at_once_exactly_one_acquires(farm: Farm) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    heard = Recorder()
    source = await farm.broker("spooler")
    registrations = await sessions(farm, RACERS)
    winners: list[bytes | None] = []
    for turn in range(ROUNDS):
        await asked(source, heard)
        offers = await offers_of(farm, registrations)
        rng.shuffle(offers)
        bodies = [f"round {turn}, racer {i}".encode() for i in range(RACERS)]
        results = await asyncio.gather(
            *(offer.close(body) for offer, body in zip(offers, bodies, strict=True))
        )
        won = [i for i, result in enumerate(results) if result == S_OK]
        assert len(won) == 1, f"{len(won)} winners in round {turn} (seed {seed})"
        assert results.count(LOST_THE_RACE) == RACERS - 1
        winners.append(bodies[won[0]])
        await heard.until(closed=turn + 1)
    assert [reason.data for reason in heard.closed] == winners, f"(seed {seed})"
    assert not heard.notified


# Declining --------------------------------------------------------------------------------------

DECLINES = [
    pytest.param(None, id="nothing"),
    pytest.param(Data(NOTIFICATION_RELEASE), id="release"),
    pytest.param(Data(NOTIFICATION_RELEASE, b"not to be read"), id="release-with-bytes"),
]


@rule(79, 80)
@pytest.mark.parametrize("reason", DECLINES)
async def test_closing_without_data_leaves_the_channel_to_the_others(
    farm: Farm, reason: Data | None
) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    _, other = await listener(farm)
    channel = await asked(source, heard)
    assert await (await farm.offered(registration)).close(reason) == S_OK
    assert await state(source, channel) == "offered"
    assert [event for event, _ in await said(source, channel)] == ["notification"]
    await all_heard(farm, source, process)
    assert not heard.told, "the source was told of a decline"
    assert await (await farm.offered(other)).respond(b"I will") == S_OK
    await heard.until(notified=1)
    assert heard.bodies == [b"I will"]


@rule(79, 80)
async def test_a_channel_that_all_listeners_declined_stays_open(farm: Farm) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 3)
    channel = await asked(source, heard)
    for offer in await offers_of(farm, registrations):
        assert await offer.decline() == S_OK
    assert await state(source, channel) == "offered"
    process, late = await listener(farm)
    await all_heard(farm, source, process)
    assert not heard.told
    assert await (await farm.offered(late)).respond(b"at last") == S_OK
    await heard.until(notified=1)


@rule(81)
async def test_a_declined_listener_hears_no_more_of_the_channel(farm: Farm) -> None:
    async def decline(offer: Any, _: object) -> None:
        await offer.close()

    declined = Recorder(decline)
    source = await farm.broker("spooler")
    process, _ = await called(farm, declined)
    _, other = await listener(farm)
    channel = await farm.question(source)
    await declined.until(notified=1)
    await declined.until_idle()
    owner = await farm.offered(other)
    await owner.respond(b"mine")
    await channel.response(PATIENCE)
    await channel.send(b"go on")
    await owner.follow_up(PATIENCE)
    await channel.close(b"over")
    await all_heard(farm, source, process)
    assert [told.event for told in declined.told] == ["notified"]


@rule(81)
async def test_a_declined_listener_cannot_answer_after_all(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    offer, other = await offers_of(farm, registrations)
    await offer.decline()
    with pytest.raises(ChannelAlreadyClosed):
        await offer.respond(b"on second thought")
    assert await state(source, channel) == "offered"
    assert await other.respond(b"me") == S_OK


@rule(81)
async def test_an_answer_given_while_the_decline_is_under_way_is_refused(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    declined, answered = await asyncio.gather(
        offer.decline(), offer.respond(b"on second thought"), return_exceptions=True
    )
    assert declined == S_OK
    assert isinstance(answered, ChannelAlreadyClosed)
    assert await state(source, channel) == "offered"
    assert not offer.is_mine


# Losers -----------------------------------------------------------------------------------------


@rule(82)
@pytest.mark.parametrize("told", [False, True], ids=["unaware", "told"])
@pytest.mark.parametrize("ended", [False, True], ids=["dialog-open", "dialog-over"])
async def test_a_losers_send_fails_and_its_data_reaches_nobody(
    farm: Farm, told: bool, ended: bool
) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    _, other = await listener(farm)
    channel = await asked(source, heard)
    loser = await farm.offered(registration)
    await (await farm.offered(other)).respond(b"first")
    await heard.until(notified=1)
    if ended:
        await channel.close()
    if told:
        await loser.wait_closed(PATIENCE)
        assert loser.is_lost
    for attempt in (b"second", b"third"):
        with pytest.raises(ChannelAcquired) as lost:
            await loser.respond(attempt)
        assert lost.value.result.hresult == 0x8004_0010
        assert lost.value.by == "alice"
    await all_heard(farm, source, process)
    assert heard.bodies == [b"first"]
    assert b"second" not in [data for _, data in await said(source, channel)]


@rule(83)
@pytest.mark.parametrize("told", [False, True], ids=["unaware", "told"])
@pytest.mark.parametrize("reason", [b"too late", None], ids=["data", "none"])
async def test_a_losers_close_succeeds_and_its_data_reaches_nobody(
    farm: Farm, told: bool, reason: bytes | None
) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    _, other = await listener(farm)
    channel = await asked(source, heard)
    loser = await farm.offered(registration)
    await (await farm.offered(other)).respond(b"first")
    await heard.until(notified=1)
    if told:
        await loser.wait_closed(PATIENCE)
    result = await loser.close(reason)
    assert result.hresult == 0x0004_0010
    assert result.succeeded
    assert result.code is Code.CHANNEL_ACQUIRED
    await all_heard(farm, source, process)
    assert heard.bodies == [b"first"]
    assert not heard.closed
    assert await state(source, channel) == "answered", "the dialog of the winner goes on"


async def the_one_that_waits(calls: list[asyncio.Task[Any]], where: str) -> asyncio.Task[Any]:
    """The call that is left when all others have ended."""

    def others_ended() -> bool:
        return sum(call.done() for call in calls) >= len(calls) - 1

    await eventually(others_ended, f"the end of all calls but one {where}")
    (waiting,) = [call for call in calls if not call.done()]
    return waiting


@rule(84)
async def test_losers_in_a_call_are_woken_with_release_and_no_handle(farm: Farm) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 5)
    for turn in range(ROUNDS):
        channel = await farm.question(source)
        offers = await offers_of(farm, registrations)
        for offer in offers:
            handle, _ = await offer.exchange()
            assert handle is offer
        rng.shuffle(offers)
        calls = [asyncio.create_task(offer.exchange(b"answer")) for offer in offers]
        owner = await the_one_that_waits(calls, f"in round {turn} (seed {seed})")
        for call in calls:
            if call is not owner:
                handle, notification = call.result()
                assert handle is None, f"a loser keeps its handle (seed {seed})"
                assert notification.acquire_data() == (None, 0, NOTIFICATION_RELEASE)
        await channel.response(PATIENCE)
        await channel.send(b"to the owner")
        async with asyncio.timeout(PATIENCE):
            handle, notification = await owner
        assert handle in offers
        assert notification.data == b"to the owner"


@rule(84)
async def test_a_channel_lost_before_its_first_fetch_gives_release_and_no_handle(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    winner, loser = await offers_of(farm, registrations)
    await winner.respond(b"mine")
    await channel.response(PATIENCE)
    await loser.wait_closed(PATIENCE)
    async with asyncio.timeout(PATIENCE):
        handle, notification = await loser.exchange()
    assert handle is None
    assert notification.acquire_data() == (None, 0, NOTIFICATION_RELEASE)


@rule(85)
@pytest.mark.parametrize("end", ["owner-dies", "owner-ends", "owner-closes", "source-closes"])
async def test_a_channel_that_was_acquired_is_never_acquired_again(farm: Farm, end: str) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, owning = await listener(farm)
    other_process, other = await listener(farm)
    channel = await asked(source, heard)
    loser = await farm.offered(other)
    winner = await farm.offered(owning)
    await winner.respond(b"first")
    await heard.until(notified=1)
    match end:
        case "owner-dies":
            await pass_away(farm, process)
            await heard.until(closed=1)
        case "owner-ends":
            await process.close()
            await heard.until(closed=1)
        case "owner-closes":
            await winner.close()
            await heard.until(closed=1)
        case "source-closes":
            await channel.close()
    with pytest.raises(ChannelAcquired):
        await loser.respond(b"then I")
    assert await loser.close(b"then I") == LOST_THE_RACE
    _, late = await listener(farm)
    await all_heard(farm, source, other_process)
    open_one = await farm.question(source)
    assert (await farm.offered(late)).id == open_one.id
    shown = await source.show(channel.id)
    assert shown is not None
    assert (shown[0].state, shown[0].owner) == ("closed", "alice")
    assert heard.bodies == [b"first"]
