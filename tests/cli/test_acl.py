"""`tympan acl` prints one line that redis-cli takes, in a shell and from a pipe."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator

import pytest

from tests.servers import RedisServer
from workers.acl import Role, Wish, rules
from workers.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def printed(capsys: Captured, *words: str) -> list[str]:
    """The words of the one line."""
    assert main(["acl", *words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return shlex.split(line)


OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("--all-users",),
    ("--known",),
    ("--durability", "replica"),
    ("--cluster",),
    ("--before-7",),
    ("--namespace", "other"),
    ("--server", r"\\print01", "--server", r"\\print02"),
)


@pytest.mark.parametrize(("role", "options"), [*itertools.product(Role, OPTIONS)], ids=str)
def test_redis_takes_what_is_printed(
    capsys: Captured, redis: RedisServer, role: Role, options: tuple[str, ...]
) -> None:
    servers = () if "--server" in options else ("--server", r"\\print01")
    words = printed(capsys, role.value, *servers, *options, "--user", "somebody")
    assert words[:3] == ["ACL", "SETUSER", "somebody"]
    assert redis.cli(*words)
    assert "nopass" not in redis.cli("ACL", "GETUSER", "somebody")["flags"]


def test_it_replaces_what_was_allowed_and_keeps_passwords(
    capsys: Captured, redis: RedisServer
) -> None:
    redis.cli("ACL", "SETUSER", "helpdesk", "on", ">secret", "~*", "&*", "+@all", "(~x +get)")
    before = redis.cli("ACL", "GETUSER", "helpdesk")
    line = printed(capsys, "listener", "--user", "helpdesk")
    found = []
    for _ in range(2):
        redis.cli(*line)
        found.append(redis.cli("ACL", "GETUSER", "helpdesk"))
    assert found[0] == found[1]
    assert found[0]["passwords"] == before["passwords"]
    assert "~*" not in found[0]["keys"]
    assert not any("~x" in str(one) for one in found[0]["selectors"])


@pytest.mark.parametrize(
    ("words", "user"),
    [
        (("source", "--server", r"\\Print01"), "print01"),
        (("source", "--server", "a", "--server", "b"), "source"),
        (("listener", "worker"), "listener-worker"),
        (("worker", "--server", "a"), "worker"),
        (("worker", "--user", "desk"), "desk"),
    ],
    ids=str,
)
def test_whose_line_it_is(capsys: Captured, words: tuple[str, ...], user: str) -> None:
    assert printed(capsys, *words)[2] == user


def test_for_programs(capsys: Captured) -> None:
    assert main(["acl", "source", "listener", "--server", r"\\print01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = rules(Wish(roles=[Role.SOURCE, Role.LISTENER], servers=("print01",)))
    assert found["rules"] == expected
    assert (found["roles"], found["names"]) == (["source", "listener"], [r"\\print01"])
    assert shlex.split(found["command"]) == ["ACL", "SETUSER", "source-listener", *expected]


@pytest.mark.parametrize("url", ["redis+cluster://nowhere:1", "rediss+cluster://nowhere:1"])
def test_the_url_says_that_it_is_a_cluster(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """It is not asked."""
    wanted = printed(capsys, "worker", "--cluster")
    assert printed(capsys, "worker", "--url", url) == wanted
    monkeypatch.setenv("TYMPAN_URL", url)
    assert printed(capsys, "worker") == wanted
    assert "+spublish" in wanted


def test_a_person_is_told_about_the_password(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    main(["acl", "worker"])
    assert "ACL SETUSER worker '>...'" in capsys.readouterr().err
