"""``tympan grant``, ``revoke`` and ``grants``: rights by name, and what a user has now."""

from __future__ import annotations

import asyncio

from tests.cli.commands import Place, Tympan
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
