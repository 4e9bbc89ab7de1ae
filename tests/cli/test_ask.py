"""``tympan listen --ask``: a person answers, and no answer ever goes to another question."""

from __future__ import annotations

import asyncio

from broker import BIDIRECTIONAL, Offer, Payload, Registration
from tests.cli.commands import PATIENCE, TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.cli.terminal import Terminal
from tests.cli.test_listen import ask


async def answer(registration: Registration[Payload], text: str) -> None:
    """Another listener answers its next question."""
    offer = await registration.fetch(PATIENCE)
    assert isinstance(offer, Offer)
    await offer.respond(text)


async def test_line_is_the_answer_and_an_empty_one_declines(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--ask", "--count", "2")
    )
    source = await broker("source")
    first = await ask(source, place.printer, "A4?")
    await listener.event("notification")
    listener.type("yes, \N{SNOWMAN}")
    assert (await first.response(PATIENCE)).text == "yes, \N{SNOWMAN}"
    await first.send("Duplex?")
    await listener.event("notification", 2)
    listener.type("no")
    assert (await first.response(PATIENCE)).text == "no", "the dialog goes on"
    await first.close()

    second = await ask(source, place.printer, "A5?")
    await listener.event("notification", 3)
    listener.feed(b"\n")
    assert await listener.ended() == 0
    assert second.is_open, "a declined question stays open for others"
    told = ["notification", "responded"]
    assert listener.kinds == ["registered", *told, *told, "closed", "notification", "declined"]
    assert "answer as alice" in listener.notes, "the prompt is on standard error"


async def test_empty_line_in_an_own_dialog_closes_it(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--ask", "--count", "1")
    )
    channel = await ask(await broker("source"), place.printer, "A4?")
    listener.feed(b"\xff yes\r\n")
    assert (await channel.response(PATIENCE)).data == b"\xff yes", "the line travels as it is"
    await channel.send("Duplex?")
    await listener.event("notification", 2)
    listener.type("")
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.by == "alice"
    assert await listener.ended() == 0
    closed = listener.events[-1]
    assert (closed["event"], closed["by"], closed["reason"]) == ("closed", "alice", None)


async def test_questions_are_only_shown_after_the_end_of_input(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", TYPE, "--as", "alice", "--ask", "--count", "1"),
        stdin=asyncio.subprocess.DEVNULL,
    )
    channel = await ask(await broker("source"), place.printer, "A4?")
    await listener.note("standard input has ended")
    assert channel.is_open, "the end of input is no decline"
    await channel.close()
    assert await listener.ended() == 0
    assert listener.kinds == ["registered", "notification", "closed"]


async def test_terminal_asks_by_default_and_says_at_once_when_another_was_first(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    other = await (await broker("bob")).register(place.printer, TYPE, style=BIDIRECTIONAL)
    admin = await broker("admin")
    await admin.grant(place.printer, "admin", "administer")
    listen = ("listen", place.printer, "--type", TYPE, "--as", "alice", "--style", "bi")
    async with Terminal(*listen, "--count", "2", url=tympan.url) as terminal:
        await terminal.shows("alice listens")
        first = await ask(admin, place.printer, "Load A4 into tray 2?", None)
        await terminal.shows("Load A4 into tray 2?", "answer as alice")
        terminal.type("half an ans")
        await terminal.shows("half an ans")
        await answer(other, "bob was quicker")
        await terminal.shows("bob answered first")
        assert (await first.response(PATIENCE)).by == "bob"

        second = await ask(admin, place.printer, "Duplex?", None)
        await terminal.shows("Duplex?")
        await terminal.prompts(2)
        terminal.type("both sides\n")
        response = await second.response(PATIENCE)
        assert response.text == "both sides", "what was typed for the first question is dropped"
        await second.close()
        assert await terminal.ended() == 0


async def test_open_questions_are_asked_one_at_a_time(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listen = ("listen", place.printer, "--type", TYPE, "--as", "alice", "--ask")
    source = await broker("source")
    async with Terminal(*listen, "--count", "2", url=tympan.url) as terminal:
        await terminal.shows("alice listens")
        first = await ask(source, place.printer, "First?")
        await terminal.shows("First?", "answer as alice")
        second = await ask(source, place.printer, "Second?")
        terminal.type("one\n")
        assert (await first.response(PATIENCE)).text == "one"
        await terminal.shows("Second?")
        assert terminal.shown.index("Second?") > terminal.shown.index("one"), "not both at once"
        await terminal.prompts(2)
        terminal.type("two\n")
        assert (await second.response(PATIENCE)).text == "two"
        await first.close()
        await second.close()
        assert await terminal.ended() == 0


async def test_interrupt_at_the_prompt_ends_politely(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listen = ("listen", place.printer, "--type", TYPE, "--as", "alice", "--ask")
    source = await broker("source")
    async with Terminal(*listen, url=tympan.url) as terminal:
        await terminal.shows("alice listens")
        channel = await ask(source, place.printer, "A4?")
        await terminal.shows("answer as alice")
        terminal.signal()
        assert await terminal.ended() == 0
        assert "Traceback" not in terminal.shown
    assert await source.registrations(place.printer) == []
    assert channel.is_open
