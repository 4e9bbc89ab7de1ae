"""``tympan workers`` shows a farm once, ``tympan top`` live, through an outage and on any width."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker import Broker
from tests.cli.commands import PATIENCE, TYPE, Tympan
from tests.cli.desk import Desk
from tests.cli.terminal import Terminal
from tests.cli.test_listen import ask, tell
from tests.servers import RedisServer

PRINTER = r"\\print01\laser-3"
OTHER = r"\\print02\laser-1"
TOP = ("top", "--every", "0.2")


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """A redis-server of the test's own, which keeps what it has."""
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as made:
        yield made


@pytest.fixture
async def farm(server: RedisServer) -> AsyncIterator[Tympan]:
    """The command on it."""
    async with Tympan(server.url) as made:
        yield made


@pytest.fixture
async def desk(server: RedisServer) -> AsyncIterator[Desk]:
    """A farm with one of everything: a pool that is behind, a question, a listener, a letter."""
    async with (
        Broker.connect(server.url, user="source") as source,
        Broker.connect(server.url, user="alice") as alice,
    ):
        desk = await Desk.at(alice, PRINTER)
        await tell(source, PRINTER, "lost")
        await desk.bury("KeyError: tray\n  in line 7")
        for text in ("1", "2", "3"):
            await tell(source, PRINTER, text)
        await desk.delivery()
        await alice.register(OTHER, TYPE)
        await ask(source, OTHER, "A4?")
        yield desk


async def test_an_empty_farm(farm: Tympan) -> None:
    for words in (("workers",), ("workers", "--json")):
        shown = await farm.run(*words)
        assert shown.lines == []
        assert "no print server is known" in shown.notes


async def test_one_of_everything(farm: Tympan, desk: Desk) -> None:
    for_programs, for_people = await asyncio.gather(
        farm.run("workers", "--json"), farm.run("workers")
    )
    one, two = for_programs.events
    assert (one["name"], two["name"]) == (r"\\print01", r"\\print02")
    assert one["aliases"] == []
    assert one["at"] > 0
    (pool,) = one["pools"]
    assert (pool["pool"], pool["waiting"], pool["in_hand"], pool["backlog"]) == (
        *("helpdesk", 2, 1),
        3,
    )
    assert pool["replicas"] == [desk.replica.server.session]
    assert (one["dead_letters"], two["dead_letters"]) == (1, 0)
    (question,) = two["questions"]
    assert (question["name"], question["state"], question["user"]) == (OTHER, "offered", "alice")
    assert 0 <= question["age"] < PATIENCE
    assert one["questions"] == []
    (listener,) = two["registrations"]
    assert (listener["name"], listener["pool"]) == (OTHER, None)
    assert (one["processes"], two["processes"]) == (2, 2)

    rows = {line.split("  ")[0]: line.split() for line in for_people.lines if line}
    assert rows["helpdesk"] == ["helpdesk", PRINTER, TYPE, "uni", "alice", "2", "1", "1", "0"]
    lines = "\n".join(for_people.lines)
    for part in (
        "QUESTION ON",
        f"{OTHER}  ",
        "asked, unanswered",
        "LISTENERS ON",
        "DEAD LETTERS ON",
        "KeyError: tray in line 7",
    ):
        assert part in lines
    assert for_people.lines[-1].split(" · ") == [
        *("2 servers", "5 open channels", "1 question", "1 registration", "1 pool"),
        *("2 waiting", "1 in hand", "1 replica", "1 dead letter"),
    ]


async def test_looking_begins_no_session(farm: Tympan, desk: Desk) -> None:
    """A credential that may only read will do."""
    await desk.replica.server.command(
        *("ACL", "SETUSER", "looker", "on", ">secret", "~*", "&*"),
        *("+@read", "+@connection", "+info", "+time"),
    )
    url = farm.url.replace("redis://", "redis://looker:secret@")
    (letter,) = await desk.replica.server.command("XRANGE", desk.replica.server.keys.dead, "-", "+")
    for words in (
        ("workers",),
        ("pool", "list", OTHER),
        ("dead", "list", PRINTER),
        ("dead", "show", letter[0].decode()),
        ("servers",),
    ):
        shown = await farm.run(*words, url=url)
        assert "cannot be read" not in shown.notes
    async with Terminal(*TOP, url=url) as terminal:
        await terminal.shows("helpdesk")
        terminal.type("q")
        assert await terminal.ended() == 0


async def test_top_shows_it_live_until_q(farm: Tympan, desk: Desk) -> None:
    async with Terminal(*TOP, url=farm.url) as terminal:
        await terminal.shows("helpdesk", "QUESTION ON", "DEAD LETTERS ON", "2 waiting", "q ends")
        await desk.delivery()
        await terminal.shows("1 waiting · 2 in hand")
        await desk.replica.leave()
        await terminal.shows("3 waiting · 0 in hand", "0 replicas")
        terminal.type("q")
        assert await terminal.ended() == 0


@pytest.mark.usefixtures("desk")
async def test_top_ends_with_a_signal(farm: Tympan) -> None:
    async with Terminal(*TOP, url=farm.url) as terminal:
        await terminal.shows("helpdesk")
        terminal.signal()
        assert await terminal.ended() == 0
        assert "Traceback" not in terminal.shown


@pytest.mark.usefixtures("desk")
async def test_top_on_a_narrow_terminal(farm: Tympan) -> None:
    async with Terminal(*TOP, url=farm.url, columns=36) as terminal:
        await terminal.shows("helpdesk", "WAITING", "REPLICAS", "QUESTION ON", "AGE")
        assert "DENIED" not in terminal.shown, "what is of less interest is left out"
        assert TYPE not in terminal.shown
        terminal.type("q")
        assert await terminal.ended() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("desk")
async def test_top_outlives_an_outage_and_says_so(farm: Tympan, server: RedisServer) -> None:
    async with Terminal(*TOP, url=farm.url) as terminal:
        await terminal.shows("2 waiting")
        await asyncio.to_thread(server.kill)
        away = "Redis has not answered for"
        await terminal.draws("tympan top", away, "helpdesk", "2 waiting", without="tickets")
        await terminal.shows(f"127.0.0.1:{server.port}")
        server.start()
        await farm.run("pool", "create", "tickets", PRINTER, "--type", TYPE, "--user", "bob")
        await terminal.draws("tympan top", "tickets", "helpdesk", without=away)
        terminal.type("q")
        assert await terminal.ended() == 0
        assert "Traceback" not in terminal.shown


async def test_top_needs_a_terminal(farm: Tympan) -> None:
    for words in (("top",), ("top", "--json")):
        refused = await farm.run(*words, status=2)
        assert "`tympan workers` prints the same once" in refused.notes


async def test_top_is_not_too_eager(farm: Tympan) -> None:
    async with Terminal("top", "--every", "0", url=farm.url) as terminal:
        await terminal.shows("write 0.1 or more")
        assert await terminal.ended() == 2
