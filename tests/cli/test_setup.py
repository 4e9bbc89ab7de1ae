"""``tympan setup``: the farm has what a file says, or nothing is done at all."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Name, Right
from tests.cli.commands import TYPE, Tympan
from tests.servers import RedisServer
from workers.embedded import free_port

SECRET = "p@ss/w?rd#%"
SOUND: dict[str, Any] = {"appendonly": True, "maxmemory": "100mb"}
FILE = rf"""
[doctor]

[[servers]]
name = '\\print01'
aliases = ['\\print01.farm.example', '10.1.2.3']

[[servers]]
name = 'print02'

[[grants]]
name = '\\print01'
user = "helpdesk"
right = "administer"

[[grants]]
name = '\\print02\laser-3'
user = "carol"
right = "PRINTER_ALL_ACCESS"

[[pools]]
pool = "Help-Desk"
name = '\\print01'
type = "{TYPE}"
user = "helpdesk"
all_users = true
bidirectional = true
printers = true

[[pools]]
pool = "tickets"
everywhere = true
type = "sample-ui"
user = "tickets"
buffer = 77
"""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that the doctor lets pass, and that knows no print server."""
    with RedisServer(**SOUND) as server:
        yield server


@pytest.fixture
async def sound(redis: RedisServer) -> AsyncIterator[Tympan]:
    """The command, on that Redis."""
    async with Tympan(redis.url) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "farm.toml", FILE)


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


async def test_all_of_the_file_is_there_afterwards(sound: Tympan, file: Path) -> None:
    done = await sound.run("setup", str(file))
    assert done.lines[0].endswith("has nothing that loses data silently.")
    assert done.lines[-9:] == [
        r"\\print01 is known",
        r"\\print01.farm.example stands for \\print01",
        r"\\10.1.2.3 stands for \\print01",
        r"\\print02 is known",
        r"helpdesk now has on \\print01: SERVER_ACCESS_ADMINISTER",
        r"carol now has on \\print02\laser-3: PRINTER_ALL_ACCESS",
        r"pool help-desk listens on \\print01",
        r"pool tickets listens on \\print01",
        r"pool tickets listens on \\print02",
    ]
    async with Broker.connect(sound.url, user="look") as broker:
        assert await broker.servers() == ["print01", "print02"]
        grants = {(one.name, one.user): one.right for one in await broker.grants()}
        assert grants == {
            (Name("print01"), "helpdesk"): Right.SERVER_ACCESS_ADMINISTER,
            (Name("print02", "laser-3"), "carol"): Right.PRINTER_ALL_ACCESS,
        }
        help_desk, tickets = await broker.pools.on_server(r"\\10.1.2.3")
        assert (help_desk.pool, help_desk.user, help_desk.style) == (
            "help-desk",
            "helpdesk",
            BIDIRECTIONAL,
        )
        assert help_desk.user_filter is ALL_USERS
        assert help_desk.printers
        assert (tickets.pool, tickets.buffer, tickets.everywhere) == ("tickets", 77, True)


async def test_the_same_file_may_be_given_again(sound: Tympan, file: Path) -> None:
    await sound.run("setup", str(file))
    again = await sound.run("setup", str(file), "--json")
    told = again.events
    assert told[0]["verdict"] == "good"
    assert [one["created"] for one in told if "created" in one] == [False] * 3


async def test_json_says_the_same(sound: Tympan, tmp_path: Path) -> None:
    pool = {"pool": "desk", "name": r"\\print01\laser-3", "type": TYPE, "user": "desk"}
    file = written(tmp_path / "farm.json", json.dumps({"pools": [pool]}))
    done = await sound.run("setup", str(file))
    assert done.lines == [r"pool desk listens on \\print01\laser-3"], "no doctor was asked for"


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        (
            ("appendonly", "no"),
            (
                "nothing was set up; persistence: no persistence at all: `redis-cli -h 127.0.0.1 "
                "-p {port} CONFIG SET appendonly yes`, or accept persistence"
            ),
        ),
        (
            ("maxmemory-policy", "allkeys-lru"),
            (
                "nothing was set up; eviction: maxmemory-policy is allkeys-lru: `redis-cli "
                "-h 127.0.0.1 -p {port} CONFIG SET maxmemory-policy noeviction`, or accept eviction"
            ),
        ),
    ],
)
async def test_a_redis_that_loses_data_is_refused_with_what_mends_it(
    sound: Tympan, redis: RedisServer, file: Path, spoilt: tuple[str, str], sentence: str
) -> None:
    redis.config(*spoilt)
    refused = await sound.run("setup", str(file), status=1)
    assert refused.notes == f"{sentence.format(port=redis.port)}\n"
    async with Broker.connect(sound.url, user="look") as broker:
        assert await broker.servers() == []


async def test_a_loss_that_is_accepted_lets_it_pass(
    sound: Tympan, redis: RedisServer, file: Path
) -> None:
    written(file, FILE.replace("[doctor]", '[doctor]\naccept = ["persistence"]'))
    redis.config("appendonly", "no")
    await sound.run("setup", str(file))


async def test_it_waits_for_a_redis_that_comes(file: Path) -> None:
    port = free_port()
    tympan = Tympan(f"redis://127.0.0.1:{port}/0")
    waiting = await tympan.start("setup", str(file), "--wait", "60")
    await waiting.note("waiting for up to 60 s")
    with RedisServer(port=port, **SOUND):
        assert await waiting.ended() == 0, waiting
    await tympan.clean_up()


async def test_a_redis_that_does_not_come_is_unreachable(file: Path) -> None:
    tympan = Tympan(f"redis://127.0.0.1:{free_port()}/0")
    ended = await tympan.run("setup", str(file), "--wait", "1", status=5)
    assert "REDIS_UNREACHABLE" in ended.notes
    await tympan.clean_up()


async def test_an_operators_credential_is_enough(
    sound: Tympan, redis: RedisServer, file: Path
) -> None:
    line = (await sound.run("acl", "operator", "--user", "operator")).lines[0]
    redis.cli(*shlex.split(line))
    redis.cli("ACL", "SETUSER", "operator", f">{SECRET}")
    redis.cli("ACL", "SETUSER", "default", "off")
    credential = {"TYMPAN_USERNAME": "operator", "TYMPAN_PASSWORD": SECRET}
    tympan = Tympan(redis.url, environment=credential)
    done = await tympan.run("setup", str(file))
    assert done.lines[-1] == r"pool tickets listens on \\print02"
    assert SECRET not in "\n".join(done.lines) + done.notes
    listed = await tympan.run("pool", "list", "--json")
    assert len(listed.events) == 3
    await tympan.clean_up()


async def test_a_pool_of_the_whole_farm_needs_a_server(sound: Tympan, file: Path) -> None:
    written(file, FILE[FILE.index('[[pools]]\npool = "tickets"') :])
    refused = await sound.run("setup", str(file), status=3)
    assert (
        "pool tickets is to listen everywhere, and no print server is known: name at least one "
        "under servers" in refused.notes
    )


async def test_a_right_that_is_missing_is_told(sound: Tympan, file: Path) -> None:
    written(file, FILE[FILE.index("[[pools]]") :])
    refused = await sound.run("setup", str(file), status=3)
    assert "ACCESS_DENIED" in refused.notes
    assert "helpdesk" in refused.notes


async def test_a_file_that_is_wrong_is_refused_before_anything_is_done(
    sound: Tympan, file: Path
) -> None:
    written(file, FILE + "[[pool]]")
    refused = await sound.run("setup", str(file), status=2)
    assert "pool: nothing of this name is known here" in refused.notes
    assert refused.lines == []
    listed = await sound.run("servers", "--json")
    assert listed.events == []
