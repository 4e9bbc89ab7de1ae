"""Rights decide who may listen and speak for whom, and revoking one ends what stood on it (D4)."""

from __future__ import annotations

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Right
from broker.errors import AccessDenied, InvalidArgument, RegistrationEnded
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm


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
