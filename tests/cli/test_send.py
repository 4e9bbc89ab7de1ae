"""``tympan send``: a source tells what became of its notification, and leaves no channel open."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import signal
from pathlib import Path

import pytest

from broker import BIDIRECTIONAL, Name, Notification, Offer, Payload, Registration
from tests.cli.commands import PATIENCE, TYPE, Place, Process, Tympan
from tests.cli.conftest import Brokers
from workers.cli.send import _take_back


async def question(registration: Registration[Payload]) -> Offer[Payload]:
    offer = await registration.fetch(PATIENCE)
    assert isinstance(offer, Offer), "no question came"
    return offer


async def notification(registration: Registration[Payload]) -> Notification[Payload]:
    told = await registration.fetch(PATIENCE)
    assert isinstance(told, Notification), "no notification came"
    return told


async def test_nobody_listens(tympan: Tympan, place: Place) -> None:
    sent = await tympan.run("send", place.printer, "--type", TYPE, "--text", "hi", "--json")
    channel = sent.answer["channel"]
    assert sent.answer == {
        "result": "NO_LISTENERS",
        "hresult": "0x00040007",
        "channel": channel,
        "response": None,
    }, "a notification that nobody hears is a success"


async def test_people_read_what_happened(tympan: Tympan, place: Place) -> None:
    sent = await tympan.run("send", place.printer, "--type", "asyncui", "--text", "hi")
    (line,) = sent.lines
    assert line.startswith("NO_LISTENERS: nobody listens there")
    assert place.printer in line
    assert "asyncui" in line, "a known type is shown by its alias"


async def test_user_defaults_to_the_source_and_the_source_to_the_login_name(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    alice = await (await broker("alice")).register(place.printer, TYPE)
    mine = await (await broker(getpass.getuser())).register(place.printer, TYPE)
    send = ("send", place.printer, "--type", TYPE, "--json")
    await asyncio.gather(
        tympan.run(*send, "--text", "to the source", "--as", "alice"),
        tympan.run(*send, "--text", "to me"),
    )
    assert (await notification(alice)).text == "to the source"
    assert (await notification(mine)).text == "to me"
    assert (alice.unread, mine.unread) == (0, 0), "each got its own only"


async def test_lost_is_done_and_failure_is_failed(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    alice = await broker("alice")
    await alice.register(place.printer, TYPE, buffer=1)
    send = ("send", place.printer, "--type", TYPE, "--text", "hi", "--user", "alice", "--json")
    assert (await tympan.run(*send)).answer["result"] == "S_OK"

    failed = await tympan.run(*send, status=3)
    assert failed.answer["error"] == "ASYNC_NOTIFICATION_FAILURE"
    assert failed.answer["hresult"] == "0x80040006"
    assert "room" in failed.answer["message"]

    await alice.register(place.printer, TYPE)
    lost = await tympan.run(*send)
    assert lost.answer["result"] == "UNIRECTIONAL_NOTIFICATION_LOST"
    assert lost.answer["hresult"] == "0x00040005"


async def test_payload_from_file_and_standard_input_travels_unchanged(
    tympan: Tympan, place: Place, broker: Brokers, tmp_path: Path
) -> None:
    alice = await (await broker("alice")).register(place.printer, TYPE)
    data = bytes(range(256)) * 3
    file = tmp_path / "payload"
    file.write_bytes(data)
    send = ("send", place.printer, "--type", TYPE, "--as", "alice")
    await tympan.run(*send, "--file", str(file))
    assert (await notification(alice)).data == data

    from_stdin = await tympan.start(*send, "-")
    from_stdin.feed(b"line\n\xff", end=True)
    assert await from_stdin.ended() == 0
    assert (await notification(alice)).data == b"line\n\xff"


async def test_response_is_printed_and_the_channel_closed(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    bob = await broker("bob")
    listener = await bob.register(place.printer, TYPE, style=BIDIRECTIONAL)
    send = await tympan.start(
        *("send", place.printer, "--type", TYPE, "--style", "bi", "--user", "bob"),
        *("--wait", "20", "--text", "A4?", "--json"),
    )
    offer = await question(listener)
    assert offer.notification.text == "A4?"
    await offer.respond("yes, A4")
    assert await send.ended() == 0
    assert send.answer == {
        "result": "S_OK",
        "hresult": "0x00000000",
        "channel": offer.id,
        "response": {"by": "bob", "text": "yes, A4"},
    }
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None, "the answered channel is closed"
    assert closing.by == "source"


async def test_close_reason_counts_as_response(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await (await broker("bob")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    send = await tympan.start(
        *("send", place.printer, "--type", TYPE, "--user", "bob", "--wait", "20"),
        *("--text", "A4?", "--json"),
    )
    offer = await question(listener)
    await offer.close(b"\xff\x00")
    assert await send.ended() == 0
    assert send.answer["response"] == {"by": "bob", "base64": "/wA="}, (
        "--wait alone asks; bytes that are no text are base64"
    )


async def test_late_registrant_answers(tympan: Tympan, place: Place, broker: Brokers) -> None:
    send = await tympan.start(
        *("send", place.printer, "--type", TYPE, "--user", "bob", "--style", "bi"),
        *("--text", "A4?", "--json"),
    )
    await send.note("nobody listens yet")
    listener = await (await broker("bob")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    offer = await question(listener)
    assert f"asked {place.printer}, channel {offer.id}; nobody" in send.notes, "it can be looked at"
    await offer.respond("late")
    assert await send.ended() == 0
    assert send.answer["result"] == "NO_LISTENERS", "the result is that of the send"
    assert send.answer["response"] == {"by": "bob", "text": "late"}


async def test_no_response_in_time(tympan: Tympan, place: Place, broker: Brokers) -> None:
    bob = await broker("bob")
    listener = await bob.register(place.printer, TYPE, style=BIDIRECTIONAL)
    send = await tympan.start(
        *("send", place.printer, "--type", TYPE, "--user", "bob", "--wait", "0.3"),
        *("--text", "A4?", "--json"),
    )
    offer = await question(listener)
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None, "the question is taken back"
    assert closing.by == "source"
    assert await send.ended() == 4
    assert send.answer == {
        "result": "S_OK",
        "hresult": "0x00000000",
        "channel": offer.id,
        "response": None,
    }
    assert await bob.channels(place.server) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_interrupted_question_is_taken_back(
    tympan: Tympan, place: Place, broker: Brokers, number: signal.Signals
) -> None:
    listener = await (await broker("bob")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    send = await tympan.start(
        *("send", place.printer, "--type", TYPE, "--user", "bob", "--style", "bi"),
        *("--text", "A4?", "--json"),
    )
    offer = await question(listener)
    await send.note("waiting for a response")
    send.signal(number)
    assert await send.ended() == 4, "there was no response"
    assert send.answer["response"] is None
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None, "the listener is told"
    assert closing.by == "source", "it is told by the source, not by its death"
    assert "Traceback" not in send.notes


async def test_answer_that_was_accepted_before_the_question_is_taken_back(
    place: Place, broker: Brokers
) -> None:
    source, bob = await broker("source"), await broker("bob")
    listener = await bob.register(place.printer, TYPE, style=BIDIRECTIONAL)
    channel = await source.open_channel(place.printer, TYPE, user="bob", style=BIDIRECTIONAL)
    await channel.send("A4?")
    await (await question(listener)).respond("in the last moment")
    answer = await _take_back(source, channel)
    assert answer is not None, "bob was told S_OK, so his answer must not be lost"
    assert answer == ("bob", b"in the last moment")


async def test_all_users_needs_a_grant(tympan: Tympan, place: Place, broker: Brokers) -> None:
    send = ("send", place.printer, "--type", TYPE, "--all-users", "--as", "carol", "--text", "x")
    refused = await tympan.run(*send, "--json", status=3)
    assert refused.answer["error"] == "ACCESS_DENIED"
    assert refused.answer["hresult"] == "0x80070005"
    assert "tympan grant" in refused.answer["message"], "it says what to do"
    assert "ACCESS_DENIED" in refused.notes

    admin = await broker("admin")
    await admin.grant(place.printer, "carol", "administer")
    alice = await (await broker("alice")).register(place.printer, TYPE)
    assert (await tympan.run(*send, "--json")).answer["result"] == "S_OK"
    assert (await notification(alice)).user is None


async def test_too_large(tympan: Tympan, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(10_485_761)
    send = ("send", place.printer, "--type", TYPE, "--file", str(file), "--json")
    refused = await tympan.run(*send, status=3)
    assert refused.answer["error"] == "MAX_NOTIFICATION_SIZE_EXCEEDED"
    assert refused.answer["hresult"] == "0x80040012"


async def test_large_payload_arrives_whole(
    tympan: Tympan, place: Place, broker: Brokers, tmp_path: Path
) -> None:
    alice = await (await broker("alice")).register(place.printer, TYPE)
    data = hashlib.sha256(b"large").digest() * 100_000
    file = tmp_path / "large"
    file.write_bytes(data)
    await tympan.run("send", place.printer, "--type", TYPE, "--as", "alice", "--file", str(file))
    assert (await notification(alice)).data == data


async def test_nothing_stays_open(tympan: Tympan, place: Place, broker: Brokers) -> None:
    sends: list[Process] = list(
        await asyncio.gather(
            *(
                tympan.run("send", place.printer, "--type", TYPE, "--text", "hi", "--json")
                for _ in range(2)
            )
        )
    )
    looking = await broker("admin")
    assert await looking.channels(place.server) == []
    shown = await looking.show(sends[0].answer["channel"])
    assert shown is not None
    assert shown[0].state == "closed"
    assert shown[0].name == Name.parse(place.printer)
