"""``tympan channels``, ``registrations`` and ``show``: what is open, for programs and people."""

from __future__ import annotations

import asyncio
import base64

from broker import BIDIRECTIONAL, Offer
from tests.cli.commands import PATIENCE, TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.cli.test_listen import ask, tell
from tests.servers import RedisServer


async def test_channels(tympan: Tympan, place: Place, broker: Brokers) -> None:
    source = await broker("source")
    question = await ask(source, place.printer, "A4?")
    uni = await tell(source, place.other, "hi")
    for_all, for_one, for_people = await asyncio.gather(
        tympan.run("channels", place.server, "--json"),
        tympan.run("channels", place.printer, "--json"),
        tympan.run("channels", place.server),
    )
    (shown,) = for_one.events
    assert shown.pop("opened_at") > 0
    assert shown == {
        "channel": question.id,
        "name": place.printer,
        "type": TYPE,
        "style": "bi",
        "user": "alice",
        "state": "offered",
        "opened_by": "source",
        "owner": None,
        "closer": None,
    }
    assert {event["channel"] for event in for_all.events} == {question.id, uni.id}
    table = "\n".join(for_people.lines)
    for text in (question.id, uni.id, place.other, "unanswered", "open, 1 sent", "by source"):
        assert text in table, "nothing is cut off on a pipe"
    assert " ago " in table or "just now" in table


async def test_registrations(tympan: Tympan, place: Place, broker: Brokers) -> None:
    alice = await broker("alice")
    registration = await alice.register(place.server, TYPE, style=BIDIRECTIONAL, printers=True)
    for_programs, for_people = await asyncio.gather(
        tympan.run("registrations", place.server, "--json"),
        tympan.run("registrations", place.server),
    )
    shown = for_programs.answer
    assert shown.pop("since") > 0
    assert shown.pop("session")
    assert shown == {
        "registration": registration.id,
        "name": place.server,
        "type": TYPE,
        "style": "bi",
        "user": "alice",
        "all_users": False,
        "printers": True,
        "everywhere": False,
        "right": None,
        "rights_source": None,
        "buffer": 100,
        "pool": None,
    }
    assert registration.id in for_people.lines[1]
    assert "all printers" in for_people.lines[1]


async def test_whole_farm(place: Place) -> None:
    other = Place()
    with RedisServer() as server:
        tympan = Tympan(server.url)
        try:
            await asyncio.gather(
                *(
                    tympan.listening(name, "--type", "asyncui", "--as", "alice")
                    for name in (place.printer, other.printer)
                )
            )
            shown = await tympan.run("registrations", "--json")
            assert {event["name"] for event in shown.events} == {place.printer, other.printer}
        finally:
            await tympan.clean_up()


async def test_conversation(tympan: Tympan, place: Place, broker: Brokers) -> None:
    listener = await (await broker("alice")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    channel = await ask(await broker("source"), place.printer, "A4?")
    offer = await listener.fetch(PATIENCE)
    assert isinstance(offer, Offer)
    await offer.respond(b"\xff")
    await channel.close("thanks")
    for_programs, for_people = await asyncio.gather(
        tympan.run("show", channel.id, "--json"), tympan.run("show", channel.id)
    )
    shown = for_programs.answer
    assert (shown["channel"], shown["state"], shown["owner"]) == (channel.id, "closed", "alice")
    assert shown["closer"] == "source"
    said = [
        {key: value for key, value in one.items() if key != "at"} for one in shown["conversation"]
    ]
    assert said == [
        {"event": "notification", "by": "source", "text": "A4?"},
        {"event": "response", "by": "alice", "base64": base64.b64encode(b"\xff").decode()},
        {"event": "closed", "by": "source", "text": "thanks"},
    ]
    text = "\n".join(for_people.lines)
    for part in (channel.id, "source asked", "alice answered", "closed by source", "thanks"):
        assert part in text


async def test_unknown_channel(tympan: Tympan) -> None:
    shown = await tympan.run("show", "0123456789abcdef", "--json", status=3)
    assert shown.answer["error"] == "INVALID_HANDLE"
    assert shown.answer["hresult"] == "0x80070006"
    assert "tympan channels" in shown.answer["message"]


async def test_looking_at_an_unknown_server_makes_no_server(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    commands = ("channels", "registrations", "grants")
    found = await asyncio.gather(*(tympan.run(command, place.server) for command in commands))
    for process in found:
        assert process.lines == [], "what programs read holds no prose"
        assert place.server in process.notes
    assert place.server.strip("\\") not in await (await broker("admin")).servers()
