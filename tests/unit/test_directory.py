"""The directory: a name is claimed once, and an answer is good for a while.

The link is a double; what a real Redis makes of races is shown in tests/redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker._directory import Directory
from broker._keys import IDENTITY
from broker._waiting import LinkLost
from broker.errors import (
    AliasTaken,
    ForeignLayout,
    InvalidArgument,
    NotInDirectory,
    RedisRefused,
    RedisUnreachable,
)
from broker.settings import Settings

RESYNC = 5.0
SETTINGS = Settings.of(resync=RESYNC, operation_timeout=0.2)


class Link:
    """One hash, what was asked of it, and what goes wrong."""

    where = "redis://double"

    def __init__(self) -> None:
        self.hash: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.published: list[str] = []
        self.lost_before = 0
        """Commands that are lost on their way there."""
        self.lost_after = 0
        """Commands that are done, and whose replies are lost."""
        self.after: dict[str, Callable[[], object]] = {}
        """What happens right after a command of that name, once."""

    async def command(self, *command: Any) -> Any:
        name, *rest = map(str, command)
        self.asked.append(name)
        if self.lost_before:
            self.lost_before -= 1
            raise LinkLost("cut on the way there")
        reply = getattr(self, name.lower())(*rest[1:])
        self.after.pop(name, lambda: None)()
        if self.lost_after:
            self.lost_after -= 1
            raise LinkLost("cut on the way back")
        return reply

    def hsetnx(self, field: str, value: str) -> int:
        if field in self.hash:
            return 0
        self.hash[field] = value.encode()
        return 1

    def hmget(self, *fields: str) -> list[bytes | None]:
        return [self.hash.get(field) for field in fields]

    def hgetall(self) -> list[bytes]:
        return [text for field, value in self.hash.items() for text in (field.encode(), value)]

    def hdel(self, *fields: str) -> int:
        return sum(self.hash.pop(field, None) is not None for field in fields)

    def publish(self, payload: str) -> int:
        self.published.append(payload)
        return 0

    @property
    def names(self) -> dict[str, str]:
        """What stands for what."""
        return {name: value.decode() for name, value in self.hash.items() if name != IDENTITY}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(link: Link, clock: Clock) -> Directory:
    return Directory(link, SETTINGS, clock)


def another(link: Link) -> Directory:
    """Another process's."""
    return Directory(link, SETTINGS)


# Claiming ---------------------------------------------------------------------------------------


async def test_a_server_stands_for_itself(directory: Directory, link: Link) -> None:
    assert await directory.claim("print01") == "print01"
    assert await directory.claim("print01") == "print01", "once more is as good"
    assert link.names == {"print01": "print01"}
    assert await directory.servers() == ["print01"]
    assert await directory.aliases() == {}


async def test_claiming_an_alias_answers_with_its_server(directory: Directory, link: Link) -> None:
    await directory.alias("p1", "print01")
    assert await another(link).claim("p1") == "print01"
    assert link.names == {"print01": "print01", "p1": "print01"}


async def test_a_server_that_is_named_before_it_is_used_comes_into_the_directory(
    directory: Directory,
) -> None:
    assert await directory.alias("p1", "print01") == "print01"
    assert await directory.servers() == ["print01"]
    assert await directory.aliases() == {"p1": "print01"}


async def test_the_same_alias_twice_is_as_good(directory: Directory) -> None:
    for _ in range(2):
        assert await directory.alias("p1", "print01") == "print01"
    assert await directory.aliases() == {"p1": "print01"}


async def test_an_alias_of_an_alias_stands_for_the_server(directory: Directory) -> None:
    await directory.alias("p1", "print01")
    assert await directory.alias("10.1.2.3", "p1") == "print01"
    assert await directory.aliases() == {"10.1.2.3": "print01", "p1": "print01"}


async def test_an_alias_of_another_server_is_taken(directory: Directory, link: Link) -> None:
    await directory.alias("p1", "print01")
    before = link.names
    with pytest.raises(AliasTaken) as refused:
        await directory.alias("p1", "print02")
    assert (refused.value.alias, refused.value.server) == ("p1", "print01")
    for part in (r"\\p1", r"\\print01", r"\\print02", r"tympan server unalias '\\p1'"):
        assert part in str(refused.value)
    assert link.names == before, "nothing is half done"


async def test_a_server_is_no_alias(directory: Directory, link: Link) -> None:
    await directory.claim("print01")
    before = link.names
    with pytest.raises(AliasTaken, match="itself a server") as refused:
        await directory.alias("print01", "print02")
    assert r"tympan server forget '\\print01'" in str(refused.value)
    assert link.names == before


async def test_no_circle_of_aliases_is_made(directory: Directory) -> None:
    await directory.alias("p1", "print01")
    with pytest.raises(AliasTaken):
        await directory.alias("print01", "p1")
    with pytest.raises(InvalidArgument):
        await directory.alias("print01", "print01")
    assert await directory.aliases() == {"p1": "print01"}


async def test_an_alias_is_made_although_its_server_is_forgotten_meanwhile(
    directory: Directory, link: Link
) -> None:
    """The name was written, and gone before it was looked at: nothing half done stays."""
    await directory.claim("print01")
    link.after["HSETNX"] = link.hash.clear
    assert await directory.alias("p1", "print01") == "print01"
    assert link.names == {"print01": "print01", "p1": "print01"}


async def test_an_alias_goes(directory: Directory, link: Link) -> None:
    await directory.alias("p1", "print01")
    assert await directory.unalias("p1") == "print01"
    assert link.names == {"print01": "print01"}
    for name, why in (("p1", "not known"), ("print01", "is a server")):
        with pytest.raises(NotInDirectory, match=why):
            await directory.unalias(name)
    assert link.names == {"print01": "print01"}


async def test_a_forgotten_server_takes_its_aliases_with_it(
    directory: Directory, link: Link
) -> None:
    await directory.alias("p1", "print01")
    await directory.alias("10.1.2.3", "print01")
    await directory.alias("p2", "print02")
    assert await directory.forget("print01") == ["10.1.2.3", "p1"]
    assert link.names == {"print02": "print02", "p2": "print02"}


async def test_an_alias_made_while_its_server_is_forgotten_goes_too(
    directory: Directory, link: Link
) -> None:
    await directory.claim("print01")
    link.after["HDEL"] = lambda: link.hsetnx("p1", "print01")
    assert await directory.forget("print01") == ["p1"]
    assert link.names == {}


async def test_a_server_claimed_while_it_is_forgotten_stays(
    directory: Directory, link: Link
) -> None:
    await directory.claim("print01")
    link.after["HDEL"] = lambda: link.hsetnx("print01", "print01")
    await directory.forget("print01")
    assert link.names == {"print01": "print01"}


# Looking ----------------------------------------------------------------------------------------


async def test_a_cold_name_costs_one_round_trip_and_a_warm_one_none(
    directory: Directory, link: Link
) -> None:
    await another(link).alias("p1", "print01")
    link.asked.clear()
    assert [await directory.resolve("p1") for _ in range(3)] == ["print01"] * 3
    assert link.asked == ["HMGET"]


async def test_an_unknown_name_stands_for_itself_and_is_looked_up_again(
    directory: Directory, link: Link
) -> None:
    assert await directory.find("p1") is None
    assert await directory.resolve("p1") == "p1"
    await another(link).alias("p1", "print01")
    assert await directory.resolve("p1") == "print01"


async def test_an_answer_is_good_for_a_while(
    directory: Directory, link: Link, clock: Clock
) -> None:
    other = another(link)
    await other.alias("p1", "print01")
    assert await directory.resolve("p1") == "print01"
    await other.unalias("p1")
    await other.alias("p1", "print02")
    clock.now += RESYNC - 0.001
    assert await directory.resolve("p1") == "print01"
    clock.now += 0.001
    assert await directory.resolve("p1") == "print02"


async def test_whoever_reads_it_all_knows_every_name(directory: Directory, link: Link) -> None:
    other = another(link)
    await other.alias("p1", "print01")
    await directory.resolve("p1")
    await other.unalias("p1")
    await other.alias("p1", "print02")
    await directory.servers()
    link.asked.clear()
    assert await directory.resolve("p1") == "print02"
    assert link.asked == []


async def test_what_one_changed_one_knows(directory: Directory, link: Link) -> None:
    await directory.alias("p1", "print01")
    await directory.unalias("p1")
    assert await directory.find("p1") is None
    await directory.alias("p1", "print02")
    link.asked.clear()
    assert await directory.find("p1") == "print02"
    assert link.asked == []
    await directory.forget("print02")
    assert await directory.find("p1") is None


async def test_missing_names_are_found_at_once(directory: Directory, link: Link) -> None:
    await directory.alias("p1", "print01")
    link.asked.clear()
    assert await directory.missing(["print01", "print02", "p1", "print03"]) == [
        "print02",
        "print03",
    ]
    assert link.asked == ["HMGET"]


# An emptied Redis -------------------------------------------------------------------------------


async def test_a_directory_that_redis_lost_is_told_from_one_that_forgot(
    directory: Directory, link: Link
) -> None:
    await directory.alias("p1", "print01")
    await directory.claim("print02")
    await directory.forget("print02")
    await directory.servers()
    assert directory.losses == 0
    link.hash.clear()
    await directory.servers()
    assert directory.losses == 1, "it is gone"
    await directory.claim("print01")
    await directory.servers()
    assert directory.losses == 1, "and made again by this process"
    link.hash.clear()
    await another(link).claim("print03")
    await directory.servers()
    assert directory.losses == 2, "or by another one"


async def test_the_identity_is_no_name(directory: Directory) -> None:
    await directory.claim("print01")
    assert await directory.read() == {"print01": "print01"}


# Faults -----------------------------------------------------------------------------------------


async def test_a_lost_request_is_asked_again(directory: Directory, link: Link) -> None:
    link.lost_before = 2
    assert await directory.claim("print01") == "print01"


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_lost_reply_does_not_lose_the_claim(
    directory: Directory, link: Link, lost: int
) -> None:
    link.lost_after = lost
    assert await directory.claim("print01") == "print01"
    link.lost_after = lost
    assert await directory.alias("p1", "print01") == "print01"
    link.lost_after = lost
    assert await directory.unalias("p1") == "print01"
    assert link.names == {"print01": "print01"}


async def test_nothing_is_asked_for_longer_than_the_operation_timeout(
    directory: Directory, link: Link
) -> None:
    link.lost_before = 1_000_000
    with pytest.raises(RedisUnreachable, match="redis://double"):
        await directory.resolve("p1")


async def test_a_change_is_announced(directory: Directory, link: Link) -> None:
    await directory.claim("print01")
    await directory.alias("p1", "print01")
    await directory.unalias("p1")
    await directory.forget("print01")
    assert link.published == ["print01", "p1", "p1", "print01"]
    await directory.servers()
    await directory.resolve("print01")
    assert len(link.published) == 4


@pytest.mark.parametrize("error", [RedisRefused("no channel"), LinkLost("cut")])
async def test_an_announcement_is_only_a_hint(
    directory: Directory, link: Link, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: str) -> int:
        raise error

    monkeypatch.setattr(link, "publish", refuse)
    assert await directory.claim("print01") == "print01"


async def test_names_that_no_tympan_wrote_are_refused(directory: Directory, link: Link) -> None:
    link.hash["print01"] = b"\xff"
    for look in (directory.servers(), directory.resolve("print01")):
        with pytest.raises(ForeignLayout, match="namespace"):
            await look
