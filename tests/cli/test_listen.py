"""``tympan listen``: what comes is told as it comes, and nothing is left registered."""

from __future__ import annotations

import asyncio
import signal

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Broker, Channel
from tests.cli.commands import PATIENCE, TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.servers import RedisServer


async def ask(source: Broker, name: str, text: str, user: str | None = "alice") -> Channel:
    """An open question; for all users where ``user`` is None."""
    channel = await source.open_channel(
        name,
        TYPE,
        user=user,
        user_filter=ALL_USERS if user is None else PER_USER,
        style=BIDIRECTIONAL,
    )
    await channel.send(text)
    return channel


async def tell(source: Broker, name: str, body: str | bytes, user: str = "alice") -> Channel:
    """A unidirectional notification."""
    channel = await source.open_channel(name, TYPE, user=user, style=UNIDIRECTIONAL)
    await channel.send(body)
    return channel


async def test_notifications(tympan: Tympan, place: Place, broker: Brokers) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "Alice", "--count", "2")
    )
    (registered,) = listener.events
    assert registered["registration"]
    assert {key: registered[key] for key in ("event", "name", "type", "style", "user")} == {
        "event": "registered",
        "name": place.printer,
        "type": TYPE,
        "style": "uni",
        "user": "alice",
    }
    source = await broker("source")
    first = await tell(source, place.printer, "paper\njam \N{PRINTER}")
    await tell(source, place.printer, b"\x00\x01")
    assert await listener.ended() == 0, "--count is reached"
    _, text, binary = listener.events
    assert text["event"] == "notification"
    assert text["channel"] == first.id
    assert text["name"] == place.printer
    assert text["user"] == "alice"
    assert text["text"] == "paper\njam \N{PRINTER}"
    assert binary["base64"] == "AAE="
    assert "text" not in binary


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_signal_ends_politely(
    tympan: Tympan, place: Place, broker: Brokers, number: signal.Signals
) -> None:
    uni, bi = await asyncio.gather(
        tympan.listening(place.printer, "--type", TYPE, "--as", "alice"),
        tympan.listening(place.printer, "--type", TYPE, "--as", "alice", "--style", "bi"),
    )
    looking = await broker("admin")
    assert len(await looking.registrations(place.printer)) == 2
    uni.signal(number)
    bi.signal(number)
    assert [await uni.ended(), await bi.ended()] == [0, 0]
    assert await looking.registrations(place.printer) == [], "the registrations are removed"
    assert uni.notes + bi.notes == "", "nothing needs to be said"


async def test_first_of_three_responders_wins(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    users = ("alice", "bob", "carol")
    await (await broker("admin")).grant(place.printer, "spooler", "administer")
    listeners = await asyncio.gather(
        *(
            tympan.listening(
                *(place.printer, "--type", TYPE, "--as", user),
                *("--respond", f"yes from {user}", "--count", "1"),
            )
            for user in users
        )
    )
    send = await tympan.run(
        *("send", place.printer, "--type", TYPE, "--as", "spooler", "--all-users", "--json"),
        *("--text", "A4?", "--wait", "20"),
    )
    winner = send.answer["response"]["by"]
    assert send.answer["response"]["text"] == f"yes from {winner}"
    for user, listener in zip(users, listeners, strict=True):
        assert await listener.ended() == 0, "whoever lost the race is done, too"
        assert listener.kinds == ["registered", "notification", "responded", "closed"]
        _, asked, responded, closed = listener.events
        assert asked["text"] == "A4?"
        won = user == winner
        assert responded["result"] == ("S_OK" if won else "CHANNEL_ACQUIRED")
        assert responded["hresult"] == ("0x00000000" if won else "0x80040010")
        assert closed["reason"] is None
        assert (closed["by"], closed["acquired"]) == (("source", False) if won else (winner, True))
        channels = {event["channel"] for event in listener.events[1:]}
        assert channels == {send.answer["channel"]}


async def test_frozen_listener_still_learns_of_the_question_that_it_lost(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--respond", "late", "--count", "1")
    )
    listener.signal(signal.SIGSTOP)
    quick = await (await broker("alice")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    channel = await ask(await broker("source"), place.printer, "A4?")
    (offer,) = await quick.fetch_offers(PATIENCE)
    await offer.respond("quick")
    assert (await channel.response(PATIENCE)).text == "quick"
    listener.signal(signal.SIGCONT)
    assert await listener.ended() == 0, "a lost race counts as a dialog that ended"
    assert listener.kinds == ["registered", "notification", "responded", "closed"]
    assert listener.events[2]["result"] == "CHANNEL_ACQUIRED"


async def test_shown_question_stays_open_until_closed_with_a_reason(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    shown = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--style", "bi", "--count", "2"),
        stdin=asyncio.subprocess.DEVNULL,
    )
    source = await broker("source")
    text, binary = (
        await ask(source, place.printer, "1?"),
        await ask(source, place.printer, "2?"),
    )
    await shown.event("notification", 2)
    (facts, _) = await source.channels(place.printer)
    assert facts.state == "offered", "showing a question does not answer it"
    await text.close("never mind")
    await binary.close(b"\xff")
    assert await shown.ended() == 0
    closed = {event["channel"]: event for event in shown.events if event["event"] == "closed"}
    assert closed[text.id] == {
        "event": "closed",
        "channel": text.id,
        "reason": "never mind",
        "by": "source",
        "acquired": False,
    }
    assert closed[binary.id]["base64"] == "/w==", "a reason that is no text is base64"
    assert "reason" not in closed[binary.id]


async def test_declined_question_is_left_to_others(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--decline", "--count", "1")
    )
    channel = await ask(await broker("source"), place.printer, "A4?")
    assert await listener.ended() == 0, "a declined question counts"
    assert listener.kinds == ["registered", "notification", "declined"]
    assert listener.events[2]["result"] == "S_OK"
    assert channel.is_open, "the source is not told"
    other = await (await broker("alice")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    (offer,) = await other.fetch_offers(PATIENCE)
    await offer.respond("yes")
    assert (await channel.response(PATIENCE)).text == "yes"


async def test_follow_ups_are_answered_until_the_dialog_is_closed(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--respond", "yes", "--count", "1")
    )
    channel = await ask(await broker("source"), place.printer, "A4?")
    assert (await channel.response(PATIENCE)).text == "yes"
    await channel.send("Duplex?")
    assert (await channel.response(PATIENCE)).text == "yes"
    await channel.close("thanks")
    assert await listener.ended() == 0
    told = ["notification", "responded"]
    assert listener.kinds == ["registered", *told, *told, "closed"]
    texts = [event["text"] for event in listener.events if event["event"] == "notification"]
    assert texts == ["A4?", "Duplex?"]
    assert listener.events[-1]["reason"] == "thanks"


async def test_printers_of_a_server(tympan: Tympan, place: Place, broker: Brokers) -> None:
    whole, server = await asyncio.gather(
        tympan.listening(
            *(place.server, "--type", TYPE, "--as", "alice", "--printers", "--count", "3")
        ),
        tympan.listening(place.server, "--type", TYPE, "--as", "alice", "--count", "1"),
    )
    source = await broker("source")
    for name in (place.printer, place.other, place.server):
        await tell(source, name, name)
    assert await whole.ended() == 0
    heard = [(event["name"], event["text"]) for event in whole.events[1:]]
    names = (place.printer, place.other, place.server)
    assert sorted(heard) == sorted((name, name) for name in names)
    assert await server.ended() == 0
    assert server.events[1]["name"] == place.server, "without --printers: the server itself only"


async def test_all_users_needs_a_grant(tympan: Tympan, place: Place, broker: Brokers) -> None:
    listen = (place.printer, "--type", TYPE, "--as", "carol", "--all-users", "--count", "1")
    refused = await tympan.run("listen", *listen, "--json", status=3)
    assert refused.answer["error"] == "ACCESS_DENIED"
    assert refused.answer["hresult"] == "0x80070005"
    assert "tympan grant" in refused.answer["message"]

    admin = await broker("admin")
    await admin.grant(place.printer, "carol", "administer")
    listener = await tympan.listening(*listen)
    await tell(admin, place.printer, "for alice")
    assert await listener.ended() == 0
    assert listener.events[1]["text"] == "for alice"
    assert listener.events[1]["user"] == "alice", "it says whom it was for"


async def test_revoked_right_ends_it(tympan: Tympan, place: Place, broker: Brokers) -> None:
    admin = await broker("admin")
    await admin.grant(place.printer, "carol", "administer")
    listener = await tympan.listening(place.printer, "--type", TYPE, "--as", "carol", "--all-users")
    await admin.revoke(place.printer, "carol", "administer")
    assert await listener.ended() == 3
    assert listener.events[-1]["error"] == "CALL_CANCELLED"
    assert "Traceback" not in listener.notes


async def test_time_is_over(tympan: Tympan, place: Place) -> None:
    listen = ("listen", place.printer, "--type", TYPE, "--as", "alice", "--timeout", "0.2")
    without, counted = await asyncio.gather(
        tympan.run(*listen, "--json"),
        tympan.run(*listen, "--json", "--count", "1", status=4),
    )
    assert without.kinds == counted.kinds == ["registered"]


async def test_people_read_one_line_a_notification(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.start("listen", place.printer, "--type", "asyncui", "--as", "alice")
    await listener.until(lambda: bool(listener.lines), "line")
    assert listener.lines[0] == (
        f"alice listens on {place.printer} to what is for alice: asyncui, uni (Ctrl-C ends)"
    )
    source = await broker("source")
    channel = await source.open_channel(place.printer, "asyncui", user="alice")
    await channel.send("paper \x1b[31mjam")
    await listener.until(lambda: len(listener.lines) > 1, "notification")
    line = listener.lines[1]
    assert place.printer in line
    assert "alice" in line
    assert line.endswith(r"paper \x1b[31mjam"), "what could steer a terminal is made visible"
    await channel.send("<a/>".encode("utf-16-le"))
    await listener.until(lambda: len(listener.lines) > 2, "notification")
    assert listener.lines[2].endswith("<a/>"), "the documented types are UTF-16"
    listener.signal()
    assert await listener.ended() == 0


async def test_survives_an_outage_of_redis(place: Place) -> None:
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        tympan = Tympan(server.url)
        try:
            listener = await tympan.listening(
                place.printer, "--type", TYPE, "--as", "alice", "--count", "1"
            )
            await asyncio.to_thread(server.restart)
            async with Broker.connect(server.url, user="source") as source:
                await tell(source, place.printer, "back again")
                assert await listener.ended() == 0
            assert listener.events[1]["text"] == "back again"
        finally:
            await tympan.clean_up()


async def test_own_dialogs_are_closed_at_the_end(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        place.printer, "--type", TYPE, "--as", "alice", "--respond", "yes"
    )
    channel = await ask(await broker("source"), place.printer, "A4?")
    await channel.response(PATIENCE)
    listener.signal()
    assert await listener.ended() == 0
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None, "the source is told that nobody is there any more"
    assert closing.by == "alice"


async def test_output_that_nobody_reads_ends_it(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(place.printer, "--type", TYPE, "--as", "alice")
    listener.stop_reading()
    source = await broker("source")
    await tell(source, place.printer, "anybody there?")
    assert await listener.ended() == 0
    assert await source.registrations(place.printer) == []
    assert "Traceback" not in listener.notes
