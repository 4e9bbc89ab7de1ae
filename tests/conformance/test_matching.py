"""Matching: a channel reaches who agrees with it in name, type, style and user, and nobody else."""

from __future__ import annotations

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Style,
    UserFilter,
)
from broker.errors import AccessDenied, InvalidArgument
from broker.results import NO_LISTENERS, S_OK
from tests.conformance.listening import both_styles, heard_before, notified
from tests.conformance.rules import rule
from tests.farm import (
    OTHER_PRINTER,
    OTHER_SERVER,
    OTHER_TYPE,
    PRINTER,
    PRINTER_OF_OTHER_SERVER,
    SERVER,
    TYPE,
    Farm,
)


async def channel_to(
    source: Broker, user: str | None, style: Style, name: str = PRINTER
) -> Channel:
    """A channel for that user, or for all."""
    user_filter = ALL_USERS if user is None else PER_USER
    return await source.open_channel(name, TYPE, user=user, user_filter=user_filter, style=style)


@rule(38)
@both_styles
@pytest.mark.parametrize("user", ["alice", None])
async def test_a_registration_for_one_printer_hears_nothing_of_another(
    farm: Farm, style: Style, user: str | None
) -> None:
    source = await farm.administrator("spooler", PRINTER, OTHER_PRINTER, PRINTER_OF_OTHER_SERVER)
    admin = await farm.administrator("admin")
    alices = await (await farm.broker("alice")).register(PRINTER, TYPE, style=style)
    everybodys = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, style=style)
    for elsewhere in (OTHER_PRINTER, PRINTER_OF_OTHER_SERVER):
        channel = await channel_to(source, user, style, elsewhere)
        assert await channel.send(b"elsewhere") == NO_LISTENERS
    assert await (await channel_to(source, user, style)).send(b"here") == S_OK
    assert await heard_before(alices, b"here") == []
    assert await heard_before(everybodys, b"here") == []


@rule(39)
@both_styles
@pytest.mark.parametrize("user", ["alice", "admin", None])
async def test_a_registration_for_one_type_hears_nothing_of_another_whoever_the_user_is(
    farm: Farm, style: Style, user: str | None
) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    alices = await (await farm.broker("alice")).register(PRINTER, TYPE, style=style)
    everybodys = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, style=style)
    user_filter = ALL_USERS if user is None else PER_USER
    other = await source.open_channel(
        PRINTER, OTHER_TYPE, user=user, user_filter=user_filter, style=style
    )
    assert await other.send(b"of another type") == NO_LISTENERS
    await (await channel_to(source, "alice", style)).send(b"of this type")
    assert await heard_before(alices, b"of this type") == []
    assert await heard_before(everybodys, b"of this type") == []


@rule(40)
@both_styles
@pytest.mark.parametrize("user", ["alice", None])
async def test_a_registration_hears_the_channels_of_its_own_style_only(
    farm: Farm, style: Style, user: str | None
) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    alices = await (await farm.broker("alice")).register(PRINTER, TYPE, style=style)
    everybodys = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, style=style)
    other_style = UNIDIRECTIONAL if style is BIDIRECTIONAL else BIDIRECTIONAL
    other = await channel_to(source, user, other_style)
    assert await other.send(b"of the other style") == NO_LISTENERS
    await (await channel_to(source, user, style)).send(b"of this style")
    assert await heard_before(alices, b"of this style") == []
    assert await heard_before(everybodys, b"of this style") == []


@rule(40)
async def test_a_unidirectional_registration_has_no_offers_to_fetch(farm: Farm) -> None:
    registration = await (await farm.broker("alice")).register(PRINTER, TYPE)
    with pytest.raises(InvalidArgument) as refused:
        await registration.fetch_offers(0)
    assert refused.value.result.hresult == 0x80070057


@rule(41, 47)
@both_styles
async def test_all_registrations_of_a_user_get_a_copy_each(farm: Farm, style: Style) -> None:
    source = await farm.broker("spooler")
    hosts = [await farm.broker("alice") for _ in range(2)]
    registrations = [
        await host.register(PRINTER, TYPE, style=style) for host in hosts for _session in range(2)
    ]
    channel = await channel_to(source, "alice", style)
    assert await channel.send(b"for alice") == S_OK
    for registration in registrations:
        assert (await notified(registration)).data == b"for alice"
    if style is UNIDIRECTIONAL:
        await channel.send(b"last")
    else:
        await (await channel_to(source, "alice", style)).send(b"last")
    for registration in registrations:
        assert await heard_before(registration, b"last") == [], "one copy, not two"


TRUTH_TABLE = [
    pytest.param("alice", "alice", PER_USER, False, True, marks=rule(41), id="own"),
    pytest.param("alice", "alice", PER_USER, True, True, marks=rule(41), id="own-as-admin"),
    pytest.param("alice", "bob", PER_USER, False, False, marks=rule(42), id="anothers"),
    pytest.param("alice", "bob", PER_USER, True, False, marks=rule(44), id="anothers-as-admin"),
    pytest.param("alice", "bob", ALL_USERS, True, True, marks=rule(43), id="admin-for-all"),
    pytest.param("alice", "alice", ALL_USERS, True, True, marks=rule(43), id="own-admin-for-all"),
    pytest.param(None, "alice", PER_USER, False, True, marks=rule(45), id="all-to-user"),
    pytest.param(None, "bob", PER_USER, False, True, marks=rule(45), id="all-to-another"),
    pytest.param(None, "bob", PER_USER, True, True, marks=rule(45), id="all-to-admin"),
    pytest.param(None, "bob", ALL_USERS, True, True, marks=rule(46), id="all-to-admin-for-all"),
]
"""The channel's user (None for all); the registration's, its filter and rights; is it reached?"""


@both_styles
@pytest.mark.parametrize("name", [PRINTER, SERVER])
@pytest.mark.parametrize(("target", "user", "user_filter", "is_admin", "is_reached"), TRUTH_TABLE)
async def test_who_is_reached(
    farm: Farm,
    name: str,
    style: Style,
    target: str | None,
    user: str,
    user_filter: UserFilter,
    is_admin: bool,
    is_reached: bool,
) -> None:
    source = await farm.administrator("spooler")
    listener = await (farm.administrator(user) if is_admin else farm.broker(user))
    registration = await listener.register(name, TYPE, user_filter=user_filter, style=style)
    channel = await channel_to(source, target, style, name)
    assert await channel.send(b"sent") == (S_OK if is_reached else NO_LISTENERS)
    await (await channel_to(source, user, style, name)).send(b"for the listener itself")
    heard = await heard_before(registration, b"for the listener itself")
    assert heard == ([b"sent"] if is_reached else [])


@rule(43, 46)
@both_styles
async def test_to_be_registered_for_all_users_takes_an_administrator_of_that_printer(
    farm: Farm, style: Style
) -> None:
    bob = await farm.administrator("bob", OTHER_PRINTER, SERVER)
    with pytest.raises(AccessDenied) as refused:
        await bob.register(PRINTER, TYPE, user_filter=ALL_USERS, style=style)
    assert refused.value.result.hresult == 0x80070005


@rule(48)
@both_styles
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"bob",
        b"=bob",
        b"*",
        b"+",
        PRINTER.encode(),
        OTHER_PRINTER.encode(),
        str(OTHER_TYPE).encode(),
        OTHER_TYPE.bytes,
        OTHER_TYPE.bytes_le,
        NOTIFICATION_RELEASE.bytes_le,
        str(NOTIFICATION_RELEASE).encode(),
        b'{"user": "bob", "event": "closed"}',
        b"4:user3:bob",
        b"\r\n$3\r\nbob\r\n",
        b"|".join([b"laser-4", str(OTHER_TYPE).encode(), b"uni", b"=bob"]),
        bytes(range(256)),
        b"bob\x00" * 2_000,
        b"bob\x00" * 10_000,
    ],
    ids=lambda body: f"{body[:12]!r}-{len(body)}",
)
async def test_payloads_are_not_looked_into(farm: Farm, style: Style, body: bytes) -> None:
    source = await farm.broker("spooler")
    listener, other = await farm.broker("alice"), await farm.broker("bob")
    alices = await listener.register(PRINTER, TYPE, style=style)
    strangers = [
        await other.register(PRINTER, TYPE, style=style),
        await other.register(OTHER_PRINTER, TYPE, style=style),
        await other.register(PRINTER, OTHER_TYPE, style=style),
    ]
    assert await (await channel_to(source, "alice", style)).send(body) == S_OK
    got = await notified(alices)
    assert (got.data, got.type) == (body, TYPE)
    for stranger, (name, type_) in zip(
        strangers, [(PRINTER, TYPE), (OTHER_PRINTER, TYPE), (PRINTER, OTHER_TYPE)], strict=True
    ):
        theirs = await source.open_channel(name, type_, user="bob", style=style)
        await theirs.send(b"for bob")
        assert await heard_before(stranger, b"for bob") == []
    await (await channel_to(source, "alice", style)).send(b"last for alice")
    assert await heard_before(alices, b"last for alice") == []


@rule(49)
@both_styles
@pytest.mark.parametrize("user", ["alice", None])
async def test_server_and_printer_do_not_match_by_themselves(
    farm: Farm, style: Style, user: str | None
) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    listener = await farm.broker("alice")
    registrations = {
        name: [
            await listener.register(name, TYPE, style=style),
            await admin.register(name, TYPE, user_filter=ALL_USERS, style=style),
        ]
        for name in (PRINTER, SERVER)
    }
    for name in (PRINTER, SERVER):
        await (await channel_to(source, user, style, name)).send(b"on " + name.encode())
    for name in (PRINTER, SERVER):
        await (await channel_to(source, user, style, name)).send(b"last")
    for name in (PRINTER, SERVER):
        for registration in registrations[name]:
            assert await heard_before(registration, b"last") == [b"on " + name.encode()]


@rule(49)
@both_styles
@pytest.mark.parametrize("user_filter", list(UserFilter), ids=lambda each: each.name)
@pytest.mark.parametrize("user", ["alice", None])
async def test_a_registration_for_a_server_and_its_printers_hears_both(
    farm: Farm, style: Style, user_filter: UserFilter, user: str | None
) -> None:
    names = (PRINTER, OTHER_PRINTER, SERVER, PRINTER_OF_OTHER_SERVER, OTHER_SERVER)
    source = await farm.administrator("spooler", *names)
    alice = await farm.administrator("alice")
    registration = await alice.register(
        SERVER, TYPE, user_filter=user_filter, style=style, printers=True
    )
    for name in names:
        result = await (await channel_to(source, user, style, name)).send(name.encode())
        assert result == (S_OK if name.startswith(SERVER) else NO_LISTENERS)
    heard = [(await notified(registration)).data for _ in range(3)]
    assert sorted(map(str, heard)) == sorted(
        str(name.encode()) for name in (PRINTER, OTHER_PRINTER, SERVER)
    )
    await (await channel_to(source, "alice", style, SERVER)).send(b"last")
    assert await heard_before(registration, b"last") == [], "each of them came once"


@rule(49)
async def test_only_a_servers_registration_can_ask_for_its_printers(farm: Farm) -> None:
    listener = await farm.broker("alice")
    with pytest.raises(InvalidArgument) as refused:
        await listener.register(PRINTER, TYPE, printers=True)
    assert refused.value.result.hresult == 0x80070057
    assert await listener.registrations() == []
