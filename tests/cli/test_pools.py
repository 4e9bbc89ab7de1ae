"""``tympan pool``: made, listed with what is not finished, deleted with a word about what goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.cli.commands import TYPE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.cli.desk import Desk
from tests.cli.terminal import Terminal
from tests.cli.test_listen import ask, tell
from tests.servers import RedisServer

CTRL_D = "\x04"
POOL = ("--type", TYPE, "--user", "alice")


@pytest.fixture
async def farm() -> AsyncIterator[Tympan]:
    """The command, on a redis-server that knows no print server yet."""
    with RedisServer() as server:
        async with Tympan(server.url) as made:
            yield made


async def test_a_pool_collects_from_its_creation_on(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    made = await tympan.run("pool", "create", "HelpDesk", place.printer, *POOL, "--json")
    assert made.answer == {
        "result": "S_OK",
        "hresult": "0x00000000",
        "pool": "helpdesk",
        "name": place.printer,
        "created": True,
    }
    again = await tympan.run("pool", "create", "helpdesk", place.printer, *POOL)
    assert again.lines == [
        f"pool helpdesk listened on {place.printer} already, and stays as it was made"
    ]
    await tell(await broker("source"), place.printer, "out of paper")
    for_programs, for_people, of_other = await asyncio.gather(
        tympan.run("pool", "list", place.server, "--json"),
        tympan.run("pool", "list", place.printer),
        tympan.run("pool", "list", place.other),
    )
    shown = for_programs.answer
    assert shown.pop("since") > 0
    assert shown.pop("registration").startswith("~helpdesk.")
    assert shown == {
        "pool": "helpdesk",
        "name": place.printer,
        "type": TYPE,
        "style": "uni",
        "user": "alice",
        "all_users": False,
        "printers": False,
        "everywhere": False,
        "right": None,
        "rights_source": None,
        "buffer": 10_000,
        "session": None,
        "waiting": 1,
        "in_hand": 0,
        "backlog": 1,
        "denied": 0,
        "replicas": [],
    }
    head, row = for_people.lines
    assert head.split() == [
        *("POOL", "NAME", "TYPE", "STYLE", "USER", "HEARS"),
        *("WAITING", "IN", "HAND", "REPLICAS", "DENIED", "SINCE"),
    ]
    assert row.split()[:5] == ["helpdesk", place.printer, TYPE, "uni", "alice"]
    assert row.split()[7:11] == ["1", "0", "0", "0"]
    assert of_other.lines == []
    assert f"no pool listens on {place.other}" in of_other.notes


async def test_what_replicas_have_in_hand_and_what_was_missed(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    create = ("pool", "create", "helpdesk", place.printer, *POOL, "--buffer", "2")
    await tympan.run(*create)
    source, worker = await broker("source"), await broker("alice")
    for text in ("1", "2"):
        await tell(source, place.printer, text)
    channel = await source.open_channel(place.printer, TYPE, user="alice")
    with pytest.raises(Exception, match="none of them had room"):
        await channel.send("3")
    desk = await Desk.at(worker, place.printer)
    await desk.delivery()
    asked = await Desk.asked(worker, place.printer)
    await ask(source, place.printer, "A4?")
    await asked.offer()
    await ask(source, place.printer, "A5?")
    one_way, two_way = sorted(
        (await tympan.run("pool", "list", place.printer, "--json")).events,
        key=lambda event: str(event["style"]),
        reverse=True,
    )
    session = desk.replica.server.session
    for shown, denied in ((one_way, 1), (two_way, 0)):
        assert (shown["waiting"], shown["in_hand"], shown["backlog"]) == (1, 1, 2)
        assert (shown["denied"], shown["replicas"]) == (denied, [session])
    await worker.pools.delete("helpdesk", place.printer)


async def test_a_pool_for_everybody_needs_the_grant(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    create = ("pool", "create", "helpdesk", place.server, *POOL, "--all-users", "--printers")
    refused = await tympan.run(*create, "--bidirectional", "--json", status=3)
    assert refused.answer["error"] == "ACCESS_DENIED"
    assert "tympan grant" in refused.answer["message"]
    admin = await broker("admin")
    await admin.grant(place.server, "alice", "administer")
    await tympan.run(*create, "--bidirectional")
    (shown,) = (await tympan.run("pool", "list", place.server, "--json")).events
    assert (shown["style"], shown["all_users"], shown["printers"]) == ("bi", True, True)
    assert shown["right"] == "administer"
    await admin.revoke(place.server, "alice", "administer")
    assert (await tympan.run("pool", "list", place.server)).lines == []


async def test_pools_are_among_those_who_listen(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    desk = await Desk.at(await broker("alice"), place.printer)
    (shown,) = (await tympan.run("registrations", place.server, "--json")).events
    assert (shown["registration"], shown["pool"]) == (desk.replica.id, "helpdesk")
    assert shown["session"] is None
    for_people = await tympan.run("registrations", place.server)
    assert "pool helpdesk (1 replica)" in for_people.lines[1]
    await desk.replica.leave()
    await tympan.run("pool", "delete", "helpdesk", place.server)


async def test_a_pool_with_nothing_unfinished_is_deleted_without_a_question(
    tympan: Tympan, place: Place
) -> None:
    for name in (place.printer, place.other):
        await tympan.run("pool", "create", "helpdesk", name, *POOL)
    first = await tympan.run("pool", "delete", "HELPDESK", place.printer)
    words = f"pool helpdesk listens on {place.printer} no more ({TYPE}, uni)"
    assert first.lines == [f"{words}: 0 unfinished things dropped"]
    rest = await tympan.run("pool", "delete", "helpdesk", place.server, "--json")
    assert (rest.answer["name"], rest.answer["dropped"]) == (place.other, 0)
    unknown = await tympan.run("pool", "delete", "helpdesk", place.server, "--json", status=3)
    assert unknown.answer["error"] == "NO_SUCH_POOL"
    assert "tympan pool list" in unknown.answer["message"]


async def test_what_is_unfinished_goes_only_after_a_word(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    await tympan.run("pool", "create", "helpdesk", place.printer, *POOL)
    source = await broker("source")
    for text in ("1", "2", "3"):
        await tell(source, place.printer, text)
    delete = ("pool", "delete", "helpdesk", place.printer)
    unasked = await tympan.run(*delete, status=2)
    assert "pool helpdesk has 3 unfinished things: say --yes" in unasked.notes
    (shown,) = (await tympan.run("pool", "list", place.printer, "--json")).events
    assert shown["waiting"] == 3
    done = await tympan.run(*delete, "--yes", "--json")
    assert (done.answer["result"], done.answer["dropped"]) == ("S_OK", 3)
    assert (await tympan.run("pool", "list", place.printer)).lines == []


async def test_a_person_is_asked(tympan: Tympan, place: Place, broker: Brokers) -> None:
    await tympan.run("pool", "create", "helpdesk", place.printer, *POOL)
    await tell(await broker("source"), place.printer, "1")
    delete = ("pool", "delete", "helpdesk", place.printer)
    question = "pool helpdesk has 1 unfinished thing. Drop, and delete the pool? [y/N]"
    for answer, says, status in (
        ("\n", "nothing was deleted", 3),
        (CTRL_D, "", 130),
        ("y\n", "1 unfinished thing dropped", 0),
    ):
        async with Terminal(*delete, url=tympan.url) as terminal:
            await terminal.shows(question)
            terminal.type(answer)
            await terminal.shows(says)
            assert await terminal.ended() == status


async def test_a_pool_that_listens_everywhere(farm: Tympan) -> None:
    create = ("pool", "create", "helpdesk", "--everywhere", *POOL)
    nowhere = await farm.run(*create, "--json", status=3)
    assert nowhere.answer["error"] == "NOT_IN_DIRECTORY"
    for server in ("print01", "print02"):
        await farm.run("server", "alias", f"{server}.example", server)
    made = await farm.run(*create, "--json")
    assert [event["name"] for event in made.events] == [r"\\print01", r"\\print02"]
    listed = (await farm.run("pool", "list", "--pool", "HelpDesk", "--json")).events
    assert [(event["name"], event["everywhere"]) for event in listed] == [
        (r"\\print01", True),
        (r"\\print02", True),
    ]
    there = await farm.run("pool", "list", r"\\print02.example", "--json")
    assert [event["name"] for event in there.events] == [r"\\print02"]
    assert (await farm.run("pool", "list", "--pool", "other")).lines == []
    await farm.run("send", r"\\print01", *POOL, "--text", "one")
    used = await farm.run("server", "forget", "print01", status=3)
    assert "in use by 1 pool" in used.notes, "something waits there"
    await farm.run("server", "forget", "print02")
    (left,) = (await farm.run("pool", "list", "--json")).events
    assert (left["name"], left["waiting"]) == (r"\\print01", 1), "the other went with its server"
    assert len((await farm.run("pool", "delete", "helpdesk", "--yes")).lines) == 1
    await farm.run("server", "forget", "print01")


async def test_a_pool_that_one_server_refuses(farm: Tympan) -> None:
    for server in ("print01", "print02"):
        await farm.run("server", "alias", f"{server}.example", server)
    create = ("pool", "create", "helpdesk", "--everywhere", *POOL, "--all-users")
    refused = await farm.run(*create, "--json", status=3)
    assert [event.get("error") for event in refused.events] == ["ACCESS_DENIED"] * 2
    await farm.run("grant", r"\\print02", "alice", "administer")
    some = await farm.run(*create, "--json", status=3)
    first, second = some.events
    assert (first["name"], first["error"]) == (r"\\print01", "ACCESS_DENIED")
    assert (second["name"], second["created"]) == (r"\\print02", True)
