"""``tympan grant``, ``revoke`` and ``grants``: rights by name, and what a user has now."""

from __future__ import annotations

import asyncio

from broker import ALL_USERS, Subscription
from tests.cli.commands import TYPE, Place, Tympan
from tests.cli.conftest import Brokers


async def test_grant_and_revoke_tell_what_the_user_has_now(tympan: Tympan, place: Place) -> None:
    first = await tympan.run("grant", place.printer, "Carol", "administer", "--json")
    assert first.answer == {
        "result": "S_OK",
        "hresult": "0x00000000",
        "name": place.printer,
        "user": "carol",
        "rights": ["PRINTER_ACCESS_ADMINISTER"],
        "mask": "0x00000004",
    }
    more = await tympan.run("grant", place.printer, "carol", "use", "--json")
    assert more.answer["rights"] == ["PRINTER_ACCESS_ADMINISTER", "PRINTER_ACCESS_USE"]
    left = await tympan.run("revoke", place.printer, "carol", "administer", "--json")
    assert left.answer["rights"] == ["PRINTER_ACCESS_USE"]
    none = await tympan.run("revoke", place.printer, "carol", "PRINTER_ACCESS_USE")
    assert none.lines == [rf"carol now has on {place.printer}: no right"]


async def test_revoke_names_the_pools_that_end_with_the_right(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    admin = await broker("admin")
    await admin.grant(place.printer, "carol", "all")
    everybodys = Subscription(place.printer, TYPE, "carol", ALL_USERS)
    await admin.pools.create("desk", everybodys)
    await admin.pools.create("own", Subscription(place.printer, TYPE, "carol"))
    async with await admin.open_channel(place.printer, TYPE, user="alice") as channel:
        for _ in range(3):
            await channel.send(b"page")
        kept = await tympan.run("revoke", place.printer, "carol", "use", "--json")
        assert kept.answer["pools_ended"] == []
        revoked = await tympan.run("revoke", place.printer, "carol", "administer", "--json")
    (ended,) = revoked.answer["pools_ended"]
    assert (ended["pool"], ended["name"]) == ("desk", place.printer)
    assert (ended["waiting"], ended["in_hand"]) == (3, 0)
    await admin.grant(place.printer, "carol", "administer")
    await admin.pools.create("desk", everybodys)
    shown = await tympan.run("revoke", place.printer, "carol", "administer")
    assert shown.lines[1].startswith(f"pool desk listens on {place.printer} no more (")
    assert shown.lines[1].endswith("0 waiting and 0 in hand before it ended")
    assert [facts.pool for facts in await admin.pools.on_server(place.printer)] == ["own"]
    await admin.pools.delete("own", place.printer)


async def test_grants(tympan: Tympan, place: Place, broker: Brokers) -> None:
    admin = await broker("admin")
    await admin.grant(place.printer, "carol", "all")
    await admin.grant(place.server, "dave", "administer")
    of_server, of_printer, for_people = await asyncio.gather(
        tympan.run("grants", place.server, "--json"),
        tympan.run("grants", place.printer, "--json"),
        tympan.run("grants", place.server),
    )
    assert of_printer.answer == {
        "name": place.printer,
        "user": "carol",
        "rights": ["PRINTER_ALL_ACCESS"],
        "mask": "0x000F000C",
    }
    assert [event["user"] for event in of_server.events] == ["dave", "carol"]
    assert for_people.lines[0].split() == ["NAME", "USER", "RIGHTS"]
    assert for_people.lines[1].split() == [place.server, "dave", "SERVER_ACCESS_ADMINISTER"]
