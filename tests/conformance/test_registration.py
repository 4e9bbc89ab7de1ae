"""Registration: who may listen to what, how a registration stands, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import cast

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Callback,
    Name,
    Result,
    Role,
    Settings,
    Style,
)
from broker.errors import (
    AccessDenied,
    AlreadyRegistered,
    InvalidArgument,
    InvalidName,
    MaxRegistrationCountExceeded,
    NotRegistered,
    RegistrationEnded,
    RegistrationError,
)
from broker.results import ALREADY_UNREGISTERED, NO_LISTENERS, NOT_REGISTERED, S_OK
from tests.conformance.actors import Recorder, eventually
from tests.conformance.listening import both_styles, heard_before, notified, parked
from tests.conformance.rules import rule
from tests.farm import (
    OTHER_PRINTER,
    OTHER_SERVER,
    OTHER_TYPE,
    PATIENCE,
    PRINTER,
    SERVER,
    TYPE,
    Farm,
)

MALFORMED = (
    "",
    " ",
    "laser-3",
    r"print01\laser-3",
    r"\print01\laser-3",
    "//print01/laser-3",
    r"\\",
    "\\\\print01\\",
    r"\\\laser-3",
    r"\\print01\\laser-3",
    r"\\print01\floor-2\laser-3",
    "\\\\print01\\laser-3\\",
    r"\\print01\laser-3,laser-4",
    r"\\print01\,",
    r"\\print01,print02",
    r"\\print01,print02\laser-3",
    r"\\print 01\laser-3",
    "\\\\print01\\laser\x003",
)
WELL_FORMED = (
    r"\\PRINT01\Laser-3",
    r"\\print01.example.com\laser-3",
    r"\\192.0.2.7\laser-3",
    r"\\2001:db8::7\laser-3",
    r"\\print01\Laser 3 (A3; 2. Stock)",
    r"\\print01\größe|*?{}[]:/",
    r"\\print01",
    r"\\192.0.2.7",
)


async def channel_for(source: Broker, style: Style, body: bytes, user: str = "alice") -> Result:
    """Open a channel on the printer and send on it; what the send returned."""
    channel = await source.open_channel(PRINTER, TYPE, user=user, style=style)
    return await channel.send(body)


@rule(13)
@both_styles
async def test_a_listener_without_a_callback_is_rejected(farm: Farm, style: Style) -> None:
    listener = await farm.broker("alice")
    with pytest.raises(InvalidArgument) as refused:
        await listener.listen(PRINTER, TYPE, cast("Callback", None), style=style)
    assert refused.value.result.hresult == 0x80070057
    assert await listener.registrations() == []


@rule(14)
@both_styles
async def test_a_registration_keeps_its_user_when_the_client_becomes_another(
    farm: Farm, style: Style
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=style)
    listener.user = "bob"
    assert [facts.user for facts in await source.registrations()] == ["alice"]
    assert await channel_for(source, style, b"for bob", user="bob") == NO_LISTENERS
    await channel_for(source, style, b"for alice", user="alice")
    assert await heard_before(registration, b"for alice") == []

    bobs = await listener.register(PRINTER, TYPE, style=style)
    await channel_for(source, style, b"last", user="bob")
    assert (await notified(bobs)).user == "bob", "what is registered now is the other user's"


@rule(14)
async def test_rights_are_those_of_the_user_who_registered(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.administrator("admin")
    registration = await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)
    listener.user = "nobody"
    with pytest.raises(AccessDenied):
        await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)
    await channel_for(source, UNIDIRECTIONAL, b"for alice")
    assert (await notified(registration)).data == b"for alice"


@rule(15)
@both_styles
async def test_registering_needs_no_channel(farm: Farm, style: Style) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    assert await source.channels() == []
    before = await listener.register(PRINTER, TYPE, style=style)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=style)
    after = await listener.register(PRINTER, TYPE, style=style)
    await channel.send(b"hello")
    assert (await notified(before)).data == b"hello"
    assert (await notified(after)).data == b"hello"


@rule(16)
@both_styles
async def test_applications_and_components_that_open_channels_both_register(
    farm: Farm, style: Style
) -> None:
    component = await farm.broker("spooler", role=Role.BOTH)
    application = await farm.broker("spooler", role=Role.LISTENER)
    registrations = [
        await broker.register(PRINTER, TYPE, style=style) for broker in (component, application)
    ]
    await channel_for(component, style, b"of my own", user="spooler")
    for registration in registrations:
        assert (await notified(registration)).data == b"of my own"


async def assert_all_users_denied(farm: Farm, listener: Broker, name: str | None) -> None:
    """Registering for all users on that name is denied, and leaves nothing."""
    await listener.registration(SERVER)  # its session there stands already
    standing = await listener.registrations(SERVER)
    before = await farm.keys()
    for style in Style:
        with pytest.raises(AccessDenied) as refused:
            await listener.register(name, TYPE, user_filter=ALL_USERS, style=style)
        assert refused.value.result.hresult == 0x80070005
    assert await listener.registrations(SERVER) == standing
    assert await farm.keys() == before


@rule(17)
async def test_all_users_on_a_printer_needs_administer_rights_on_that_printer(farm: Farm) -> None:
    listener = await farm.broker("alice")
    await assert_all_users_denied(farm, listener, PRINTER)
    await listener.grant(PRINTER, "alice", "use")
    await listener.grant(PRINTER, "bob", "all")
    await listener.grant(SERVER, "alice", "all")
    await assert_all_users_denied(farm, listener, PRINTER)
    await listener.grant(PRINTER, "alice", "administer")
    await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)


@rule(17)
async def test_strict_rights_ask_for_the_whole_mask(farm: Farm) -> None:
    listener = await farm.broker("alice", strict_rights=True)
    for name in (PRINTER, SERVER):
        await listener.grant(name, "alice", "administer")
        await assert_all_users_denied(farm, listener, name)
        await listener.grant(name, "alice", "all")
        await listener.register(name, TYPE, user_filter=ALL_USERS)


@rule(17)
@both_styles
async def test_revoking_the_right_ends_the_registrations_that_stood_on_it(
    farm: Farm, style: Style
) -> None:
    source, listener = await farm.broker("spooler"), await farm.administrator("admin")
    everybodys = await listener.register(PRINTER, TYPE, user_filter=ALL_USERS, style=style)
    elsewhere = await listener.register(SERVER, TYPE, user_filter=ALL_USERS, style=style)
    own = await listener.register(PRINTER, TYPE, style=style)
    fetch = await parked(everybodys.fetch())
    await source.revoke(PRINTER, "admin", "administer")
    with pytest.raises(RegistrationEnded) as ended:
        await asyncio.wait_for(fetch, PATIENCE)
    assert ended.value.result.hresult == 0x8007071A
    left = {facts.id for facts in await source.registrations()}
    assert left == {elsewhere.id, own.id}, "nothing else ends"
    assert await channel_for(source, style, b"for alice") == NO_LISTENERS


@rule(18)
async def test_all_users_without_a_name_needs_administer_rights_on_the_server(farm: Farm) -> None:
    listener = await farm.broker("alice", server="print01")
    await assert_all_users_denied(farm, listener, None)
    await listener.grant(PRINTER, "alice", "all")
    await listener.grant(OTHER_SERVER, "alice", "all")
    await listener.grant(SERVER, "alice", "enumerate")
    await assert_all_users_denied(farm, listener, None)
    await assert_all_users_denied(farm, listener, SERVER)
    await listener.grant(SERVER, "alice", "administer")
    await listener.register(None, TYPE, user_filter=ALL_USERS)


@rule(19)
async def test_an_administrator_of_one_printer_is_none_of_another(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.administrator("alice", PRINTER)
    registration = await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)
    await assert_all_users_denied(farm, listener, OTHER_PRINTER)
    await channel_for(source, UNIDIRECTIONAL, b"for bob", user="bob")
    assert (await notified(registration)).data == b"for bob"


@rule(20)
@pytest.mark.parametrize("name", MALFORMED, ids=repr)
async def test_a_malformed_name_fails(farm: Farm, name: str) -> None:
    client = await farm.broker("alice", server="print01")
    recorder = Recorder()
    for attempt in (
        lambda: client.register(name, TYPE),
        lambda: client.listen(name, TYPE, recorder),
        lambda: client.registration(name),
        lambda: client.open_channel(name, TYPE),
    ):
        with pytest.raises(InvalidName) as refused:
            await attempt()
        assert refused.value.result.hresult == 0x8007007B
    assert await client.registrations() == []
    assert await client.channels() == []


@rule(20)
@pytest.mark.parametrize("name", WELL_FORMED)
async def test_a_well_formed_name_is_accepted(farm: Farm, name: str) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(name, TYPE)
    channel = await source.open_channel(name, TYPE, user="alice")
    await channel.send(b"here")
    assert (await notified(registration)).name == Name.parse(name)


@rule(21)
@both_styles
async def test_no_name_means_the_server_itself(farm: Farm, style: Style) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice", server="print01")
    registration = await listener.register(None, TYPE, style=style)
    assert [facts.name for facts in await source.registrations()] == [Name("print01")]
    assert await channel_for(source, style, b"on a printer") == NO_LISTENERS
    for name in (SERVER, None):
        opener = listener if name is None else source
        channel = await opener.open_channel(name, TYPE, user="alice", style=style)
        await channel.send(b"on the server")
        assert (await notified(registration)).channel == channel.id


@rule(21)
async def test_no_name_means_nothing_to_a_client_that_is_bound_to_no_server(farm: Farm) -> None:
    listener = await farm.broker("alice")
    with pytest.raises(InvalidName) as refused:
        await listener.register(None, TYPE)
    assert refused.value.result.hresult == 0x8007007B


@rule(22)
async def test_one_client_holds_several_registrations_at_once(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.administrator("admin")
    registrations = {
        (type_, filter_, style): await listener.register(
            PRINTER, type_, user_filter=filter_, style=style
        )
        for type_ in (TYPE, OTHER_TYPE)
        for filter_ in (PER_USER, ALL_USERS)
        for style in Style
    }
    assert len(await source.registrations()) == len(registrations) == 8
    for type_ in (TYPE, OTHER_TYPE):
        for style in Style:
            for user in ("alice", "admin"):
                channel = await source.open_channel(PRINTER, type_, user=user, style=style)
                await channel.send(f"{type_} {style} for {user}".encode())
    for (type_, filter_, style), registration in registrations.items():
        last = f"{type_} {style} for admin".encode()
        others = [f"{type_} {style} for alice".encode()] if filter_ is ALL_USERS else []
        assert await heard_before(registration, last) == others


@rule(23)
@both_styles
async def test_a_registration_object_that_stands_cannot_register_again(
    farm: Farm, style: Style
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=style)
    for type_ in (TYPE, OTHER_TYPE):
        with pytest.raises(AlreadyRegistered) as refused:
            await registration.register(type_, user="alice", user_filter=PER_USER, style=style)
        assert refused.value.result.hresult == 0x8004000F
    assert [facts.id for facts in await source.registrations()] == [registration.id]
    await channel_for(source, style, b"still here")
    assert (await notified(registration)).data == b"still here"


@rule(23)
async def test_two_objects_may_register_for_the_same(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    windows = [await listener.register(PRINTER, TYPE) for _ in range(2)]
    await channel_for(source, UNIDIRECTIONAL, b"hello")
    for window in windows:
        assert (await notified(window)).data == b"hello"


@rule(24)
async def test_the_registration_beyond_the_limit_of_its_name_and_type_fails(farm: Farm) -> None:
    one = await farm.broker("alice", max_registrations=2)
    other = await farm.broker("bob", max_registrations=2)
    first = await one.register(PRINTER, TYPE)
    await other.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    before = await farm.keys()
    refused = await other.registration(PRINTER)
    for _ in range(2):
        with pytest.raises(MaxRegistrationCountExceeded) as error:
            await refused.register(TYPE, user="bob", user_filter=PER_USER, style=UNIDIRECTIONAL)
        assert error.value.result.hresult == 0x80040015
    assert await farm.keys() == before, "a refused registration leaves no trace"
    assert len(await one.registrations()) == 2

    await other.register(PRINTER, OTHER_TYPE)
    await other.register(OTHER_PRINTER, TYPE)
    await other.register(SERVER, TYPE)

    await first.unregister()
    await refused.register(TYPE, user="bob", user_filter=PER_USER, style=UNIDIRECTIONAL)
    with pytest.raises(MaxRegistrationCountExceeded):
        await one.register(PRINTER, TYPE)


@rule(24)
def test_the_limit_of_registrations_is_ten_thousand_by_default() -> None:
    assert Settings().max_registrations == 10_000


@rule(25)
@both_styles
async def test_after_a_failed_registration_nothing_is_delivered(farm: Farm, style: Style) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.registration(PRINTER)
    recorder = Recorder()
    with pytest.raises(AccessDenied):
        await registration.register(TYPE, user="alice", user_filter=ALL_USERS, style=style)
    with pytest.raises(AccessDenied):
        await listener.listen(PRINTER, TYPE, recorder, user_filter=ALL_USERS, style=style)
    assert not registration.is_registered
    assert await channel_for(source, style, b"for alice") == NO_LISTENERS
    with pytest.raises(NotRegistered):
        await registration.fetch()

    control = await listener.register(PRINTER, TYPE, style=style)
    await channel_for(source, style, b"for alice again")
    heard = {(await notified(control)).data for _ in range(2 if style is BIDIRECTIONAL else 1)}
    assert b"for alice again" in heard
    assert (registration.unread, recorder.told) == (0, [])


@rule(25)
async def test_a_failed_registration_holds_no_reference_to_its_callback(farm: Farm) -> None:
    listener = await farm.broker("alice", max_registrations=0)
    recorder = Recorder()
    reference = weakref.ref(recorder)
    with pytest.raises(AccessDenied):
        await listener.listen(PRINTER, TYPE, recorder, user_filter=ALL_USERS)
    with pytest.raises(MaxRegistrationCountExceeded):
        await listener.listen(PRINTER, TYPE, recorder)
    with pytest.raises(InvalidName):
        await listener.listen("laser-3", TYPE, recorder)
    del recorder
    gc.collect()
    assert reference() is None, "something still refers to the callback"


@rule(26)
@both_styles
async def test_another_clients_handle_does_not_end_my_registration(
    farm: Farm, style: Style
) -> None:
    source = await farm.broker("spooler")
    mine = await (await farm.broker("alice")).register(PRINTER, TYPE, style=style)
    other = await farm.broker("alice")
    theirs = await other.register(PRINTER, TYPE, style=style)
    copied = await other.registration(PRINTER)
    copied.id = mine.id
    assert await copied.unregister() == NOT_REGISTERED, "to know the id is not to hold the handle"
    assert await theirs.unregister() == S_OK
    assert await theirs.unregister() == ALREADY_UNREGISTERED
    await other.close()
    assert [facts.id for facts in await source.registrations()] == [mine.id]
    await channel_for(source, style, b"still here")
    assert (await notified(mine)).data == b"still here"


@rule(27)
@both_styles
async def test_unregistering_succeeds_once_and_invalidates_the_handle(
    farm: Farm, style: Style
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=style)
    assert (await registration.unregister()).hresult == 0
    assert not registration.is_registered
    assert await source.registrations() == []
    with pytest.raises(RegistrationError) as refused:
        await registration.fetch()
    assert refused.value.result.hresult == 0x8004000E
    assert await channel_for(source, style, b"nobody there") == NO_LISTENERS


@rule(28)
@both_styles
async def test_unregistering_again_is_reported_and_changes_nothing(
    farm: Farm, style: Style
) -> None:
    listener = await farm.broker("alice", max_registrations=2)
    registration = await listener.register(PRINTER, TYPE, style=style)
    others = [await listener.register(PRINTER, TYPE, style=style)]
    await registration.unregister()
    others.append(await listener.register(PRINTER, TYPE, style=style))
    for _ in range(2):
        again = await registration.unregister()
        assert (again.hresult, again.succeeded) == (0x0004000E, True)
    assert {facts.id for facts in await listener.registrations()} == {o.id for o in others}
    with pytest.raises(MaxRegistrationCountExceeded):
        await listener.register(PRINTER, TYPE, style=style)


@rule(29)
async def test_unregistering_what_was_never_registered_is_reported(farm: Farm) -> None:
    listener = await farm.broker("alice")
    registration = await listener.registration(PRINTER)
    never = await registration.unregister()
    assert (never.hresult, never.succeeded) == (0x0004000D, True)
    with pytest.raises(AccessDenied):
        await registration.register(TYPE, user="alice", user_filter=ALL_USERS, style=UNIDIRECTIONAL)
    assert (await registration.unregister()).hresult == 0x0004000D, "nor was a refused one"


@rule(30, 31, 32)
@pytest.mark.parametrize(
    ("style", "call"),
    [(UNIDIRECTIONAL, "fetch"), (BIDIRECTIONAL, "fetch"), (BIDIRECTIONAL, "fetch_offers")],
)
async def test_unregister_ends_the_parked_fetch_and_all_later_ones(
    farm: Farm, style: Style, call: str
) -> None:
    listener = await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=style)
    fetch = await parked(getattr(registration, call)())
    async with asyncio.timeout(PATIENCE):
        assert await registration.unregister() == S_OK, "it does not wait for the fetch"
        with pytest.raises(RegistrationEnded) as ended:
            await fetch
    assert ended.value.result.hresult == 0x8007071A
    for _ in range(2):
        with pytest.raises(RegistrationError) as refused:
            await getattr(registration, call)()
        assert refused.value.result.hresult in (0x8004000E, 0x8007071A)


@rule(33)
async def test_unregistering_discards_what_a_unidirectional_listener_has_not_fetched(
    farm: Farm,
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    before = await farm.keys()
    registration = await listener.register(PRINTER, TYPE)
    for body in (b"fetched", b"small", b"large" * 20_000):
        assert await channel.send(body) == S_OK
    assert (await notified(registration)).data == b"fetched"
    await eventually(lambda: registration.unread == 2, "the two notifications")
    await registration.unregister()
    assert registration.unread == 0
    kept = [key for key in await farm.keys() if key not in before]
    assert not [key for key in kept if await farm.client.ttl(key) < 0], "nothing holds them"

    await registration.register(TYPE, user="alice", user_filter=PER_USER, style=UNIDIRECTIONAL)
    await channel.send(b"new")
    assert await heard_before(registration, b"new") == []


@rule(33)
async def test_nothing_waits_for_one_that_unregistered_beside_others(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    gone = await listener.register(PRINTER, TYPE)
    stays = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"not fetched")
    groups = {facts.id: facts.group for facts in await source.registrations()}
    await gone.unregister()
    standing = {
        group["name"].decode()
        for key in await farm.keys()
        if await farm.client.type(key) == b"stream"
        for group in await farm.client.xinfo_groups(key)
    }
    assert standing == {groups[stays.id]}
    assert (await notified(stays)).data == b"not fetched"


@rule(34)
async def test_a_dialog_goes_on_after_its_listener_unregistered(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    await registration.unregister()
    assert (await channel.response(PATIENCE)).data == b"yes"
    await channel.send(b"on A3?")
    assert (await offer.follow_up(PATIENCE)).data == b"on A3?"
    assert await offer.respond(b"on A3") == S_OK
    assert (await channel.response(PATIENCE)).data == b"on A3"
    await channel.close(b"done")
    told = await offer.wait_closed(PATIENCE)
    assert told is not None
    assert told.reason.data == b"done"


@rule(34)
@pytest.mark.parametrize("answer", ["respond", "close"])
async def test_an_offer_can_still_be_answered_after_its_listener_unregistered(
    farm: Farm, answer: str
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await registration.unregister()
    assert await getattr(offer, answer)(b"yes") == S_OK
    assert (await channel.response(PATIENCE)).data == b"yes"


@rule(34)
async def test_an_open_offer_hears_of_its_end_after_its_listener_unregistered(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await registration.unregister()
    await channel.close(b"too late")
    told = await offer.wait_closed(PATIENCE)
    assert told is not None, "its channel closed"
    assert told.reason.data == b"too late"


@rule(35)
async def test_a_channel_created_after_unregister_is_never_offered_to_that_listener(
    farm: Farm,
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    recorder, control = Recorder(), Recorder()
    gone = await listener.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)
    handed = await farm.question(source, b"before")
    await recorder.until(notified=1)
    await gone.unregister()
    assert await channel_for(source, BIDIRECTIONAL, b"after") == NO_LISTENERS
    async with await listener.listen(PRINTER, TYPE, control, style=BIDIRECTIONAL):
        await control.until(notified=2)
        assert control.bodies == [b"before", b"after"], "another listener is offered both"
    assert recorder.bodies == [b"before"]
    assert gone.unread == 0
    await handed.close()
    await recorder.until(closed=1)


@rule(36)
async def test_an_unregistered_object_registers_again_with_other_parameters(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.administrator("admin")
    registration = await listener.registration(PRINTER)
    await registration.register(TYPE, user="alice", user_filter=PER_USER, style=UNIDIRECTIONAL)
    notice = await source.open_channel(PRINTER, TYPE, user="alice")
    await notice.send(b"first")
    assert (await notified(registration)).data == b"first"
    first = registration.id
    fetch = await parked(registration.fetch())
    await registration.unregister()
    with pytest.raises(RegistrationEnded):
        await fetch

    await registration.register(
        OTHER_TYPE, user="admin", user_filter=ALL_USERS, style=BIDIRECTIONAL
    )
    assert registration.id != first
    (facts,) = await source.registrations()
    assert (facts.type, facts.user, facts.user_filter, facts.style) == (
        OTHER_TYPE, "admin", ALL_USERS, BIDIRECTIONAL,
    )  # fmt: skip
    assert await notice.send(b"second") == NO_LISTENERS, "the first parameters are forgotten"
    channel = await source.open_channel(PRINTER, OTHER_TYPE, user="bob", style=BIDIRECTIONAL)
    await channel.send(b"continue?")
    offer = await farm.offered(registration)
    assert offer.notification.data == b"continue?"
    assert await offer.respond(b"yes") == S_OK


@rule(37)
@pytest.mark.parametrize("call", ["fetch", "fetch_offers"])
async def test_a_fetch_on_an_object_that_was_never_registered_fails(farm: Farm, call: str) -> None:
    registration = await (await farm.broker("alice")).registration(PRINTER)
    for _ in range(2):
        with pytest.raises(NotRegistered) as refused:
            await getattr(registration, call)()
        assert refused.value.result.hresult == 0x8004000D


@rule(37)
@both_styles
async def test_a_fetch_after_unregister_fails(farm: Farm, style: Style) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, style=style)
    await channel_for(source, style, b"not fetched")
    await eventually(lambda: registration.unread == 1, "the notification")
    await registration.unregister()
    with pytest.raises(RegistrationError) as refused:
        await registration.fetch()
    assert refused.value.result.hresult in (0x8004000E, 0x8007071A)
