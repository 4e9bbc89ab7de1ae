"""Whatever a caller gets wrong is a typed error that says what, where and what to do.

Nothing is half done: Redis holds the same, key for key, before and after a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    UNIDIRECTIONAL,
    Broker,
    Data,
    Style,
    UserFilter,
)
from broker.errors import (
    AccessDenied,
    AlreadyRegistered,
    AlreadyUnregistered,
    BrokerClosed,
    CallInProgress,
    ChannelAcquired,
    ChannelAlreadyClosed,
    ChannelAlreadyOpened,
    ChannelNotOpened,
    ContractViolation,
    InvalidArgument,
    InvalidName,
    InvalidNotificationType,
    InvalidType,
    NotificationTooLarge,
    NotRegistered,
    PayloadInvalid,
    ResponseTimeout,
    TympanError,
    WaitingForResponse,
)
from broker.results import NOT_REGISTERED
from tests.dump import unchanged
from tests.farm import (
    OTHER_PRINTER,
    OTHER_TYPE,
    PATIENCE,
    PRINTER,
    SERVER,
    TYPE,
    Answer,
    Farm,
    OutOfPaper,
)
from tests.redis.scenes import QUIET, heard

Use = Callable[[Broker, Any], Awaitable[object]]


async def quiet(farm: Farm, user: str = "alice", **options: Any) -> Broker:
    """A broker that has its session already, and writes nothing by the clock."""
    broker = await farm.broker(user, **QUIET, **options)
    await broker.server(PRINTER)
    return broker


class Silent:
    """A callback that is never called here."""

    def on_event_notify(self, *_: object) -> None:
        raise AssertionError("called back")

    channel_closed = on_event_notify


async def open_channel(broker: Broker, name: Any) -> object:
    return await broker.open_channel(name, TYPE)


async def register(broker: Broker, name: Any) -> object:
    return await broker.register(name, TYPE)


async def listen(broker: Broker, name: Any) -> object:
    return await broker.listen(name, TYPE, Silent())


async def grant(broker: Broker, name: Any) -> object:
    return await broker.grant(name, "bob", "administer")


async def revoke(broker: Broker, name: Any) -> object:
    return await broker.revoke(name, "bob", "administer")


async def look(broker: Broker, name: Any) -> object:
    return await broker.channels(name)


every_use_of_a_name = pytest.mark.parametrize(
    "use", [open_channel, register, listen, grant, revoke, look]
)


# Arguments --------------------------------------------------------------------------------------


@every_use_of_a_name
@pytest.mark.parametrize(
    "name",
    [
        "",
        "laser-3",
        r"\\",
        r"\\print01\a\b",
        r"\\print01\a,b",
        r"\\pr}int01\laser-3",
        "\\\\print01\\a\nb",
        "\\\\print01\\\ud800",
        "\\\\print01\\" + "x" * 221,
        b"\\\\print01\\laser-3",
        5,
    ],
)
async def test_a_malformed_name_is_refused(farm: Farm, use: Use, name: Any) -> None:
    broker = await quiet(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidName) as refused:
            await use(broker, name)
    assert refused.value.result.hresult == 0x8007007B
    assert repr(name)[:20] in str(refused.value), "the message shows what was given"


async def test_no_name_needs_a_server(farm: Farm) -> None:
    broker = await quiet(farm)
    with pytest.raises(InvalidName, match="server="):
        await broker.open_channel(None, TYPE)


@pytest.mark.parametrize(
    "type_", ["", "balloon", "9e0b6c4e", NOTIFICATION_RELEASE, None, 5, b"asyncui", int]
)
@pytest.mark.parametrize("does", ["open_channel", "register"])
async def test_a_malformed_type_is_refused(farm: Farm, does: str, type_: Any) -> None:
    broker = await quiet(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidType):
            await getattr(broker, does)(PRINTER, type_)


@pytest.mark.parametrize("user", ["*", "a|b", "x" * 257, "a\x00b", "a\ud800", 5, b"alice"])
@pytest.mark.parametrize("does", ["open_channel", "register"])
async def test_a_malformed_user_is_refused(farm: Farm, does: str, user: Any) -> None:
    broker = await quiet(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidName, match="no user"):
            await getattr(broker, does)(PRINTER, TYPE, user=user)
        with pytest.raises(InvalidName, match="no user"):
            await broker.grant(PRINTER, user, "use")
        with pytest.raises(InvalidName, match="no user"):
            broker.user = user
    assert broker.user == "alice"


@pytest.mark.parametrize("does", ["open_channel", "register", "register_everywhere"])
async def test_all_users_are_no_user(farm: Farm, does: str) -> None:
    broker = await quiet(farm)
    call = getattr(broker, does)
    where = () if does == "register_everywhere" else (PRINTER,)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidName, match="write user_filter=ALL_USERS"):
            await call(*where, TYPE, user=ALL_USERS)


class Half:
    """A callback that its author has not finished."""

    def on_event_notify(self, *_: object) -> None:
        raise AssertionError("called back")


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        pytest.param(print, "no method on_event_notify and no channel_closed", id="a function"),
        pytest.param(Half(), "a Half is no callback: it has no method channel_closed", id="half"),
        pytest.param(Silent, "Silent is a class: give an object", id="a class"),
    ],
)
async def test_what_is_no_callback_is_refused_in_the_call(
    farm: Farm, callback: Any, says: str
) -> None:
    broker = await quiet(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        for call in (
            broker.listen(PRINTER, TYPE, callback),
            broker.listen_everywhere(TYPE, callback),
            broker.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL, callback=callback),
        ):
            with pytest.raises(InvalidArgument, match=says):
                await call


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"style": 7}, id="no style"),
        pytest.param({"style": "bi"}, id="a style's word"),
        pytest.param({"style": None}, id="style None"),
        pytest.param({"user_filter": 7}, id="no user filter"),
        pytest.param({"user_filter": "all"}, id="a user filter's word"),
    ],
)
@pytest.mark.parametrize("does", ["open_channel", "register"])
async def test_what_is_no_style_or_filter_is_refused(
    farm: Farm, does: str, options: dict[str, Any]
) -> None:
    broker = await farm.administrator("alice", **QUIET)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidArgument):
            await getattr(broker, does)(PRINTER, TYPE, **options)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("user_filter", UserFilter)
async def test_plain_numbers_mean_what_the_header_says(
    farm: Farm, style: Style, user_filter: UserFilter
) -> None:
    """0 is bidirectional and per user, 1 unidirectional and all users (R5, R6)."""
    broker = await farm.administrator("alice")
    numbers: dict[str, Any] = {"style": int(style), "user_filter": int(user_filter)}
    channel = await broker.open_channel(PRINTER, TYPE, **numbers)
    assert channel.style is style
    assert (channel.user is None) == (user_filter is ALL_USERS)
    await broker.register(PRINTER, TYPE, **numbers)
    (facts,) = await broker.registrations(PRINTER)
    assert (facts.style, facts.user_filter) == (style, user_filter)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"buffer": 0}, id="no buffer"),
        pytest.param({"buffer": -1}, id="a negative buffer"),
        pytest.param({"buffer": 1_000_001}, id="a buffer above the limit"),
        pytest.param({"buffer": "many"}, id="a buffer that is no number"),
        pytest.param({"printers": True}, id="all printers of a printer"),
    ],
)
async def test_a_registration_that_makes_no_sense_is_refused(
    farm: Farm, options: dict[str, Any]
) -> None:
    broker = await quiet(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidArgument, match=next(iter(options))):
            await broker.register(PRINTER, TYPE, **options)


async def test_a_channel_for_one_user_and_for_all_is_refused(farm: Farm) -> None:
    broker = await farm.administrator("alice", **QUIET)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidArgument, match="one user or for all"):
            await broker.open_channel(PRINTER, TYPE, user="bob", user_filter=ALL_USERS)


@pytest.mark.parametrize("right", ["", "own", "enumerate", "SERVER_ALL_ACCESS", 0, None])
async def test_a_right_of_no_printer_is_refused(farm: Farm, right: Any) -> None:
    broker = await quiet(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidArgument, match="no right of a printer"):
            await broker.grant(PRINTER, "bob", right)


@pytest.mark.parametrize("body", [None, 5, ["a"], {"tray": 2}, object(), Answer])
async def test_what_is_no_body_is_refused(farm: Farm, body: Any) -> None:
    broker = await quiet(farm)
    channel = await broker.open_channel(PRINTER, TYPE)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidArgument, match="bytes, text, a Payload or Data"):
            await channel.send(body)


@pytest.mark.parametrize("body", [Data(OTHER_TYPE, b"x"), Data(NOTIFICATION_RELEASE)])
async def test_a_body_of_another_type_is_refused(farm: Farm, body: Data) -> None:
    broker = await quiet(farm)
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    offer = await farm.offered(registration)
    one_way = await broker.open_channel(PRINTER, TYPE)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        for send in (one_way.send, channel.send, offer.respond):
            with pytest.raises(InvalidNotificationType, match=str(TYPE)):
                await send(body)
        if body.type != NOTIFICATION_RELEASE:
            for close in (channel.close, offer.close):
                with pytest.raises(InvalidNotificationType, match=str(TYPE)):
                    await close(body)
    assert (await offer.respond(b"yes")).succeeded, "the channel is as it was (R93)"


# Sizes ------------------------------------------------------------------------------------------

LIMIT = 2000


async def one_way(_: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE)
    channel = await broker.open_channel(PRINTER, TYPE)
    await channel.send(body)
    return await heard(registration)


async def one_way_lossless(_: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE)
    channel = await broker.open_channel(PRINTER, TYPE)
    await channel.send(body, lossless=True)
    return await heard(registration)


async def initial_notification(farm: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    await farm.question(broker, body)
    return (await farm.offered(registration)).notification.data


async def response(farm: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    await (await farm.offered(registration)).respond(body)
    return (await channel.response(PATIENCE)).data


async def follow_up(farm: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    await channel.response(PATIENCE)
    await channel.send(body)
    return (await offer.follow_up(PATIENCE)).data


async def final_answer(farm: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    await (await farm.offered(registration)).close(body)
    return (await channel.response(PATIENCE)).data


async def owners_reason(farm: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    await offer.close(body)
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    return closing.reason.data


async def sources_reason(farm: Farm, broker: Broker, body: bytes) -> bytes | None:
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    offer = await farm.offered(registration)
    await channel.close(body)
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    return closing.reason.data


Carries = Callable[[Farm, Broker, bytes], Awaitable[bytes | None]]
everything_that_carries_data = pytest.mark.parametrize(
    "carry",
    [
        one_way,
        one_way_lossless,
        initial_notification,
        response,
        follow_up,
        final_answer,
        owners_reason,
        sources_reason,
    ],
)
inline_and_by_reference = pytest.mark.parametrize(
    "body_by_reference", [LIMIT, 100], ids=["inline", "by reference"]
)


@everything_that_carries_data
@inline_and_by_reference
async def test_a_body_of_the_limit_arrives_whole(
    farm: Farm, carry: Carries, body_by_reference: int
) -> None:
    broker = await farm.broker(max_payload=LIMIT, body_by_reference=body_by_reference)
    body = bytes(n % 256 for n in range(LIMIT))
    assert await carry(farm, broker, body) == body


@everything_that_carries_data
@inline_and_by_reference
async def test_a_body_of_one_byte_more_is_refused(
    farm: Farm, carry: Carries, body_by_reference: int
) -> None:
    broker = await farm.broker(max_payload=LIMIT, body_by_reference=body_by_reference)
    with pytest.raises(NotificationTooLarge, match=r"2001 bytes.*max_payload is 2000") as refused:
        await carry(farm, broker, b"x" * (LIMIT + 1))
    assert refused.value.result.hresult == 0x80040012
    assert not [key for key in await farm.keys() if ":body:" in key]


@everything_that_carries_data
async def test_an_empty_body_arrives_empty(farm: Farm, carry: Carries) -> None:
    assert await carry(farm, await farm.broker(), b"") == b"", "and is no NOTIFICATION_RELEASE"


async def test_a_body_too_large_changes_nothing(farm: Farm) -> None:
    broker = await quiet(farm, max_payload=LIMIT)
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(broker)
    offer = await farm.offered(registration)
    fresh = await broker.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    one = await broker.open_channel(PRINTER, TYPE)
    body = b"x" * (LIMIT + 1)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        for use in (one.send, fresh.send, offer.respond, offer.close, channel.close):
            with pytest.raises(NotificationTooLarge):
                await use(body)
    assert (await fresh.send(b"x" * LIMIT)).succeeded
    assert (await offer.respond(b"yes")).succeeded, "too large an answer acquires nothing (D28)"


# Calls in the wrong state -----------------------------------------------------------------------


async def test_a_broker_that_was_not_entered_does_nothing(farm: Farm) -> None:
    broker = farm.backend.broker(user="alice", namespace=farm.namespace)
    for use in (open_channel, register, grant):
        with pytest.raises(BrokerClosed, match="async with"):
            await use(broker, PRINTER)
    assert await farm.keys() == []


async def test_a_broker_that_was_closed_does_nothing_more(farm: Farm) -> None:
    broker = await farm.broker()
    channel = await broker.open_channel(PRINTER, TYPE)
    registration = await broker.register(PRINTER, TYPE)
    await broker.close()
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(BrokerClosed):
            await broker.open_channel(PRINTER, TYPE)
        with pytest.raises((BrokerClosed, ChannelAlreadyClosed)):
            await channel.send(b"late")
        with pytest.raises((AlreadyUnregistered, BrokerClosed)):
            await registration.fetch(0)
        with pytest.raises(BrokerClosed, match="starts once"):
            await broker.start()
        await broker.close()


async def test_whoever_waits_is_woken_when_the_broker_closes(farm: Farm) -> None:
    """Nobody is left waiting for what can no longer come."""
    broker = await farm.broker()
    registration = await broker.register(PRINTER, TYPE)
    channel = await farm.question(broker)
    waits = [
        asyncio.create_task(wait)
        for wait in (registration.fetch(), channel.response(), channel.wait_closed())
    ]
    await asyncio.sleep(0)
    await broker.close()
    done, pending = await asyncio.wait(waits, timeout=1)
    for task in pending:
        task.cancel()
    assert not pending, "still waiting"
    results = await asyncio.gather(*done, return_exceptions=True)
    assert all(each is None or not isinstance(each, asyncio.CancelledError) for each in results)


async def test_a_channel_that_is_not_open_does_nothing(farm: Farm) -> None:
    broker = await quiet(farm)
    channel = await broker.channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        for call in (channel.send(b"x"), channel.close(), channel.release(), channel.response(0)):
            with pytest.raises(ChannelNotOpened, match="open"):
                await call


async def test_states_of_a_source(farm: Farm) -> None:
    broker = await quiet(farm)
    registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await broker.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(ChannelAlreadyOpened):
            await channel.open()
        with pytest.raises(ChannelNotOpened, match="release it instead"):
            await channel.close()
        with pytest.raises(ResponseTimeout):
            await channel.response(0)
    await channel.send(b"question")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(WaitingForResponse, match="unanswered"):
            await channel.send(b"another")
        with pytest.raises(ContractViolation):
            await channel.release()
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(CallInProgress, match="next notification"):
            await offer.respond(b"again")
    await channel.close()
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        for call in (channel.send(b"late"), channel.close(), channel.response(0)):
            with pytest.raises(ChannelAlreadyClosed):
                await call


async def test_a_unidirectional_channel_is_not_answered(farm: Farm) -> None:
    broker = await quiet(farm)
    channel = await broker.open_channel(PRINTER, TYPE)
    registration = await broker.register(PRINTER, TYPE)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(InvalidArgument, match="unidirectional"):
            await channel.response(0)
        with pytest.raises(InvalidArgument, match="unidirectional"):
            await registration.fetch_offers(0)


async def test_states_of_a_registration(farm: Farm) -> None:
    broker = await quiet(farm)
    registration = await broker.registration(PRINTER)
    with pytest.raises(NotRegistered):
        await registration.fetch(0)
    assert await registration.unregister() == NOT_REGISTERED
    plan: dict[str, Any] = {
        "user": "alice",
        "user_filter": UserFilter.PER_USER,
        "style": UNIDIRECTIONAL,
    }
    await registration.register(TYPE, **plan)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(AlreadyRegistered):
            await registration.register(TYPE, **plan)
    await registration.unregister()
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(AlreadyUnregistered):
            await registration.fetch(0)
        assert (await registration.unregister()).succeeded


# Refusals that Redis decides --------------------------------------------------------------------


@pytest.mark.parametrize("name", [PRINTER, SERVER])
@pytest.mark.parametrize("does", ["open_channel", "register"])
@pytest.mark.parametrize("style", Style)
async def test_all_users_is_for_administrators_of_that_name(
    farm: Farm, name: str, does: str, style: Style
) -> None:
    broker = await quiet(farm, "mallory")
    await broker.grant(OTHER_PRINTER, "mallory", "administer")
    await broker.grant(PRINTER, "mallory", "use")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(AccessDenied) as refused:
            await getattr(broker, does)(name, TYPE, user_filter=ALL_USERS, style=style)
    said = str(refused.value)
    assert "mallory" in said
    assert name in said
    assert f"tympan grant '{name}' mallory administer" in said, "the message says what to do"
    assert refused.value.result.hresult == 0x80070005


@pytest.mark.parametrize("size", [3, 30_000], ids=["inline", "by reference"])
async def test_an_answer_that_lost_its_race_leaves_nothing(farm: Farm, size: int) -> None:
    source = await quiet(farm)
    winner, loser = await quiet(farm, "bob"), await quiet(farm, "carol")
    channel = await farm.question(source)
    offers = [
        await farm.offered(await each.register(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL))
        for each in (winner, loser)
    ]
    await offers[0].respond(b"first")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(ChannelAcquired, match="answered first") as lost:
            await offers[1].respond(b"x" * size)
    assert lost.value.by == "alice"
    assert lost.value.channel == channel.id
    assert (await channel.response(PATIENCE)).data == b"first"
    with pytest.raises(ResponseTimeout):
        await channel.response(0)


@pytest.mark.parametrize("refused_send", ["waiting", "in progress", "closed"])
async def test_a_refused_body_by_reference_is_not_kept(farm: Farm, refused_send: str) -> None:
    """A caller who asks again and again must not fill Redis with what nobody will read."""
    source, listener = await quiet(farm), await quiet(farm)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    if refused_send == "in progress":
        await offer.respond(b"yes")
    if refused_send == "closed":
        await channel.close()
    send = channel.send if refused_send == "waiting" else offer.respond
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(TympanError) as refused:
            await send(b"x" * 30_000)
    assert isinstance(refused.value, WaitingForResponse | CallInProgress | ChannelAlreadyClosed)


async def test_a_channel_that_nobody_knows_is_not_shown(farm: Farm) -> None:
    broker = await farm.broker()
    await broker.open_channel(PRINTER, TYPE)
    assert await broker.show(uuid4().hex) is None


async def test_a_payload_that_its_schema_refuses_costs_no_channel(farm: Farm) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, OutOfPaper, style=BIDIRECTIONAL)
    channel = await farm.question(source, b'{"tray": "none"}')
    offer = await farm.offered(registration)
    with pytest.raises(PayloadInvalid, match="tray") as refused:
        _ = offer.payload
    assert refused.value.data == b'{"tray": "none"}'
    await offer.respond(b"what?")
    assert (await channel.response(PATIENCE)).data == b"what?"
