"""A dialog is half-duplex and belongs to its owner: one notification, one response, in turn.

What was refused changes nothing; what was accepted arrives once, in order, byte for byte.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import (
    BIDIRECTIONAL,
    Broker,
    Channel,
    Code,
    Data,
    Notification,
    Offer,
    Payload,
    Registration,
    Settings,
)
from broker.errors import (
    CallInProgress,
    ChannelAcquired,
    ChannelNotOpened,
    InvalidNotificationType,
    NotificationTooLarge,
    ResponseTimeout,
    TympanError,
    WaitingForResponse,
)
from broker.results import S_OK
from tests.conformance.actors import (
    Recorder,
    all_heard,
    asked,
    called,
    dialog,
    listener,
    said,
    sessions,
    state,
)
from tests.conformance.rules import rule
from tests.farm import OTHER_TYPE, PATIENCE, PRINTER, TYPE, Farm

LIMIT = 100
TEN_MEGABYTES = 10_485_760
WRONG = Data(OTHER_TYPE, b"of another type")


class Foreign(Payload, type=OTHER_TYPE):
    """A model of another type."""

    tray: int = 2


# Turns ------------------------------------------------------------------------------------------


@rule(86)
async def test_after_the_acquisition_only_the_owner_is_notified(farm: Farm) -> None:
    async def decline(offer: Any, _: object) -> None:
        await offer.close()

    loser, decliner, late = Recorder(), Recorder(decline), Recorder()
    source = await farm.broker("spooler")
    losing, _ = await called(farm, loser)
    declining, _ = await called(farm, decliner)
    _, owning = await listener(farm)
    channel = await farm.question(source)
    await loser.until(notified=1)
    await decliner.until(notified=1)
    await decliner.until_idle()
    offer = await farm.offered(owning)
    await offer.respond(b"mine")
    await channel.response(PATIENCE)
    lately, _ = await called(farm, late)
    for turn in range(3):
        body = f"turn {turn}".encode()
        assert await channel.send(body) == S_OK
        notification = await offer.follow_up(PATIENCE)
        assert notification.acquire_data() == (body, len(body), TYPE)
        await offer.respond(b"understood")
        await channel.response(PATIENCE)
    await all_heard(farm, source, losing, declining, lately)
    assert loser.bodies == decliner.bodies == [b"continue?"]
    assert late.bodies == []


@rule(87)
@pytest.mark.parametrize("listeners", [0, 1], ids=["unheard", "heard"])
async def test_a_second_send_before_the_first_answer_changes_nothing(
    farm: Farm, listeners: int
) -> None:
    source = await farm.broker("spooler")
    await sessions(farm, listeners)
    channel = await farm.question(source, b"first")
    for _ in range(2):
        with pytest.raises(WaitingForResponse) as refused:
            await channel.send(b"second")
        assert refused.value.result.hresult == 0x8004_000A
    assert await said(source, channel) == [("notification", b"first")]
    _, late = await listener(farm)
    offer = await farm.offered(late)
    assert offer.notification.data == b"first"
    await offer.respond(b"answer")
    assert (await channel.response(PATIENCE)).data == b"answer"
    assert await channel.send(b"second") == S_OK
    assert (await offer.follow_up(PATIENCE)).data == b"second"


@rule(87)
async def test_a_second_send_in_a_dialog_changes_nothing(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel, offer = await dialog(farm, source, registration)
    assert await channel.send(b"one") == S_OK
    with pytest.raises(WaitingForResponse):
        await channel.send(b"two")
    assert await state(source, channel) == "asked"
    assert (await offer.follow_up(PATIENCE)).data == b"one"
    await offer.respond(b"to one")
    assert (await channel.response(PATIENCE)).data == b"to one"
    await channel.send(b"three")
    assert (await offer.follow_up(PATIENCE)).data == b"three"


@rule(88)
async def test_an_owner_that_sends_before_the_source_spoke_again_fails(farm: Farm) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    channel = await asked(source, heard)
    offer = await farm.offered(registration)
    await offer.respond(b"one")
    for _ in range(2):
        with pytest.raises(CallInProgress) as refused:
            await offer.respond(b"two")
        assert refused.value.result.hresult == 0x8004_0011
    assert await state(source, channel) == "answered"
    await all_heard(farm, source, process)
    assert heard.bodies == [b"one"]
    await channel.send(b"go on")
    await offer.follow_up(PATIENCE)
    assert await offer.respond(b"two") == S_OK
    await heard.until(notified=2)
    assert heard.bodies == [b"one", b"two"]


async def converse(channel: Channel, offer: Offer[Any], turns: int, name: str) -> list[bytes]:
    """A dialog of so many turns; what the source heard."""
    heard: list[bytes] = []
    for turn in range(turns):
        await channel.send(f"{name} {turn}?".encode())
        question = await offer.follow_up(PATIENCE)
        assert question.data == f"{name} {turn}?".encode()
        await offer.respond(f"{name} {turn}!".encode())
        heard.append((await channel.response(PATIENCE)).data or b"")
    return heard


@rule(89)
async def test_every_response_reaches_the_source_once_and_in_order(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    dialogs = [await dialog(farm, source, registration) for _ in range(3)]
    heard = await asyncio.gather(
        *(converse(*each, 20, f"dialog {i}") for i, each in enumerate(dialogs))
    )
    for i, responses in enumerate(heard):
        assert responses == [f"dialog {i} {turn}!".encode() for turn in range(20)]
    await all_heard(farm, source, process)
    for channel, _ in dialogs:
        with pytest.raises(ResponseTimeout):
            await channel.response(0)


@rule(89, on="redis")
async def test_responses_arrive_once_and_in_order_though_bells_are_lost(real_farm: Farm) -> None:
    source = await real_farm.broker("spooler", resync=0.1)
    process, registration = await listener(real_farm, resync=0.1)
    channel, offer = await dialog(real_farm, source, registration)

    async def lose_bells() -> None:
        while True:
            await real_farm.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.05)

    losing = asyncio.create_task(lose_bells())
    try:
        heard = await converse(channel, offer, 10, "turn")
    finally:
        losing.cancel()
        await asyncio.gather(losing, return_exceptions=True)
    assert heard == [f"turn {turn}!".encode() for turn in range(10)]
    await all_heard(real_farm, source, process)
    with pytest.raises(ResponseTimeout):
        await channel.response(0)


# Types and sizes --------------------------------------------------------------------------------


async def refused_as_wrong_type(call: Awaitable[object]) -> None:
    with pytest.raises(InvalidNotificationType) as refused:
        await call
    assert refused.value.result.hresult == 0x8004_0014


@rule(90)
@pytest.mark.parametrize("wrong", [WRONG, Foreign()], ids=["data", "model"])
async def test_a_payload_of_another_type_is_refused_and_not_delivered(
    farm: Farm, wrong: Data | Payload
) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    await refused_as_wrong_type(channel.send(wrong))
    await channel.send(Data(TYPE, b"of this type"))
    offer = await farm.offered(registration)
    assert offer.notification.data == b"of this type"
    await refused_as_wrong_type(offer.respond(wrong))
    await refused_as_wrong_type(offer.close(wrong))
    await offer.respond(Data(TYPE, b"answer"))
    assert (await channel.response(PATIENCE)).data == b"answer"
    await refused_as_wrong_type(channel.send(wrong))
    await refused_as_wrong_type(channel.close(wrong))
    assert [data for _, data in await said(source, channel)] == [b"of this type", b"answer"]


@rule(90)
async def test_a_unidirectional_payload_of_another_type_is_refused(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    registration = await process.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await refused_as_wrong_type(channel.send(WRONG))
    await channel.send(b"right")
    notification = await registration.fetch(PATIENCE)
    assert isinstance(notification, Notification)
    assert notification.data == b"right"
    assert registration.unread == 0


async def refused_as_too_large(call: Awaitable[object]) -> None:
    with pytest.raises(NotificationTooLarge) as refused:
        await call
    assert refused.value.result.hresult == 0x8004_0012


@rule(91)
async def test_a_payload_of_the_limit_is_taken_and_one_byte_more_refused(farm: Farm) -> None:
    full, over = b"x" * LIMIT, b"x" * (LIMIT + 1)
    source = await farm.broker("spooler", max_payload=LIMIT)
    _, registration = await listener(farm, max_payload=LIMIT)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    await refused_as_too_large(channel.send(over))
    await channel.send(full)
    offer = await farm.offered(registration)
    assert offer.notification.data == full
    await refused_as_too_large(offer.respond(over))
    await offer.respond(full)
    assert (await channel.response(PATIENCE)).data == full
    await refused_as_too_large(channel.send(over))
    await channel.send(full)
    assert (await offer.follow_up(PATIENCE)).data == full
    await refused_as_too_large(offer.close(over))
    await refused_as_too_large(channel.close(over))
    await offer.close(full)
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == full


@rule(91)
async def test_the_limit_counts_for_unidirectional_notifications_and_source_reasons(
    farm: Farm,
) -> None:
    full, over = b"x" * LIMIT, b"x" * (LIMIT + 1)
    source = await farm.broker("spooler", max_payload=LIMIT)
    process = await farm.broker("alice")
    plain = await process.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await refused_as_too_large(channel.send(over))
    await channel.send(full)
    notification = await plain.fetch(PATIENCE)
    assert isinstance(notification, Notification)
    assert notification.data == full
    asking = await process.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    question = await farm.question(source)
    offer = await farm.offered(asking)
    await refused_as_too_large(question.close(over))
    await question.close(full)
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == full


@rule(91)
async def test_the_default_limit_is_ten_megabytes_to_the_byte(farm: Farm) -> None:
    assert Settings().max_payload == TEN_MEGABYTES
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    await refused_as_too_large(channel.send(bytes(TEN_MEGABYTES + 1)))
    full = secrets.token_bytes(TEN_MEGABYTES)
    assert await channel.send(full) == S_OK
    offer = await farm.offered(registration)
    assert offer.notification.data == full


@rule(92)
async def test_an_empty_payload_passes_both_ways(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    channel = await farm.question(source, b"")
    offer = await farm.offered(registration)
    assert offer.notification.acquire_data() == (b"", 0, TYPE)
    await offer.respond(b"")
    assert (await channel.response(PATIENCE)).acquire_data() == (b"", 0, TYPE)
    await channel.send(b"")
    assert (await offer.follow_up(PATIENCE)).acquire_data() == (b"", 0, TYPE)
    await offer.close(b"")
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.acquire_data() == (b"", 0, TYPE), "empty is not the same as no reason"


@rule(92)
async def test_an_empty_answer_acquires_like_any_other(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registrations = await sessions(farm, 2)
    channel = await farm.question(source)
    first, second = [await farm.offered(registration) for registration in registrations]
    assert await first.close(b"") == S_OK
    with pytest.raises(ChannelAcquired):
        await second.respond(b"not empty")
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.acquire_data() == (b"", 0, TYPE)


@rule(92)
async def test_an_empty_unidirectional_notification_is_passed_on(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    registration = await process.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await channel.send(b"") == S_OK
    notification = await registration.fetch(PATIENCE)
    assert isinstance(notification, Notification)
    assert notification.acquire_data() == (b"", 0, TYPE)


# Failed sends -----------------------------------------------------------------------------------

Send = Callable[[bytes | Data], Awaitable[object]]


async def fails_in_every_way(send: Send) -> None:
    """Type and size, twice each: a failure must not use up an operation either."""
    for _ in range(2):
        with pytest.raises(InvalidNotificationType):
            await send(WRONG)
        with pytest.raises(NotificationTooLarge):
            await send(b"x" * (LIMIT + 1))


async def limited(farm: Farm) -> tuple[Broker, Broker, Registration[Payload]]:
    """A source and a listener with a small limit."""
    source = await farm.broker("spooler", max_payload=LIMIT)
    process, registration = await listener(farm, max_payload=LIMIT)
    return source, process, registration


@rule(93)
async def test_failed_first_sends_leave_the_channel_as_new(farm: Farm) -> None:
    source, _, registration = await limited(farm)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    await fails_in_every_way(channel.send)
    assert await state(source, channel) == "open"
    assert await said(source, channel) == []
    with pytest.raises(ChannelNotOpened):
        await channel.close()
    assert await channel.send(b"right") == S_OK
    assert (await farm.offered(registration)).notification.data == b"right"


@rule(93)
async def test_failed_answers_do_not_acquire(farm: Farm) -> None:
    heard = Recorder()
    source, process, registration = await limited(farm)
    _, other = await listener(farm)
    channel = await asked(source, heard)
    offer = await farm.offered(registration)
    await fails_in_every_way(offer.respond)
    await fails_in_every_way(offer.close)
    shown = await source.show(channel.id)
    assert shown is not None
    assert (shown[0].state, shown[0].owner) == ("offered", None)
    assert not offer.is_mine
    _, late = await listener(farm)
    assert (await farm.offered(late)).id == channel.id, "the question lies on the board no more"
    await all_heard(farm, source, process)
    assert not heard.told
    assert await (await farm.offered(other)).respond(b"right") == S_OK
    await heard.until(notified=1)
    assert heard.bodies == [b"right"]


@rule(93)
async def test_failed_answers_leave_the_handle_able_to_answer(farm: Farm) -> None:
    source, _, registration = await limited(farm)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await fails_in_every_way(offer.respond)
    assert await offer.respond(b"right") == S_OK
    assert (await channel.response(PATIENCE)).data == b"right"


@rule(93)
async def test_failed_sends_in_a_dialog_leave_its_turn(farm: Farm) -> None:
    source, _, registration = await limited(farm)
    channel, offer = await dialog(farm, source, registration)
    await fails_in_every_way(channel.send)
    with pytest.raises(CallInProgress):
        await offer.respond(b"out of turn")
    assert await state(source, channel) == "answered"
    await channel.send(b"next")
    assert (await offer.follow_up(PATIENCE)).data == b"next"
    await fails_in_every_way(offer.respond)
    with pytest.raises(WaitingForResponse):
        await channel.send(b"out of turn")
    assert await state(source, channel) == "asked"
    await offer.respond(b"answer")
    assert (await channel.response(PATIENCE)).data == b"answer"


@rule(93)
async def test_a_losers_failed_send_leaves_the_winners_dialog(farm: Farm) -> None:
    source, _, registration = await limited(farm)
    _, other = await listener(farm)
    channel = await farm.question(source)
    winner, loser = await farm.offered(other), await farm.offered(registration)
    await winner.respond(b"mine")
    await channel.response(PATIENCE)
    failures: list[Code | None] = []
    for body in (b"lost", WRONG, b"x" * (LIMIT + 1)):
        with pytest.raises(TympanError) as refused:
            await loser.respond(body)
        failures.append(refused.value.result.code)
    assert failures[0] is Code.CHANNEL_ACQUIRED
    assert await state(source, channel) == "answered"
    await channel.send(b"go on")
    assert (await winner.follow_up(PATIENCE)).data == b"go on"
