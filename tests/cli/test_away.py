"""A part of the farm is away, or not ours: lists show what they reach, and name what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from broker.sync import Broker
from tests.cli.commands import TYPE, Tympan
from tests.cluster import RedisCluster
from tests.redis.scenes import QUIET
from tests.servers import RedisServer, await_agreement
from workers.acl import Role, Wish, rules
from workers.embedded import HOST

LISTS = (
    ("channels",),
    ("registrations",),
    ("grants",),
    ("servers",),
    ("pool", "list"),
    ("workers",),
)
SHORT = 300
"""More characters than a line that somebody reads may have."""


class Crippled(NamedTuple):
    """A Cluster without one of its masters, which had one of two print servers."""

    url: str
    here: str
    away: str
    dead: str
    """The address of that master."""


def stand(broker: Broker, name: str) -> None:
    """Something for each list to show."""
    broker.grant(name, "alice", "administer")
    broker.open_channel(rf"{name}\laser-3", TYPE)
    broker.register(rf"{name}\laser-3", TYPE)


@pytest.fixture(scope="module")
def crippled() -> Iterator[Crippled]:
    config = {"cluster-require-full-coverage": "no"}
    with RedisCluster(config=config) as cluster:
        home = cluster.node_of("tympan:servers")
        names = cluster.server_names(3)
        (here,) = [name for name in names if cluster.node_of(f"{{{name}}}") is home]
        away = next(name for name in names if name != here)
        about: dict[str, Any] = QUIET | {"user": "alice", "operation_timeout": 0.5}
        with Broker.connect(cluster.url, **about) as broker:
            for name in (here, away):
                stand(broker, rf"\\{name}")
            dead = cluster.kill_master(f"{{{away}}}")
            await_agreement(lambda: home.view()[dead.id].is_failed, "a failed node")
            address = f"{HOST}:{dead.port}"
            yield Crippled(cluster.url, rf"\\{here}", rf"\\{away}", address)


@pytest.fixture
async def tympan(crippled: Crippled) -> AsyncIterator[Tympan]:
    """The command, on that Cluster."""
    async with Tympan(crippled.url) as made:
        yield made


async def test_lists_show_what_is_there_and_name_what_is_away(
    tympan: Tympan, crippled: Crippled
) -> None:
    _, here, away, dead = crippled
    ran = await asyncio.gather(*(tympan.run(*words, status=5) for words in LISTS))
    for process in ran:
        assert here in "\n".join(process.lines) or process.words == ("pool", "list")
        (line,) = [line for line in process.notes.splitlines() if line.startswith(away)]
        assert f"{away} cannot be read: no connection to {dead}: Connection refused" in line


async def test_programs_are_told_what_is_away(tympan: Tympan, crippled: Crippled) -> None:
    _, here, away, _ = crippled
    ran = await asyncio.gather(
        *(tympan.run(word, "--json", status=5) for word in ("channels", "servers"))
    )
    for process in ran:
        (missing,) = [event for event in process.events if event["name"] == away]
        (there,) = [event for event in process.events if event["name"].startswith(here)]
        assert missing["error"] == "CLUSTER_INCOMPLETE"
        assert "error" not in there


async def test_what_is_said_of_a_dead_master_is_short_and_said_once(
    tympan: Tympan, crippled: Crippled
) -> None:
    _, here, away, dead = crippled
    well, ill = await asyncio.gather(
        tympan.run("channels", here), tympan.run("channels", away, status=5)
    )
    assert well.notes == f"tympan: the master {dead} does not answer: Connection refused\n"
    first, second = ill.notes.splitlines()
    assert first.endswith("does not answer: Connection refused")
    assert "CLUSTER_INCOMPLETE" in second
    assert "`tympan doctor`" in second
    assert "redis+cluster://" not in ill.notes
    assert max(map(len, (first, second))) < SHORT


async def test_a_channel_is_found_beside_a_server_that_is_away(
    tympan: Tympan, crippled: Crippled
) -> None:
    _, here, _, _ = crippled
    (channel,) = (await tympan.run("channels", here, "--json")).events
    shown, unknown = await asyncio.gather(
        tympan.run("show", channel["channel"], "--json"),
        tympan.run("show", "0123456789abcdef", "--json", status=5),
    )
    assert shown.answer["name"] == channel["name"]
    assert unknown.answer["error"] == "CLUSTER_INCOMPLETE", "it may be there"


@pytest.fixture
def confined() -> Iterator[str]:
    """URL of a print host that may look at its own, on a Redis that has another print server."""
    with RedisServer() as server:
        own = Wish(roles=[Role.SOURCE, Role.OBSERVER], servers=("print01",))
        server.cli("ACL", "SETUSER", "print01", *rules(own), ">secret")
        with Broker.connect(server.url, user="alice", **QUIET) as broker:
            for name in (r"\\print01", r"\\print02"):
                stand(broker, name)
            yield f"redis://print01:secret@{HOST}:{server.port}/0"


async def test_a_confined_print_host_lists_its_own(confined: str) -> None:
    host = Tympan(confined)
    *ran, own = await asyncio.gather(
        *(host.run(*words, status=3) for words in LISTS if words != ("pool", "list")),
        host.run("channels", r"\\print01"),
    )
    for process in ran:
        assert r"\\print01" in "\n".join(process.lines)
        assert r"\\print02 cannot be read: the ACL of" in process.notes
        assert r"`tympan doctor '\\print02'` says what it may do there" in process.notes
    assert own.notes == ""
    await host.clean_up()
