"""``tympan printer delete``: everybody is told, and a program is told how many they were."""

from __future__ import annotations

import asyncio

import pytest

from broker import ALL_USERS, BIDIRECTIONAL
from tests.cli.commands import PATIENCE, TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.cli.test_listen import ask, tell


async def test_delete_tells_whoever_listens(tympan: Tympan, place: Place, broker: Brokers) -> None:
    admin = await broker("carol")
    await admin.grant(place.printer, "carol", "administer")
    alice, carol = await asyncio.gather(
        tympan.listening(place.printer, "--type", TYPE, "--as", "alice"),
        tympan.listening(place.printer, "--type", TYPE, "--as", "carol", "--all-users"),
    )
    channel = await tell(admin, place.printer, "out of paper")
    question = await ask(admin, place.printer, "A4?")
    deleted = await tympan.run("printer", "delete", place.printer, "--json")
    assert deleted.answer == {
        "result": "S_OK",
        "hresult": "0x00000000",
        "name": place.printer,
        "channels": 2,
        "told": 2,
        "ended": 1,
        "grants": 1,
    }
    assert (await alice.event("notification"))["text"] == "out of paper"
    assert (await alice.event("deleted"))["name"] == place.printer
    assert await carol.ended() == 3
    *heard, last = carol.events
    assert [each["event"] for each in heard] == ["registered", "notification", "deleted"]
    assert heard[-1]["name"] == place.printer
    assert "printer deleted" in last["message"]
    for end in (channel, question):
        closing = await end.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.is_release
    shown = await tympan.run("show", question.id)
    assert "closed by the server: its printer was deleted" in "\n".join(shown.lines)

    again = await tell(admin, place.printer, "I am back")
    assert (await alice.event("notification", 2))["channel"] == again.id


async def test_delete_says_what_it_ended(tympan: Tympan, place: Place, broker: Brokers) -> None:
    admin = await broker("carol")
    await admin.grant(place.printer, "carol", "administer")
    await admin.register(place.printer, TYPE, user_filter=ALL_USERS)
    await ask(admin, place.printer, "A4?")
    first = await tympan.run("printer", "delete", place.printer)
    ended = "1 channel closed, 1 listener told, 1 registration ended, 1 grant removed"
    assert first.lines == [f"{place.printer} is deleted: {ended}"]
    again = await tympan.run("printer", "delete", place.printer)
    assert again.lines == [f"{place.printer} is deleted: nothing was open on it"]


async def test_a_listener_says_that_its_printer_is_gone(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.start("listen", place.printer, "--type", TYPE, "--as", "alice")
    await listener.until(lambda: bool(listener.lines), "its registration")
    admin = await broker("carol")
    await admin.delete_printer(place.printer)
    await listener.until(lambda: len(listener.lines) == 2, "the deletion")
    assert f"{place.printer}: the printer was deleted" in listener.lines[1]


@pytest.mark.parametrize("words", [("delete", r"\\print01"), ("delete",), ("remove", "x")])
async def test_what_cannot_be_deleted_is_wrong_usage(
    tympan: Tympan, words: tuple[str, ...]
) -> None:
    refused = await tympan.run("printer", *words, status=2)
    assert "tympan" in refused.notes


async def test_what_registrations_stand_on_is_listed(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    admin = await broker("carol")
    await admin.grant(place.printer, "carol", "administer")
    everyones = await admin.register(place.printer, TYPE, user_filter=ALL_USERS)
    own = await admin.register(place.printer, TYPE, style=BIDIRECTIONAL)
    for_programs, for_people = await asyncio.gather(
        tympan.run("registrations", place.server, "--json"),
        tympan.run("registrations", place.server),
    )
    rights = {
        event["registration"]: (event["right"], event["rights_source"])
        for event in for_programs.events
    }
    assert rights == {everyones.id: ("administer", None), own.id: (None, None)}
    shown = {line.split()[0]: "administer (granted)" in line for line in for_people.lines[1:]}
    assert shown == {everyones.id: True, own.id: False}
