"""``tympan desk``: on a terminal, where keys answer, and without one."""

from __future__ import annotations

import asyncio

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Channel, Offer, Payload
from broker.async_ui import CANCEL, OK, MessageBox, MessageBoxReply, Text
from tests.cli.commands import PATIENCE, TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.cli.terminal import Terminal
from tests.desk.asking import job_question
from tests.relay.alerts import status
from tests.servers import RedisServer
from workers.cups.types import JobAnswer, JobQuestion, PrinterChanged, PrinterStatus, QuestionOver

BEGIN = "tympan desk   "


class Host:
    """A print host: asks, and says how its printer is."""

    def __init__(self, source: Broker, place: Place) -> None:
        self.source = source
        self.place = place
        self._count = 0

    async def ask(self, question: Payload | str, user: str = "alice") -> Channel:
        kind = TYPE if isinstance(question, str) else type(question)
        channel = await self.source.open_channel(
            self.place.printer, kind, user=user, style=BIDIRECTIONAL
        )
        await channel.send(question)
        return channel

    async def says(self, *reasons: str, **fields: object) -> None:
        self._count += 1
        await self.source.grant(self.place.printer, self.source.user, "administer")
        async with await self.source.open_channel(
            self.place.printer, PrinterStatus, user_filter=ALL_USERS
        ) as channel:
            await channel.send(status(self._count, *reasons, **fields))


async def test_a_key_answers(redis_server: RedisServer, place: Place, broker: Brokers) -> None:
    host = Host(await broker("spooler"), place)
    words = ("desk", place.server, "--as", "alice")
    async with Terminal(*words, url=redis_server.url) as terminal:
        await terminal.shows(f"alice: own questions   on {place.server}")
        await host.says("media-empty-error")
        await host.says("media-empty-error", text="still")
        await terminal.draws(BEGIN, "ALERTS OF", "media empty", without="QUESTION ON")
        channel = await host.ask(job_question(7))
        await terminal.draws(BEGIN, ">1", "Job 7: continue?", "c continue", without="LATELY")
        terminal.type("nwait\n")
        await terminal.shows("n note: wait")
        terminal.type("c")
        response = await channel.response(PATIENCE)
        assert response.payload == JobAnswer(choice="continue", note="wait")
        await terminal.shows("you were first: continue")
        await channel.close(QuestionOver(why="answered", choice="continue", by="alice"))
        await host.says(cleared=["media-empty-error"])
        await terminal.draws(
            BEGIN, "0 open questions", "alice answered: continue", without="ALERTS OF"
        )
        terminal.type("q")
        assert await terminal.ended() == 0
        assert "Traceback" not in terminal.shown


async def test_who_is_late_is_told_so(
    redis_server: RedisServer, place: Place, broker: Brokers
) -> None:
    host = Host(await broker("spooler"), place)
    alice = await broker("alice")
    words = ("desk", place.server, "--as", "alice")
    async with Terminal(*words, url=redis_server.url) as terminal:
        await terminal.shows("own questions")
        listener = await alice.register(place.printer, JobQuestion, style=BIDIRECTIONAL)
        first = await host.ask(job_question(7))
        await terminal.shows(">1", "Job 7")
        second = await host.ask(job_question(8))
        await terminal.draws(BEGIN, "Job 7", "Job 8", without="LATELY")
        offer = await listener.fetch(PATIENCE)
        assert isinstance(offer, Offer)
        await offer.respond(JobAnswer(choice="hold", note="not now"))
        late = "alice was first: hold (not now)"
        await terminal.draws(BEGIN, late, "1 open question ", without="nothing")
        terminal.type("1c")
        await terminal.draws(BEGIN, late, "Enter shows all of it", without="c continue")
        assert (await first.response(PATIENCE)).payload.choice == "hold"
        terminal.type("2x")
        assert (await second.response(PATIENCE)).payload.choice == "cancel"
        terminal.type("q")
        assert await terminal.ended() == 0


async def test_arrows_and_other_types(
    redis_server: RedisServer, place: Place, broker: Brokers
) -> None:
    host = Host(await broker("spooler"), place)
    words = ("desk", place.server, "--as", "alice", "--type", "asyncui", "--type", TYPE)
    async with Terminal(*words, url=redis_server.url) as terminal:
        await terminal.shows("own questions")
        text = await host.ask("which tray?")
        await terminal.shows("which tray?")
        box = await host.ask(
            MessageBox(
                title=Text(text="Tray 2 is empty"), body=(Text(text="A3?"),), buttons=(OK, CANCEL)
            )
        )
        await terminal.shows("Tray 2 is empty", "a answers")
        terminal.type("atray 3\n")
        assert (await text.response(PATIENCE)).data == b"tray 3"
        terminal.type("\x1b[B\r")
        await terminal.shows("1 OK · 2 Cancel")
        terminal.type("2")
        assert (await box.response(PATIENCE)).payload == MessageBoxReply(button=2)
        await terminal.shows("you were first: Cancel")
        terminal.signal()
        assert await terminal.ended() == 0
        assert "Traceback" not in terminal.shown


async def test_everybodys_on_the_whole_farm(place: Place, broker: Brokers, tympan: Tympan) -> None:
    source = await broker("spooler")
    host = Host(source, place)
    await source.server(place.server)
    refused = await tympan.run(
        "desk", place.server, "--all-users", "--as", "helpdesk", "--json", status=3
    )
    assert refused.answer["error"] == "ACCESS_DENIED"
    await source.grant(place.server, "helpdesk", "administer")
    channel = await host.ask(job_question(7))
    desk = await tympan.start("desk", "--all-users", "--as", "helpdesk", "--json")
    registered = await desk.event("registered")
    assert place.server in registered["names"]
    asked = await desk.event("question")
    assert asked["channel"] == channel.id
    assert asked["choices"] == ["continue", "cancel", "hold"]
    assert (asked["owner"], asked["otherwise"]) == ("alice", "hold")
    await host.says("media-empty-error")
    alert = await desk.event("alert")
    assert (alert["name"], alert["headline"]) == (place.printer, "media empty")
    await host.says(cleared=["media-empty-error"])
    await desk.event("cleared")
    await host.says("door-open-error")
    await desk.event("alert", 2)
    async with await source.open_channel(
        place.printer, PrinterChanged, user_filter=ALL_USERS
    ) as channel_of_changes:
        gone = status(9).model_dump(include={"host", "event", "at", "printer"})
        await channel_of_changes.send(PrinterChanged(what="deleted", **gone))
    assert (await desk.event("forgotten"))["name"] == place.printer
    await channel.close(QuestionOver(why="timed-out", choice="hold"))
    over = await desk.event("over")
    assert over["words"] == "timed out: hold"
    desk.signal()
    assert await desk.ended() == 0


async def test_a_right_that_is_taken_away(
    redis_server: RedisServer, place: Place, broker: Brokers
) -> None:
    source = await broker("spooler")
    host = Host(source, place)
    await source.grant(place.server, "helpdesk", "administer")
    words = ("desk", place.server, "--all-users", "--as", "helpdesk")
    async with Terminal(*words, url=redis_server.url, columns=160) as terminal:
        await terminal.shows(f"everybody's questions   on {place.server}")
        await source.revoke(place.server, "helpdesk", "administer")
        gone = f"cups-question (bi) on {place.server} is not heard: "
        await terminal.draws(BEGIN, gone, "right revoked", without="QUESTION ON")
        await host.says("media-empty-error")
        await terminal.draws(BEGIN, gone, "media empty", without="QUESTION ON")
        terminal.type("q")
        assert await terminal.ended() == 0


@pytest.mark.slow
async def test_an_outage(place: Place) -> None:
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        async with (
            Broker.connect(server.url, user="spooler") as source,
            Terminal("desk", place.server, "--as", "alice", url=server.url) as terminal,
        ):
            host = Host(source, place)
            await terminal.shows("own questions")
            channel = await host.ask(job_question(7))
            await terminal.shows("Job 7: continue?")
            await asyncio.to_thread(server.kill)
            await terminal.shows("Redis does not answer")
            terminal.type("c")
            await terminal.draws(BEGIN, "answering continue", without="LATELY")
            server.start()
            assert (await channel.response(PATIENCE)).payload.choice == "continue"
            await terminal.shows("you were first: continue")
            terminal.type("q")
            assert await terminal.ended() == 0
            assert "Traceback" not in terminal.shown


async def test_lines_without_a_terminal(tympan: Tympan, place: Place, broker: Brokers) -> None:
    source = await broker("spooler")
    host = Host(source, place)
    desk = await tympan.start("desk", place.server, place.printer, "--as", "alice")
    await desk.until(lambda: bool(desk.lines), "a first line")
    assert desk.lines[0] == f"alice listens on {place.server} (Ctrl-C ends)"
    await host.says("media-empty-error")
    await host.says("media-empty-error")
    channel = await host.ask(job_question(7))
    await desk.until(lambda: len(desk.lines) == 3, "a question")
    assert desk.lines[1].endswith(f"{place.printer}: media empty")
    line = f"{place.printer} asks alice: Job 7: continue? (continue, cancel, hold)"
    assert desk.lines[2].endswith(line)
    await channel.close(QuestionOver(why="job-over"))
    await desk.until(lambda: len(desk.lines) == 4, "its end")
    assert "job over" in desk.lines[3]
    desk.signal()
    assert await desk.ended() == 0


async def test_wrong_usage(tympan: Tympan, place: Place) -> None:
    refused = await tympan.run("desk", place.server, "--everywhere", status=2)
    assert "NAMEs, or --everywhere" in refused.notes
