"""What other packages plug in, at the command line: it is listed, validates and runs."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import BIDIRECTIONAL, Name, Notification, Offer
from tests.cli.commands import PATIENCE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.extensions import GUID, TONER, Site
from tests.servers import RedisServer

BRIDGE = """
import asyncio
import click
from broker import errors

class Bridge:
    description = "Hears toner alerts."
    options = (click.Option(["--printer"], required=True), click.Option(["--fault"]))

    async def run(self, broker, server, *, printer, fault):
        registration = await broker.register(rf"{server}\\{printer}", "toner")
        click.echo(f"{broker.user} bridges {registration.plan.name}", err=True)
        if fault == "ours":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.fail())
        if fault == "its own":
            raise RuntimeError("out of paper")
        if fault == "none":
            return
        await registration.fetch()

    async def fail(self):
        raise errors.RedisUnreachable("the farm is gone")
"""

WITH_SETTINGS = """
import click
from broker import Broker, Name

class Bridge:
    description = "Has settings of its own."
    options = (click.Option(["--farm"], required=True), click.Option(["--fault", "fault"]))

    def server(self, *, farm, fault):
        return Name("print07")

    def connect(self, url, user, server, *, farm, fault):
        if fault:
            raise RuntimeError(fault)
        return Broker.connect(url or farm, user=f"{user}-{server.server}", server=str(server))

    async def run(self, broker, server, **_):
        click.echo(f"{broker.user} bridges {server}", err=True)
"""


@pytest.fixture
async def tympan(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Tympan]:
    """The command, where three packages are installed; one of them is broken."""
    site = Site(tmp_path)
    site.install("toner-pack", TONER, types="toner = toner_pack:Toner")
    site.install("lpd-pack", BRIDGE, bridges="lpd = lpd_pack:Bridge")
    site.install(
        "broken-pack",
        "import nowhere_at_all",
        types="broken = broken_pack:Model",
        bridges="damaged = broken_pack:Bridge",
    )
    async with Tympan(redis_server.url, environment={"PYTHONPATH": str(tmp_path)}) as made:
        yield made


# Listing -----------------------------------------------------------------------------------------


async def test_extensions_are_listed_with_their_faults(tympan: Tympan) -> None:
    listed, for_people = await asyncio.gather(
        tympan.run("extensions", "--json"), tympan.run("extensions")
    )
    toner, lpd, broken, damaged = listed.events
    assert toner == {
        "kind": "type",
        "name": "toner",
        "package": "toner-pack 1.0",
        "object": "toner_pack:Toner",
        "what": f"{GUID} Toner",
        "fault": None,
    }
    assert (lpd["kind"], lpd["name"], lpd["what"]) == ("bridge", "lpd", "Hears toner alerts.")
    for record, kind, name in ((broken, "type", "broken"), (damaged, "bridge", "damaged")):
        assert (record["kind"], record["name"], record["what"]) == (kind, name, None)
        assert "No module named 'nowhere_at_all'" in record["fault"]
    heading, *rows = for_people.lines
    assert heading.split() == ["KIND", "NAME", "WHAT", "PACKAGE"]
    assert [row.split()[:2] for row in rows[:2]] == [["type", "toner"], ["bridge", "lpd"]]
    assert [row for row in rows[2:] if "broken-pack 1.0" in row and "nowhere_at_all" in row]


async def test_bridges_are_listed(tympan: Tympan) -> None:
    listed = await tympan.run("bridges", "--json")
    assert [record["name"] for record in listed.events] == ["cups", "lpd", "damaged"]


async def test_where_nothing_is_plugged_in(redis_server: RedisServer) -> None:
    plain = Tympan(redis_server.url)
    listed, bridges = await asyncio.gather(plain.run("extensions"), plain.run("bridges"))
    assert listed.lines == []
    assert "no package plugs anything in" in listed.notes
    _, cups = bridges.lines
    assert cups.split()[:2] == ["bridge", "cups"], "it comes with Tympan"


# Types -------------------------------------------------------------------------------------------


async def test_a_payload_that_does_not_fit_is_refused_before_it_is_sent(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    alice = await broker("alice")
    listener = await alice.register(place.printer, GUID)
    send = ("send", place.printer, "--user", "alice", "--json", "--type")
    refused = await tympan.run(*send, "toner", "--text", '{"color": "black"}', status=3)
    assert refused.answer["error"] == "INVALID_ARGUMENT"
    assert "no Toner: colour: Field required" in refused.answer["message"]
    assert "nothing was sent" in refused.answer["message"]

    await tympan.run(*send, GUID, "--text", "any bytes")
    told = await listener.fetch(PATIENCE)
    assert isinstance(told, Notification)
    assert told.text == "any bytes", "the GUID takes any bytes, and nothing came before"


async def test_a_typed_notification_is_shown_readably(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listen = (place.printer, "--type", "toner", "--as", "alice", "--count", "2")
    for_programs = await tympan.listening(*listen)
    for_people = await tympan.start("listen", *listen)
    await for_people.until(lambda: any("listens" in line for line in for_people.lines), "a start")
    await tympan.run(
        *("send", place.printer, "--type", "toner", "--user", "alice"),
        *("--text", '{"colour": "black", "level": 7}'),
    )
    async with await (await broker("source")).open_channel(
        place.printer, GUID, user="alice"
    ) as channel:
        await channel.send("black 7")
    assert await for_programs.ended() == await for_people.ended() == 0
    registered, first, second = for_programs.events
    assert registered["type"] == GUID
    assert first["text"] == '{"colour": "black", "level": 7}', "the bytes stay beside it"
    assert (first["model"], first["payload"]) == ("Toner", {"colour": "black", "level": 7})
    assert (second["text"], second["payload"]) == ("black 7", None)
    assert "no Toner" in second["fault"]
    start, fits, other = for_people.lines
    assert "toner, uni" in start
    assert fits.endswith("colour: black, level: 7")
    assert "black 7 (no Toner: payload: Invalid JSON" in other


async def test_responses_fit_the_response_model(tympan: Tympan, place: Place) -> None:
    listen = ("listen", place.printer, "--type", "toner", "--as", "bob", "--json")
    refused = await tympan.run(*listen, "--respond", "yes", status=3)
    assert "no Reply" in refused.answer["message"]

    asking = await tympan.listening(
        *(place.printer, "--type", "toner", "--as", "bob", "--style", "bi", "--ask"),
        *("--count", "1"),
    )
    send = await tympan.start(
        *("send", place.printer, "--type", "toner", "--user", "bob", "--wait", "20"),
        *("--text", '{"colour": "cyan"}'),
    )
    await asking.note("answer as bob")
    asking.type("yes")
    await asking.note("not answered, no Reply")
    asking.type('{"order": true}')
    assert await send.ended() == 0
    assert send.lines[-1] == "bob answered: order: yes"
    assert await asking.ended() == 0


async def test_types_of_our_own_take_plain_text(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await (await broker("bob")).register(place.printer, "asyncui", style=BIDIRECTIONAL)
    send = await tympan.start(
        *("send", place.printer, "--type", "asyncui", "--user", "bob", "--wait", "20"),
        *("--text", "Load A4?"),
    )
    offer = await listener.fetch(PATIENCE)
    assert isinstance(offer, Offer)
    assert offer.notification.text == "Load A4?"
    await offer.respond("yes")
    assert await send.ended() == 0
    assert send.lines[-1] == "bob answered: yes"


async def test_a_broken_type_is_told_where_it_is_asked_for(tympan: Tympan, place: Place) -> None:
    send = ("send", place.printer, "--text", "x", "--json", "--type")
    refused, sent = await asyncio.gather(
        tympan.run(*send, "broken", status=3), tympan.run(*send, "sample-ui")
    )
    assert refused.answer["error"] == "EXTENSION_INVALID"
    for part in ("broken-pack 1.0", "broken_pack:Model", "nowhere_at_all", "uninstall"):
        assert part in refused.answer["message"]
    assert "Traceback" not in refused.notes
    assert sent.answer["result"] == "NO_LISTENERS"


# Bridges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_a_bridge_runs_until_it_is_interrupted(
    tympan: Tympan, place: Place, broker: Brokers, number: signal.Signals
) -> None:
    bridge = await tympan.start(
        *("bridge", "run", "lpd", "--printer", "laser-3"),
        *("--server", place.server, "--as", "Spooler"),
    )
    await bridge.note(f"spooler bridges {place.printer}")
    looking = await broker("admin")
    assert len(await looking.registrations(place.printer)) == 1
    bridge.signal(number)
    assert await bridge.ended() == 0
    assert await looking.registrations(place.printer) == [], "its broker was closed"
    assert "Traceback" not in bridge.notes


@pytest.mark.parametrize(
    ("fault", "status", "code", "says"),
    [
        ("none", 0, None, "the bridge lpd runs"),
        ("ours", 5, "REDIS_UNREACHABLE", "the farm is gone"),
        ("its own", 3, "EXTENSION_INVALID", "lpd-pack 1.0) ended by RuntimeError: out of paper"),
    ],
)
async def test_how_a_bridge_ends(
    tympan: Tympan, place: Place, fault: str, status: int, code: str | None, says: str
) -> None:
    run = ("bridge", "run", "lpd", "--server", place.server, "--printer", "x", "--json")
    bridge = await tympan.run(*run, "--fault", fault, status=status)
    assert says in bridge.notes
    assert "Traceback" not in bridge.notes
    if code:
        assert bridge.answer["error"] == code


async def test_a_bridge_speaks_for_this_host_by_default(tympan: Tympan) -> None:
    this_host = Name.parse(rf"\\{socket.gethostname()}")
    run = ("bridge", "run", "lpd", "--printer", "x", "--fault", "none")
    assert f"runs for {this_host} " in (await tympan.run(*run)).notes


async def test_a_bridge_may_say_what_it_speaks_for_and_where_the_farm_is(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    Site(tmp_path).install("own-pack", WITH_SETTINGS, bridges="own = own_pack:Bridge")
    nowhere = {"PYTHONPATH": str(tmp_path)}
    tympan = Tympan("redis://127.0.0.1:1/0", environment=nowhere)
    run = ("bridge", "run", "own", "--as", "spooler")
    assert (
        r"spooler-print07 bridges \\print07"
        in (await tympan.run(*run, "--farm", redis_server.url)).notes
    )
    assert (
        r"spooler-print08 bridges \\print08"
        in (await tympan.run(*run, "--farm", redis_server.url, "--server", r"\\print08")).notes
    )
    at_fault = await tympan.run(*run, "--farm", "x", "--fault", "no paper", status=3)
    assert "own-pack 1.0) ended by RuntimeError: no paper" in at_fault.notes
    await tympan.clean_up()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("lpd", "--help"), 0, ""),
        (("lpd",), 2, "--printer"),
        (("lpd", "--printer", "x", "--server", r"\\s\p"), 2, r"write '\\s'"),
        (("ipp",), 2, "no bridge 'ipp' is installed"),
        (("damaged",), 3, "nowhere_at_all"),
    ],
)
async def test_bridges_have_options_of_their_own(
    tympan: Tympan, words: tuple[str, ...], status: int, says: str
) -> None:
    bridge = await tympan.run("bridge", "run", *words, status=status)
    assert says in bridge.notes
    if status == 0:
        assert "Hears toner alerts." in "".join(bridge.lines)
        assert any("--printer" in line for line in bridge.lines)
        assert any("--server" in line for line in bridge.lines)
