"""Rights decide who may listen and speak for whom, and revoking one ends what stood on it (D4)."""

from __future__ import annotations

import asyncio

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Right
from broker.errors import AccessDenied, InvalidArgument, RegistrationEnded
from broker.results import NO_LISTENERS, S_OK
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.redis.scenes import heard


async def test_strict_rights_ask_for_the_whole_mask(farm: Farm) -> None:
    admin = await farm.administrator("carol", PRINTER, strict_rights=True)
    with pytest.raises(AccessDenied):
        await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
    assert await admin.grant(PRINTER, "carol", "all") == Right.PRINTER_ALL_ACCESS
    await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)


@pytest.mark.parametrize(("name", "right"), [(PRINTER, "use"), (SERVER, "enumerate")])
async def test_require_use_asks_it_of_those_who_listen_for_themselves(
    farm: Farm, name: str, right: str
) -> None:
    alice = await farm.broker("alice", require_use=True)
    with pytest.raises(AccessDenied):
        await alice.register(name, TYPE)
    await alice.grant(name, "alice", right)
    registration = await alice.register(name, TYPE)
    await alice.revoke(name, "alice", right)
    with pytest.raises(RegistrationEnded):
        await registration.fetch(PATIENCE)


async def test_revoking_ends_what_stood_on_the_right_and_nothing_else(farm: Farm) -> None:
    admin = await farm.administrator("carol", PRINTER, OTHER_PRINTER)
    everyone = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL)
    elsewhere = await admin.register(OTHER_PRINTER, TYPE, user_filter=ALL_USERS)
    own = await admin.register(PRINTER, TYPE)
    assert await admin.revoke(PRINTER, "carol", "administer") == Right(0)
    with pytest.raises(RegistrationEnded):
        await everyone.fetch(PATIENCE)
    assert {facts.id for facts in await admin.registrations()} == {elsewhere.id, own.id}


async def test_any_bit_of_a_strict_right_that_is_taken_away_ends_what_stood_on_it(
    farm: Farm,
) -> None:
    admin = await farm.broker("carol", strict_rights=True)
    lenient = await farm.broker("carol")
    for right in (Right.PRINTER_ACCESS_USE, Right.READ_CONTROL, "administer", "all"):
        await admin.grant(PRINTER, "carol", "all")
        strict = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)
        other = await lenient.register(PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL)
        await admin.revoke(PRINTER, "carol", right)
        with pytest.raises(RegistrationEnded, match="right revoked"):
            await strict.fetch(PATIENCE)
        if right in ("administer", "all"):
            with pytest.raises(RegistrationEnded, match="right revoked"):
                await other.fetch(PATIENCE)
        else:
            assert other.is_registered, "it asked for the administer bit only"
            await other.unregister()
    assert await admin.registrations() == []


async def test_revoking_ends_the_registrations_of_that_user_in_all_processes(farm: Farm) -> None:
    admin = await farm.administrator("carol", PRINTER)
    await admin.grant(PRINTER, "dave", "administer")
    hosts = [await farm.broker("Carol") for _ in range(2)]
    everyones = [await host.register(PRINTER, TYPE, user_filter=ALL_USERS) for host in hosts]
    daves = await hosts[0].register(PRINTER, TYPE, user="dave", user_filter=ALL_USERS)
    await admin.revoke(PRINTER, "CAROL", "administer")
    for registration in everyones:
        with pytest.raises(RegistrationEnded):
            await registration.fetch(PATIENCE)
    assert daves.is_registered


async def test_revoking_leaves_channels_for_all_users_open(farm: Farm) -> None:
    """D4: their source was asked when it opened them; another one it opens no more."""
    admin = await farm.administrator("carol", PRINTER)
    listener = await (await farm.broker("alice")).register(PRINTER, TYPE)
    told = await admin.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    asked = await admin.open_channel(PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL)
    await admin.revoke(PRINTER, "carol", "administer")
    assert await told.send(b"page") == S_OK
    assert await heard(listener) == b"page"
    assert await asked.send(b"continue?") == NO_LISTENERS
    with pytest.raises(AccessDenied, match="carol lacks the right 'administer'"):
        await admin.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)


async def test_revoking_twice_ends_what_the_first_time_was_broken_off_before(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await farm.administrator("carol", PRINTER)
    everyones = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS)

    async def breaks_off(*_: object) -> int:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr("broker.broker.end_ungranted", breaks_off)
        with pytest.raises(asyncio.CancelledError):
            await admin.revoke(PRINTER, "carol", "administer")
    assert everyones.is_registered
    assert await admin.revoke(PRINTER, "carol", "administer") == Right(0)
    with pytest.raises(RegistrationEnded):
        await everyones.fetch(PATIENCE)


async def test_a_dialog_goes_on_whose_listener_lost_its_right(farm: Farm) -> None:
    admin, source = await farm.administrator("carol", PRINTER), await farm.broker("spooler")
    everyones = await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(everyones)
    await offer.respond(b"yes")
    await admin.revoke(PRINTER, "carol", "administer")
    with pytest.raises(RegistrationEnded):
        await everyones.fetch(PATIENCE)
    await channel.response(PATIENCE)
    await channel.send(b"sure?")
    assert (await offer.follow_up(PATIENCE)).data == b"sure?"
    await offer.close()


async def test_the_refusal_names_the_right_that_is_missing(farm: Farm) -> None:
    broker = await farm.broker("carol", require_use=True)
    with pytest.raises(AccessDenied, match=r"'use'.*tympan grant '\\\\print01.* carol use"):
        await broker.register(PRINTER, TYPE)
    with pytest.raises(AccessDenied, match="'enumerate'"):
        await broker.register(SERVER, TYPE)
    with pytest.raises(AccessDenied, match="'administer'"):
        await broker.register(SERVER, TYPE, user_filter=ALL_USERS)


async def test_a_right_of_the_wrong_kind_is_refused(farm: Farm) -> None:
    admin = await farm.broker("carol")
    for name, right in (
        (PRINTER, "enumerate"),
        (SERVER, "use"),
        (PRINTER, Right.SERVER_ACCESS_ADMINISTER),
        (PRINTER, "rule-the-world"),
        (PRINTER, Right(0)),
    ):
        with pytest.raises(InvalidArgument):
            await admin.grant(name, "carol", right)
    assert await admin.grants() == []
