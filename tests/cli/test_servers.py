"""``tympan servers``, ``tympan server``, and listening everywhere, on a farm of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker import BIDIRECTIONAL, Broker
from broker.pool import Subscription
from tests.cli.commands import PATIENCE, TYPE, Tympan
from tests.servers import RedisServer

LISTEN = ("--everywhere", "--type", TYPE, "--as", "carol")


@pytest.fixture
async def farm() -> AsyncIterator[Tympan]:
    """The command, on a redis-server that knows no print server yet."""
    with RedisServer() as server:
        async with Tympan(server.url) as made:
            yield made


async def test_servers_of_an_empty_farm(farm: Tympan) -> None:
    for_people, for_programs = await asyncio.gather(
        farm.run("servers"), farm.run("servers", "--json")
    )
    assert for_people.lines == for_programs.lines == []
    assert "no print server is known" in for_people.notes


async def test_servers_with_their_names_and_what_stands_there(farm: Tympan) -> None:
    named = await farm.run("server", "alias", r"\\PRINT01.Farm", "print01", "--json")
    assert named.answer == {
        "result": "S_OK",
        "hresult": "0x00000000",
        "alias": r"\\print01.farm",
        "name": r"\\print01",
    }
    again = await farm.run("server", "alias", "10.1.2.3", r"\\print01.farm")
    assert again.lines == [r"\\10.1.2.3 stands for \\print01"]
    async with Broker.connect(farm.url, user="alice") as broker:
        await broker.register(r"\\10.1.2.3\laser-3", TYPE)
        await broker.pools.create("desk", Subscription(r"\\print01\laser-3", TYPE))
        await broker.open_channel(r"\\print02", TYPE)
        for_programs, for_people = await asyncio.gather(
            farm.run("servers", "--json"), farm.run("servers")
        )
    first = {
        "name": r"\\print01",
        "aliases": [r"\\10.1.2.3", r"\\print01.farm"],
        "processes": 1,
        "registrations": 1,
        "pools": 1,
        "channels": 0,
    }
    second = {
        "name": r"\\print02",
        "aliases": [],
        "processes": 1,
        "registrations": 0,
        "pools": 0,
        "channels": 1,
    }
    assert for_programs.events == [first, second]
    head, one, two = (line.split() for line in for_people.lines)
    assert head == ["SERVER", "ALIASES", "PROCESSES", "REGISTRATIONS", "POOLS", "CHANNELS"]
    assert one == [r"\\print01", r"\\10.1.2.3,", r"\\print01.farm", "1", "1", "1", "0"]
    assert two == [r"\\print02", "-", "1", "0", "0", "1"]


async def test_a_taken_alias_is_refused_with_both_names(farm: Tympan) -> None:
    await farm.run("server", "alias", "p1", "print01")
    taken = await farm.run("server", "alias", "p1", "print02", "--json", status=3)
    assert taken.answer["error"] == "ALIAS_TAKEN"
    assert taken.answer["hresult"] == "0x80070034"
    for part in (r"\\p1", r"\\print01", r"\\print02", "tympan server unalias"):
        assert part in taken.answer["message"]


async def test_an_alias_is_taken_away(farm: Tympan) -> None:
    await farm.run("server", "alias", "p1", "print01")
    gone = await farm.run("server", "unalias", r"\\P1")
    assert gone.lines == [r"\\p1 stands for \\print01 no more"]
    unknown = await farm.run("server", "unalias", "p1", "--json", status=3)
    assert unknown.answer["error"] == "NOT_IN_DIRECTORY"


async def test_a_server_is_forgotten_when_nothing_stands_there(farm: Tympan) -> None:
    await farm.run("server", "alias", "p1", "print01")
    async with Broker.connect(farm.url, user="alice") as broker:
        await broker.register(r"\\p1", TYPE)
        used = await farm.run("server", "forget", "print01", "--json", status=3)
        assert used.answer["error"] == "SERVER_IN_USE"
        assert "1 session, 1 registration" in used.answer["message"]
    alias = await farm.run("server", "forget", "p1", "--json", status=2)
    assert "is an alias" in alias.answer["message"]
    gone = await farm.run("server", "forget", r"\\print01", "--json")
    assert (gone.answer["name"], gone.answer["aliases"]) == (r"\\print01", [r"\\p1"])
    unknown = await farm.run("server", "forget", r"\\print01", "--json", status=3)
    assert unknown.answer["error"] == "NOT_IN_DIRECTORY"
    assert (await farm.run("servers")).lines == []


async def test_help_of_the_group_has_examples(farm: Tympan) -> None:
    helped = await farm.run("server", "--help")
    assert "tympan server alias" in "\n".join(helped.lines)


async def test_listening_everywhere_hears_servers_of_now_and_of_later(farm: Tympan) -> None:
    async with Broker.connect(farm.url, user="source") as source:
        first = await source.open_channel(r"\\print01\laser-3", TYPE, user="carol")
        listener = await farm.listening(*LISTEN, "--printers", "--count", "2")
        (registered,) = listener.events
        assert registered["everywhere"] is True
        assert registered["names"] == [r"\\print01"]
        assert registered["missing"] == {}
        assert registered["result"] == "S_OK"
        assert registered["printers"] is True
        await first.send("one")
        await listener.event("notification")

        second = await source.open_channel(r"\\print02\laser-1", TYPE, user="carol")
        async with asyncio.timeout(PATIENCE):
            while not await source.registrations(r"\\print02"):  # noqa: ASYNC110 (Redis is asked)
                await asyncio.sleep(0.02)
        (there,) = (await farm.run("registrations", r"\\print02", "--json")).events
        assert there["everywhere"] is True
        await second.send("two")
        assert await listener.ended() == 0
        heard = [(event["name"], event["text"]) for event in listener.events[1:]]
        assert heard == [(r"\\print01\laser-3", "one"), (r"\\print02\laser-1", "two")]


async def test_answering_everywhere(farm: Tympan) -> None:
    async with Broker.connect(farm.url, user="source") as source:
        await source.server(r"\\print01")
        listener = await farm.listening(*LISTEN, "--respond", "yes", "--count", "1")
        channel = await source.open_channel(r"\\print01", TYPE, user="carol", style=BIDIRECTIONAL)
        await channel.send("A4?")
        assert (await channel.response(PATIENCE)).text == "yes"
        await channel.close()
        assert await listener.ended() == 0


async def test_listening_everywhere_says_where_it_does_not(farm: Tympan) -> None:
    async with Broker.connect(farm.url, user="admin") as admin:
        await admin.grant(r"\\print01", "carol", "administer")
        await admin.server(r"\\print02")
        some = await farm.listening(*LISTEN, "--all-users", "--timeout", "0")
        assert await some.ended() == 0
        assert some.events[0]["names"] == [r"\\print01"]
        assert r"tympan grant '\\print02'" in some.events[0]["missing"][r"\\print02"]
        assert "not everywhere: carol" in some.notes

        await admin.revoke(r"\\print01", "carol", "administer")
        none = await farm.run("listen", *LISTEN, "--all-users", "--json", status=3)
        assert none.answer["error"] == "ACCESS_DENIED"
